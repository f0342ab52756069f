"""Batches: time of an instance against the number of problems that a call takes."""

from __future__ import annotations

import itertools
from dataclasses import replace

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import (
    LEGEND,
    Entry,
    Place,
    base_name,
    grid,
    is_short,
    method_entry,
    time_cell,
    with_best,
)
from bpqp_bench.report.tables._survey import (
    QP,
    ask,
    at_best,
    batch_entry,
    by_batch,
    record,
    rows,
    scope,
)
from bpqp_bench.report.tables.real import REAL
from bpqp_bench.results.cells import PASSES, Cells, Pass, sort_sizes
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

# What benchmarks/plain_loop.py times without the suite (docs/clock.md).
CLOCK_METHODS = ("bpqp", "qpth", "qplayer")
CLOCK_SIZES = ("10x5", "100x20", "500x100")
_CLOCK_S = 15.0

_CAPTION = (
    "Milliseconds for one instance, the time of the call divided by its batch; median over calls, "
    "protocol call. Every QP method in its best configuration, on QPs half of whose inequalities "
    "bind. “one call”: the method takes the batch as one; “loop”: it is called once for each "
    "problem, and the times are added up; methods that were measured with one size of batch alone "
    "are left out. The limit on a pass holds for the whole batch. DC3, "
    f"which has to be trained for each family, is in table 5. {LEGEND}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for every QP method, one configuration each, at every size of batch.

    And for enough of the three layers that a plain loop is compared with.
    """
    limits = scope(profile)
    asked = [ask(profile, at_best(), (QP,), limits.batch_sizes, batch) for batch in limits.batches]
    if is_short(profile):
        return tuple(asked)
    clock = (
        ask(profile, CLOCK_METHODS, (QP,), CLOCK_SIZES, batch) for batch in (1, limits.together)
    )
    asked += [replace(one, cell_budget_s=_CLOCK_S, call_limit_s=2 * _CLOCK_S) for one in clock]
    return tuple(asked)


def batched_problems(inputs: Inputs) -> list[tuple[str, str]]:
    """Return every family and size of QPs that was measured with two sizes of batch or more."""
    cells = by_batch(inputs)
    families = {
        family
        for one in cells.values()
        for family in one.families()
        if one.problem_class(family) == "qp" and base_name(family) not in REAL
    }
    return [
        (family, size)
        for family in sorted(families)
        for size in sort_sizes(itertools.chain(*(one.sizes(family) for one in cells.values())))
        if len(_measured(cells, family, size)) > 1
    ]


def _is_there(cells: Cells, family: str, size: str, method: MethodName) -> bool:
    return cells.outcome(family, size, method.key).state != "missing"


def _measured(cells: dict[int, Cells], family: str, size: str) -> dict[int, Cells]:
    return {batch: one for batch, one in cells.items() if size in one.sizes(family)}


def render(inputs: Inputs) -> Table:
    """Render a panel for each size: methods down, passes and batches across."""
    every = by_batch(inputs)
    panels: list[Panel] = []
    records = []
    for family, size in batched_problems(inputs):
        cells = _measured(every, family, size)
        methods = rows(inputs, at_best(), cells.values(), family)
        places = [
            Place(family, method, size)
            for method in methods
            if sum(_is_there(one, family, size, method) for one in cells.values()) > 1
        ]
        if places:
            panels.append(_panel(inputs, cells, places))
        records += [record(cells, batch, place) for place in places for batch in cells]
    return TABLE.filled(_CAPTION, panels, records)


def _panel(inputs: Inputs, cells: dict[int, Cells], places: list[Place]) -> Panel:
    def entry(which: Pass, batch: int) -> Entry:
        def cell(place: Place) -> Cell:
            where = Place(place.family, place.method, place.size, which)
            return time_cell(cells[batch], where, "call")

        return Column(str(batch), f"{which.capitalize()}, by batch (ms)"), cell

    first = next(iter(cells.values()))
    family, size = places[0].family, places[0].size
    return with_best(
        grid(
            f"batches-{family}-{size}",
            f"{family}, {size}",
            places,
            [
                method_entry(first),
                batch_entry(inputs),
                *(entry(which, batch) for which in PASSES for batch in cells),
            ],
        )
    )


TABLE = TableModule("batches", "Batches", 75, requests, render, suite="survey")
