"""Ratios of other methods to BPQP, cell by cell: the material of the claims about speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.published import published_time
from bpqp_bench.report.tables.efficiency import FAMILIES
from bpqp_bench.report.text import interval, significant
from bpqp_bench.results.cells import Pass, Protocol
from bpqp_bench.statistics import Ratio, paired_ratio

__all__ = ["BPQP", "LAYERS", "CellRatio", "cell_ratio", "published_ratio", "table1_sizes"]

BPQP = "bpqp"
# The layers of the paper's comparison; on LP the paper ran CVXPY without the ε‖z‖² term.
LAYERS = ("exact", "cvxpy", "cvxpy-lp0", "qpth", "altdiff", "jaxopt")


@dataclass(frozen=True)
class CellRatio:
    """Time of another method over BPQP's in one cell.

    ``bound`` marks a lower bound: the other method hit the time limit on every instance.
    """

    family: str
    size: str
    name: str
    label: str
    value: float
    low: float
    high: float
    bound: bool = False

    @property
    def text(self) -> str:
        """Print "12.3 [11.9, 12.8]" or "at least 40"."""
        if self.bound:
            return f"at least {significant(self.value)}"
        return f"{significant(self.value)} {interval(self.low, self.high)}".strip()

    @property
    def faster(self) -> bool:
        """Whether BPQP is faster beyond the scatter of the instances (or plainly, without one)."""
        return self.value > 1.0 and not self.low <= 1.0


def cell_ratio(
    inputs: Inputs, name: str, family: str, size: str, *, which: Pass, protocol: Protocol
) -> CellRatio | None:
    """Return the paired ratio other/BPQP, or None if either was not measured."""
    base, other = inputs.names.method(BPQP), inputs.names.method(name)
    label = inputs.cells.label(other.key) or other.label
    own = inputs.cells.times(family, size, base.key, which, protocol)
    found: Ratio | None = paired_ratio(
        inputs.cells.times(family, size, other.key, which, protocol), own
    )
    if found is not None:
        return CellRatio(family, size, name, label, found.median, found.low, found.high)
    outcome = inputs.cells.outcome(family, size, other.key)
    if outcome.state == "timeout" and outcome.limit_s and len(own) and protocol == "call":
        value = outcome.limit_s / float(own.median())
        return CellRatio(family, size, name, label, value, np.nan, np.nan, bound=True)
    return None


def published_ratio(name: str, family: str, size: str, which: Pass) -> float | None:
    """Return the ratio of the published means, or None where one of them is missing."""
    other = published_time(name, family, which, size)
    own = published_time(BPQP, family, which, size)
    if other is None or own is None or own.mean == 0:
        return None
    return other.mean / own.mean


def table1_sizes(inputs: Inputs, large: tuple[str, ...]) -> list[str]:
    """Sizes of table 1 that were measured."""
    return [size for size in inputs.cells.sizes(*FAMILIES) if size not in large]
