"""Two runs side by side: what changed by more than noise."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bpqp_bench.results.cells import PROTOCOLS, Cells, Pass, Protocol, sort_sizes
from bpqp_bench.statistics import FEWEST_FOR_INTERVAL, Ratio, paired_ratio

# A change below this is not called one even when its interval excludes 1: from one run to the
# next a whole process can come out a few per cent faster or slower (memory layout, frequency),
# which the scatter within a run does not show.
NOISE = 0.05

MACHINE_FIELDS = ("cpu", "cores", "physical_cores", "machine", "memory", "threads")
_SAME_LOAD = 0.3  # of a core, on average
_SAME_MEMORY = 0.02  # kernels of one machine report a little more or less of its memory

_PASSES: tuple[Pass, ...] = ("forward", "backward", "total")

Verdict = Literal["faster", "slower", "unchanged", "unclear", "outcome changed", "only one run"]


@dataclass(frozen=True)
class Change:
    """One cell in two runs.

    Attributes
    ----------
    ratio
        Time in B over time in A on the same instances; None where there is nothing in common.
    verdict
        "unclear": too few instances for an interval.
    detail
        What the outcomes were, where they differ.
    """

    family: str
    size: str
    method: str
    label: str
    which: Pass
    protocol: Protocol
    ratio: Ratio | None
    verdict: Verdict
    detail: str = ""

    @property
    def notable(self) -> bool:
        """Whether a reader should look at it."""
        return self.verdict not in ("unchanged", "unclear")


@dataclass(frozen=True)
class Agreement:
    """How well two runs agree in the paired ratios to a base method.

    Attributes
    ----------
    cells
        Cells (method, family, size, pass, protocol) with an interval in both runs.
    overlapping
        Of those, with overlapping intervals.
    inside
        Of those, where the median of each run lies in the other's interval.
    """

    cells: int
    overlapping: int
    inside: int


def different_machines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each respect in which two environments are different machines.

    A field that only one of them has counts as a difference.
    """
    found: list[str] = []
    for name in MACHINE_FIELDS:
        one, two = a.get(name), b.get(name)
        if one is None and two is None:
            continue
        if one is None or two is None:
            found.append(f"{name} is not recorded in one of them")
        elif (
            name == "memory"
            and _are_numbers(one, two)
            and abs(one - two) <= _SAME_MEMORY * max(one, two)
        ):
            continue
        elif one != two:
            found.append(f"{name} is {one!r} in one and {two!r} in the other")
    if not any(name in a and name in b for name in MACHINE_FIELDS):
        found.append("neither run says what machine it ran on")
    return found


def different_loads(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Return a sentence if one run began on a busier machine than the other, else None.

    The load is that of the minute before, per core; a run's own work is not in it.
    """
    loads: list[Any] = [environment.get("load") for environment in (a, b)]
    cores: list[Any] = [environment.get("cores") or 1 for environment in (a, b)]
    if not _are_numbers(*loads, *cores):
        return None
    per_core = [load / count for load, count in zip(loads, cores, strict=True)]
    if abs(per_core[0] - per_core[1]) <= _SAME_LOAD:
        return None
    return (
        f"the machine was not equally busy: load {loads[0]:g} in A and {loads[1]:g} in B "
        f"when they began; compare again when nothing else runs"
    )


def compare_runs(a: Cells, b: Cells, noise: float = NOISE) -> list[Change]:
    """Compare every cell of two runs, instance by instance.

    Parameters
    ----------
    a, b
        The runs; only counted calls on instances that both have are compared.
    noise
        Least relative change that is called one.
    """
    changes: list[Change] = []
    families = sorted({*a.families(), *b.families()})
    for family in families:
        for size in sort_sizes([*a.sizes(family), *b.sizes(family)]):
            for method in sorted({*a.methods(family), *b.methods(family)}):
                changes += _compare_cell(a, b, (family, size, method), noise)
    return changes


def to_frame(changes: list[Change]) -> pd.DataFrame:
    """Return the changes as a tidy frame."""
    return pd.DataFrame.from_records(
        [
            {
                "family": change.family,
                "size": change.size,
                "method": change.method,
                "label": change.label,
                "pass": change.which,
                "protocol": change.protocol,
                "n": change.ratio.n if change.ratio else 0,
                "ratio_b_to_a": change.ratio.median if change.ratio else None,
                "low": change.ratio.low if change.ratio else None,
                "high": change.ratio.high if change.ratio else None,
                "verdict": change.verdict,
                "detail": change.detail,
            }
            for change in changes
        ]
    )


def agreement(a: Cells, b: Cells, base: str, families: tuple[str, ...]) -> Agreement:
    """Count in how many cells the paired ratios to ``base`` of two runs agree.

    Backward and total pass, both protocols, as in table 1; ``base`` itself, whose ratio is 1, is
    left out.
    """
    cells = overlapping = inside = 0
    for family in families:
        sizes = set(a.sizes(family)) & set(b.sizes(family))
        methods = (set(a.methods(family)) & set(b.methods(family))) - {base}
        for size, method, which, protocol in itertools.product(
            sorted(sizes), sorted(methods), _PASSES[1:], PROTOCOLS
        ):
            one, two = (
                paired_ratio(
                    run.times(family, size, method, which, protocol),
                    run.times(family, size, base, which, protocol),
                )
                for run in (a, b)
            )
            if one is None or two is None or min(one.n, two.n) < FEWEST_FOR_INTERVAL:
                continue
            cells += 1
            overlapping += one.low <= two.high and two.low <= one.high
            inside += one.low <= two.median <= one.high and two.low <= one.median <= two.high
    return Agreement(cells, overlapping, inside)


def _compare_cell(a: Cells, b: Cells, key: tuple[str, str, str], noise: float) -> list[Change]:
    family, size, method = key
    label = a.label(method) or b.label(method) or method
    one, two = a.outcome(*key), b.outcome(*key)
    if one.state == "missing" and two.state == "missing":
        return []
    if one.state != two.state:
        missing = "missing" in (one.state, two.state)
        verdict: Verdict = "only one run" if missing else "outcome changed"
        detail = f"{one.state} in A, {two.state} in B"
        return [Change(*key, label, "total", "call", None, verdict, detail)]
    if one.state != "measured":
        return []
    marks = [run.gradient(*key).mark for run in (a, b)]
    if marks[0] != marks[1] and "wrong" in marks:
        detail = f"gradient {marks[0]} in A, {marks[1]} in B"
        return [Change(*key, label, "total", "call", None, "outcome changed", detail)]
    detail = "gradient not right in either" if marks[0] == "wrong" else ""
    if (one.failures + one.timeouts > 0) != (two.failures + two.timeouts > 0):
        failed = (
            f"failed calls: {one.failures + one.timeouts} in A, {two.failures + two.timeouts} in B"
        )
        detail = f"{detail}; {failed}" if detail else failed
    found: list[Change] = []
    for which, protocol in itertools.product(_PASSES, PROTOCOLS):
        ratio = paired_ratio(
            b.times(family, size, method, which, protocol),
            a.times(family, size, method, which, protocol),
        )
        found.append(Change(*key, label, which, protocol, ratio, _verdict(ratio, noise), detail))
    return found


def _verdict(ratio: Ratio | None, noise: float) -> Verdict:
    if ratio is None or ratio.n < FEWEST_FOR_INTERVAL:
        return "unclear"
    if not ratio.differs_from_one or abs(ratio.median - 1.0) <= noise:
        return "unchanged"
    return "slower" if ratio.median > 1.0 else "faster"


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float)) for value in values)
