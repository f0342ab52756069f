"""What tables are declared with: places down, entries across, and the cells that several print."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row, Tone
from bpqp_bench.report.published import Published
from bpqp_bench.report.text import (
    as_published,
    interval,
    middle_half,
    outcome_text,
    significant,
    tiny,
)
from bpqp_bench.results.cells import (
    PROTOCOLS,
    Cells,
    Gradient,
    Key,
    Outcome,
    Pass,
    Protocol,
    sort_sizes,
)
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile
from bpqp_bench.statistics import PowerFit, fit_power, summarize

# What a reader must know of the settings to compare rows fairly; docs/methods.md has the rest.
SETTINGS = (
    "BPQP and Exact share their forward pass: OSQP at 1e−5 absolute and relative, then the exact "
    "solution on the binding rows; rows named “OSQP default tolerances” have OSQP's own 1e−3 and "
    "nothing after it. BPQP's “direct” backward passes reuse the factorization that this forward "
    "pass has made and paid for: compare those rows by their total."
)

NOT_SPLIT = "cannot be split into phases: the whole call is counted as solve"

SCALE = {"ms": 1e3, "s": 1.0}

# Beside a time: what is known of the gradient that it bought.
MARKS = {"right": "", "wrong": " ✗", "degenerate": " ◇", "zero": " ∅", "unknown": " ?"}
LEGEND = (
    "✗: on at least one instance the gradient is not right (1 − cos above 1e−6 or relative error "
    "above 1e−3); ◇: no gradient exists at these instances (degenerate); ∅: the gradient is zero; "
    "?: no reference to judge it by. Bold: the fastest right one."
)


@dataclass(frozen=True)
class Place:
    """What a row is about; ``section`` heads it."""

    family: str
    method: MethodName
    size: str = ""
    which: Pass = "total"
    section: str = ""

    @property
    def key(self) -> Key:
        """What its cell is looked up by: family, size, key of the method."""
        return self.family, self.size, self.method.key


_R = TypeVar("_R")
Entry = tuple[Column, Callable[[Place], Cell]]


def places(
    families: Mapping[str, str],
    methods: Callable[[str], Iterable[MethodName]],
    sizes: Iterable[str] = ("",),
    passes: Iterable[Pass] = ("total",),
) -> list[Place]:
    """Every family (a section each, under its label) × size × pass × method."""
    return [
        Place(family, method, size, which, label)
        for family, label in families.items()
        for size, which, method in itertools.product(sizes, passes, methods(family))
    ]


def grid(
    key: str,
    title: str,
    rows: Iterable[Place],
    entries: Sequence[Entry],
    caption: str = "",
    long: bool = False,
) -> Panel:
    """Make a panel of places down and entries across."""
    return panel_of(key, title, rows, entries, caption, long, lambda place: place.section)


def panel_of(
    key: str,
    title: str,
    rows: Iterable[_R],
    entries: Sequence[tuple[Column, Callable[[_R], Cell]]],
    caption: str = "",
    long: bool = False,
    section: Callable[[_R], str] = lambda row: "",
) -> Panel:
    """Make a panel of anything down and entries across: columns, and how their cells are made."""
    made = tuple(Row(tuple(make(row) for _, make in entries), section(row)) for row in rows)
    return Panel(key, title, tuple(column for column, _ in entries), made, caption, long)


def request(
    profile: Profile, methods: Iterable[str], families: Iterable[str], **limits: Any
) -> Request:
    """Ask for methods on families as a profile says, save for the fields named in ``limits``."""
    fields: dict[str, Any] = {
        "sizes": profile.sizes,
        "instances": profile.instances,
        "call_limit_s": profile.call_limit_s,
        "build_limit_s": profile.build_limit_s,
        "cell_budget_s": profile.cell_budget_s,
    }
    return Request(tuple(methods), tuple(families), **fields | limits)


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


def method_entry(cells: Cells, protocol: Protocol = "call") -> Entry:
    """Return the column of the methods' names."""
    return Column("Method", numeric=False), lambda row: method_cell(cells, row.method, protocol)


def published_text(figure: Published | None, unit: str) -> str:
    """Print "paper 3.33 ± 0.98" in the unit of the cell, nothing where there is no figure."""
    if figure is None:
        return ""
    return f"paper {as_published(figure.mean, figure.std, SCALE[unit])}"


def size_cell(size: str) -> Cell:
    """Print a size so that it sorts by n, then m."""
    n, _, m = size.partition("x")
    return Cell(size, float(n) + float(m) * 1e-6)


def missing_cell(outcome: Outcome, below: str = "") -> Cell:
    """Print what stands for a figure that does not exist: ">limit", "failed", "—", "not run"."""
    absent = outcome.state in ("missing", "unsupported", "unavailable")
    return Cell(
        outcome_text(outcome),
        outcome.limit_s if outcome.state == "timeout" else None,
        below=below,
        notes=outcome.notes,
        tone="missing" if absent else "fail",
    )


def time_cell(
    cells: Cells, place: Place, protocol: Protocol, unit: str = "ms", below: str = ""
) -> Cell:
    """Print the median of a pass and its middle half, marked where the gradient is not right.

    "≥" before it where calls hit the limit and are missing.
    """
    key = place.key
    outcome = cells.outcome(*key)
    if outcome.state != "measured":
        return missing_cell(outcome, below)
    times = cells.numbers(*key, f"time.{place.which}.{protocol}")
    if not times.size:
        return Cell("n/a", None, below=below, notes=outcome.notes, tone="missing")
    found = summarize(times)
    text = significant(found.median * SCALE[unit])
    mark = MARKS[cells.gradient(*key).mark]
    return Cell(
        f"{'≥ ' if outcome.timeouts else ''}{text}{mark}",
        found.median * SCALE[unit],
        below=below,
        notes=outcome.notes,
        runs=tuple((times * SCALE[unit]).tolist()),
        unit=unit,
        tone="wrong" if mark == MARKS["wrong"] else "",
        comparable=cells.right(*key) and not outcome.timeouts,
        spread=middle_half(found, SCALE[unit]),
    )


def with_best(panel: Panel) -> Panel:
    """Mark the least figure of each column within each section, among comparable cells."""
    best: dict[tuple[str, int], float] = {}
    for row in panel.rows:
        for column, cell in enumerate(row.cells):
            if isinstance(cell.sort, float) and cell.comparable:
                place = (row.section, column)
                best[place] = min(best.get(place, math.inf), cell.sort)

    def marked(row: Row) -> Row:
        return replace(
            row,
            cells=tuple(
                replace(cell, tone="best")
                if cell.comparable and best[row.section, column] == cell.sort
                else cell
                for column, cell in enumerate(row.cells)
            ),
        )

    return replace(panel, rows=tuple(marked(row) for row in panel.rows))


def active_text(cells: Cells, family: str, size: str) -> str:
    """Print the number of active constraints: the median, and the range where it varies."""
    found = cells.active(family, size)
    if found is None:
        return "n/a"
    median, low, high = found
    return significant(median) if low == high else f"{significant(median)} ({low} to {high})"


def number_cell(value: float, show: Callable[[float], str] = tiny, **more: Any) -> Cell:
    """Print a number, "n/a" where there is none."""
    if not math.isfinite(value):
        return Cell("n/a", tone="muted")
    return Cell(show(value), value, **more)


def right_cell(found: Gradient, unjudged: str) -> Cell:
    """Print how many gradients are right, of those that can be judged."""
    if not found.judged:
        return Cell(unjudged, tone="muted")
    text = f"{found.right}/{found.judged}"
    tone: Tone = "wrong" if found.mark == "wrong" else ""
    return Cell(text, found.right / found.judged, tone=tone)


def fit_cells(
    cells: Cells, family: str, method: str, which: Pass, protocol: Protocol
) -> PowerFit | None:
    """Fit time over n for one method on all measured sizes of a family."""
    times: dict[float, list[float]] = {}
    for size in cells.sizes(family):
        found = cells.times(family, size, method, which, protocol)
        positive = found[found > 0]
        if len(positive):
            times.setdefault(float(size.partition("x")[0]), []).extend(positive.tolist())
    return fit_power(times)


def exponent_entries(
    fit: Callable[[Place, Pass, Protocol], PowerFit | None],
    passes: Iterable[Pass],
    local: bool,
) -> list[Entry]:
    """Columns of fitted exponents, one for each protocol and pass.

    With ``local`` the second line has the exponents between neighbouring sizes.
    """

    def entry(protocol: Protocol, which: Pass) -> Entry:
        def cell(place: Place) -> Cell:
            found = fit(place, which, protocol)
            if found is None:
                why = "n/a: fewer than two sizes were measured"
                return Cell("n/a", tone="missing", notes=(why,) if local else ())
            text = f"{significant(found.exponent)} {interval(found.low, found.high)}".strip()
            slopes = ", ".join(significant(slope, 2) for slope in found.local)
            return Cell(
                text,
                found.exponent,
                below=slopes if local and found.trusted else "",
                notes=() if found.trusted else (_TWO_SIZES[local],),
            )

        return Column(which, f"Protocol: {protocol}"), cell

    return [entry(protocol, which) for protocol in PROTOCOLS for which in passes]


_TWO_SIZES = (
    "two sizes only: no evidence of any law",
    "two sizes only: any two points lie on a line, so this is no evidence of a power law",
)
