"""Three readings of a claim about speed: which configuration, and by which clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bpqp_bench.report.claims.model import NOT, REPRODUCED, UNTESTED, Verdict
from bpqp_bench.report.claims.setup import phase_share
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.published import published_time
from bpqp_bench.report.tables._common import base_name
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS
from bpqp_bench.report.text import interval, significant
from bpqp_bench.results.cells import Pass
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import FEWEST_FOR_INTERVAL, paired_ratio

Clock = Literal["published", "call"]


@dataclass(frozen=True)
class Reading:
    """Which configurations are compared, by which clock."""

    key: str
    title: str
    clock: Clock
    best: bool


READINGS = (
    Reading("published", "published configuration, authors' clock", "published", best=False),
    Reading("call", "published configuration, call time", "call", best=False),
    Reading("best", "best right configuration of every method, call time", "call", best=True),
)
# Of these the authors timed the solver's solve() and the inversion alone; of all others the call.
_SOLVE_ALONE = ("bpqp", "exact")
# The configuration in which the paper ran a method, where it has a name of its own. On LP it ran
# CVXPY without the ε‖z‖² term.
_PUBLISHED = {
    "bpqp": "bpqp-paper",
    "exact": "exact-paper",
    "cvxpy": "cvxpy-paper",
    "qpth": "qpth-paper",
    "altdiff": "altdiff-paper",
    "jaxopt": "jaxopt",
}


@dataclass(frozen=True)
class CellRatio:
    """Time of another method over BPQP's in one cell.

    ``bound`` marks a lower bound: the other method hit the time limit on every instance.
    ``names`` are the configurations of the other method and of BPQP, ``right`` whether the
    gradients of both are.
    """

    family: str
    size: str
    label: str
    names: tuple[str, str]
    value: float
    low: float
    high: float
    least: float
    n: int
    bound: bool = False
    right: bool = True

    @property
    def text(self) -> str:
        """Print "12.3 [11.9, 12.8]" or "at least 40"."""
        if self.bound:
            return f"at least {significant(self.value)}"
        return f"{significant(self.value)} {interval(self.low, self.high)}".strip()

    @property
    def verdict(self) -> Verdict:
        """Whether BPQP is faster beyond chance.

        Its interval lies above 1; where two to four instances give none, every single one does.
        One instance says nothing.
        """
        if self.bound:
            return REPRODUCED if self.value > 1.0 else UNTESTED
        if self.n == 1:
            return UNTESTED
        least = self.low if self.n >= FEWEST_FOR_INTERVAL else self.least
        return REPRODUCED if least > 1.0 else NOT


def configuration(
    inputs: Inputs, method: str, family: str, size: str, reading: Reading
) -> str | None:
    """Return the name of the configuration that a reading takes of a method in a cell.

    The best one is the one of table 1 with the least median total time in this cell, among those
    whose gradients are all right; where there is none, one that hit the time limit, else None.
    """
    if not reading.best:
        if method == "cvxpy" and family == "lp":
            return "cvxpy-lp0"
        return _PUBLISHED.get(method, method)
    found: dict[str, float] = {}
    late: list[str] = []
    for name in METHODS:
        key = (family, size, inputs.names.method(name).key)
        if base_name(name).partition("-")[0] != method:
            continue
        if inputs.cells.right(*key):
            found[name] = float(inputs.cells.times(*key, "total", "call").median())
        elif inputs.cells.outcome(*key).state == "timeout":
            late.append(name)
    return min(found, key=lambda name: found[name]) if found else next(iter(late), None)


def times(
    inputs: Inputs, name: str, family: str, size: str, which: Pass, clock: Clock
) -> pd.Series:
    """Seconds by instance on a clock."""
    key = inputs.names.method(name).key
    alone = clock == "published" and name.partition("-")[0] in _SOLVE_ALONE
    return inputs.cells.times(family, size, key, which, "solver" if alone else "call")


def cell_ratio(
    inputs: Inputs, method: str, family: str, size: str, which: Pass, reading: Reading
) -> CellRatio | None:
    """Return the paired ratio method/BPQP, or None if either was not measured."""
    names = [configuration(inputs, one, family, size, reading) for one in (method, "bpqp")]
    other, base = names
    if other is None or base is None:
        return None
    key = inputs.names.method(other).key
    label = inputs.cells.label(key) or inputs.names.method(other).label
    own = times(inputs, base, family, size, which, reading.clock)
    theirs = times(inputs, other, family, size, which, reading.clock)
    found = paired_ratio(theirs, own)
    where = (family, size, label, (other, base))
    if found is not None:
        least = float((theirs / own).min())
        keys = [inputs.names.method(name).key for name in (other, base)]
        right = all(inputs.cells.right(family, size, one) for one in keys)
        return CellRatio(*where, found.median, found.low, found.high, least, found.n, right=right)
    outcome = inputs.cells.outcome(family, size, key)
    if outcome.state == "timeout" and outcome.limit_s and len(own):
        value = outcome.limit_s / float(own.median())
        return CellRatio(*where, value, np.nan, np.nan, value, len(own), bound=True)
    return None


def published_ratio(method: str, family: str, size: str, which: Pass) -> float | None:
    """Return the ratio of the published means, or None where one of them is missing."""
    name = "cvxpy-lp0" if (method, family) == ("cvxpy", "lp") else method
    other, own = (published_time(one, family, which, size) for one in (name, "bpqp"))
    if other is None or own is None or own.mean == 0:
        return None
    return other.mean / own.mean


def table1_sizes(inputs: Inputs) -> list[str]:
    """Sizes of table 1 that were measured."""
    large = PROFILES[-1].large_sizes
    return [size for size in inputs.cells.sizes(*FAMILIES) if size not in large]


def contrast(inputs: Inputs, medians: dict[str, float], size: str | None, family: str) -> str:
    """Say in one sentence where the readings differ, and why."""
    if not {"published", "call", "best"} <= medians.keys() or size is None:
        return ""
    clock, call, best = (significant(medians[key]) for key in ("published", "call", "best"))
    share = phase_share(inputs, family, size, "bpqp-paper")
    outside = f" ({share:.0%} of the call of BPQP on {family} at {size})" if share else ""
    return (
        f"Median ratio to BPQP: {clock} on the authors' clock, {call} in call time, {best} between "
        "the best right configurations: the authors' clock leaves out what BPQP and Exact do "
        f"around the solver{outside} and counts whole calls of the others, and the best "
        "configurations replace the published solvers and tolerances on both sides."
    )


def spread(ratios: Sequence[CellRatio]) -> float:
    """Return the median over cells."""
    return float(np.median([ratio.value for ratio in ratios]))
