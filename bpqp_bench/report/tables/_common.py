"""Cells that several tables print."""

from __future__ import annotations

from collections.abc import Sequence

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell
from bpqp_bench.report.published import Published
from bpqp_bench.report.text import as_published, outcome_text, plus_minus, significant
from bpqp_bench.results.cells import Cells, Outcome, Pass, Protocol, sort_sizes
from bpqp_bench.runner.profiles import PROFILES, Profile
from bpqp_bench.statistics import summarize

__all__ = [
    "NOT_SPLIT",
    "SCALE",
    "SETTINGS",
    "active_text",
    "base_name",
    "is_short",
    "method_cell",
    "missing_cell",
    "published_text",
    "size_cell",
    "table_sizes",
    "time_cell",
]

# What a reader must know of the settings to compare rows fairly; docs/methods.md has the rest.
SETTINGS = (
    "BPQP and Exact share their forward pass: OSQP at 1e−5 absolute and relative, then the exact "
    "solution on the binding rows; rows named “OSQP default tolerances” have OSQP's own 1e−3 and "
    "nothing after it. BPQP's “direct” backward passes reuse the factorization that this forward "
    "pass has made and paid for: compare those rows by their total."
)

NOT_SPLIT = "cannot be split into phases: the whole call is counted as solve"

SCALE = {"ms": 1e3, "s": 1.0}


def base_name(key: str) -> str:
    """Return the registry name under a key: "bpqp" of "bpqp[backward=direct]"."""
    return key.partition("[")[0]


def is_short(profile: Profile) -> bool:
    """Whether a profile leaves out sizes, and so the tables their dearer parts."""
    return len(profile.sizes) < len(PROFILES[-1].sizes)


def table_sizes(
    inputs: Inputs, planned: Sequence[str], elsewhere: Sequence[str], *families: str
) -> list[str]:
    """Sizes of a table: the planned ones, and measured ones that belong to no other table."""
    wanted = [size for size in planned if inputs.expects(*families, sizes=(size,))]
    measured = [size for size in inputs.cells.sizes(*families) if size not in elsewhere]
    return sort_sizes([*wanted, *measured])


def method_cell(cells: Cells, method: MethodName, protocol: Protocol = "call") -> Cell:
    """Print the name of a method, footnoted where the solver protocol sees nothing."""
    notes: tuple[str, ...] = ()
    if protocol == "solver" and not cells.split(method.key):
        notes = (f"{method.label}: {NOT_SPLIT}",)
    return Cell(method.label, method.label.lower(), notes=notes)


def published_text(figure: Published | None, unit: str) -> str:
    """Print "paper 3.33 ± 0.98" in the unit of the cell, "paper n/a" where there is no figure."""
    if figure is None:
        return "paper n/a"
    return f"paper {as_published(figure.mean, figure.std, SCALE[unit])}"


def size_cell(size: str) -> Cell:
    """Print a size so that it sorts by n, then m."""
    n, _, m = size.partition("x")
    return Cell(size, float(n) + float(m) * 1e-6)


def missing_cell(outcome: Outcome, below: str = "") -> Cell:
    """Print what stands for a figure that does not exist: ">limit", "failed", "—", "not run"."""
    tone = "missing" if outcome.state in ("missing", "unsupported", "unavailable") else "fail"
    return Cell(
        outcome_text(outcome),
        outcome.limit_s if outcome.state == "timeout" else None,
        below=below,
        notes=outcome.notes,
        tone="missing" if tone == "missing" else "fail",
    )


def time_cell(
    cells: Cells,
    family: str,
    size: str,
    method: MethodName,
    *,
    which: Pass,
    protocol: Protocol,
    unit: str = "ms",
    below: str = "",
) -> Cell:
    """Print mean ± std of a pass; "≥" before it where calls hit the limit and are missing."""
    outcome = cells.outcome(family, size, method.key)
    if outcome.state != "measured":
        return missing_cell(outcome, below)
    times = cells.times(family, size, method.key, which, protocol)
    if times.empty:
        return Cell("n/a", None, below=below, notes=outcome.notes, tone="missing")
    found = summarize(times)
    text = plus_minus(found.mean, found.std, SCALE[unit])
    return Cell(
        f"≥ {text}" if outcome.timeouts else text,
        found.mean * SCALE[unit],
        below=below,
        notes=outcome.notes,
        runs=tuple(float(value) for value in times * SCALE[unit]),
        unit=unit,
    )


def active_text(cells: Cells, family: str, size: str) -> str:
    """Print the number of active constraints: the median, and the range where it varies."""
    found = cells.active(family, size)
    if found is None:
        return "n/a"
    median, low, high = found
    return significant(median) if low == high else f"{significant(median)} ({low} to {high})"
