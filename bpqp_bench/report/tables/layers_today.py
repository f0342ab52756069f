"""Table 7: the layers that are maintained today, beside ours and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import (
    LEGEND,
    MARKS,
    Entry,
    Place,
    grid,
    is_short,
    method_cell,
    method_entry,
    number_cell,
    right_cell,
    time_cell,
    with_best,
)
from bpqp_bench.report.tables._survey import (
    OURS,
    QP,
    ask,
    at_best,
    batch_entry,
    by_batch,
    declared_entry,
    modern,
    record,
    rows,
    scope,
)
from bpqp_bench.report.text import memory, significant
from bpqp_bench.results.cells import PASSES, Cells, Pass
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.statistics import largest

FAMILIES = {QP: "QP", "lp": "LP", "socp": "SOCP"}

_CAPTION = (
    "Layers that are maintained today, each at its best and, where they differ, at its defaults, "
    "beside BPQP and one configuration of each library of the paper's comparison. Milliseconds "
    "for one instance, forward and backward pass (protocol call), median over calls; a batch is "
    "timed as a whole and divided by its size. QP: half of the inequalities bind. batch: “one "
    "call” takes a batch as one, “loop” is called once for each problem. build: what is done once "
    "for a family and size (compilation, canonicalization), in no time of a pass; the longest of "
    "the method, as is the peak memory, which is the worker's with its libraries. devices: where "
    f"the method computes; measured here is the CPU. {LEGEND}"
)


def methods() -> tuple[str, ...]:
    """Names of the rows: every configuration of today's layers, and the others at their best."""
    return tuple(dict.fromkeys((*OURS, *modern(), *at_best())))


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for QP, LP and SOCP at every size, one problem a call and a batch a call.

    The shortest profile asks for all configurations on one QP a call alone, and for one of each
    library elsewhere; for no batches of LPs and SOCPs: JAX compiles anew for each.
    """
    limits = scope(profile)
    families = tuple(FAMILIES)
    if is_short(profile):
        return (
            ask(profile, methods(), (QP,), limits.sizes),
            ask(profile, at_best(), families, limits.sizes),
            ask(profile, at_best(), (QP,), limits.together_sizes, limits.together),
        )
    return (
        ask(profile, methods(), families, limits.sizes),
        ask(profile, methods(), families, limits.together_sizes, limits.together),
    )


def together(inputs: Inputs) -> dict[int, Cells]:
    """Return the cells of one problem a call, and of the batch that table 7 has beside it."""
    every = by_batch(inputs)
    wanted = (1, scope(inputs.profile).together if inputs.profile else max(every, default=1))
    return {batch: cells for batch, cells in every.items() if batch in wanted}


def render(inputs: Inputs) -> Table:
    """Render the totals of each class of problems, then both passes of every cell."""
    panels: list[Panel] = []
    for family, label, cells, names in _classes(inputs):
        panels.append(_totals(inputs, cells, family, label, names))
        panels.append(_passes(cells, family, label, names))
    panels.sort(key=lambda panel: panel.long)
    return TABLE.filled(_CAPTION, panels, records(inputs))


def records(inputs: Inputs) -> list[dict[str, Any]]:
    """Return a record for each cell of the table, see `_survey.record`."""
    return [
        record(cells, batch, Place(family, name, size, section=label))
        for family, label, cells, names in _classes(inputs)
        for batch, one in cells.items()
        for size in one.sizes(family)
        for name in names
    ]


def _classes(
    inputs: Inputs,
) -> Iterator[tuple[str, str, dict[int, Cells], list[MethodName]]]:
    """Family, label, cells by batch and methods of each class that a layer of today solved."""
    today = {name.key for name in inputs.names.methods(modern())}
    for family, label in FAMILIES.items():
        found = {batch: one for batch, one in together(inputs).items() if one.sizes(family)}
        names = rows(inputs, methods(), found.values(), family)
        if any(name.key in today for name in names):
            yield family, label, found, names


def _totals(
    inputs: Inputs, cells: dict[int, Cells], family: str, label: str, names: list[MethodName]
) -> Panel:
    def entry(batch: int, size: str) -> Entry:
        def cell(place: Place) -> Cell:
            return time_cell(cells[batch], Place(family, place.method, size), "call")

        return Column(size, f"Total, batch of {batch} (ms)"), cell

    def most(column: str, show: Callable[[float], str]) -> Callable[[Place], Cell]:
        # Over all classes: what was compiled at one's shapes is not compiled again for another.
        def cell(place: Place) -> Cell:
            found = [
                one.numbers(other, size, place.method.key, column)
                for one in together(inputs).values()
                for other in FAMILIES
                for size in one.sizes(other)
            ]
            return number_cell(largest(np.concatenate(found)), show)

        return cell

    first = next(iter(cells.values()))
    return with_best(
        grid(
            f"table7-{family}",
            label,
            [Place(family, name) for name in names],
            [
                method_entry(first),
                *(entry(batch, size) for batch, one in cells.items() for size in one.sizes(family)),
                batch_entry(inputs),
                declared_entry(inputs, "devices", lambda cls: ", ".join(sorted(cls.devices))),
                (Column("build (s)"), most("build_s", significant)),
                (Column("memory"), most("peak_memory", memory)),
            ],
        )
    )


def _passes(cells: dict[int, Cells], family: str, label: str, names: list[MethodName]) -> Panel:
    where = {
        f"{size}, batch of {batch}": (batch, size)
        for batch, one in cells.items()
        for size in one.sizes(family)
    }
    places = [
        Place(family, name, size, section=section)
        for section, (_, size) in where.items()
        for name in names
    ]

    def at(place: Place) -> Cells:
        return cells[where[place.section][0]]

    def entry(which: Pass) -> Entry:
        def cell(place: Place) -> Cell:
            return time_cell(at(place), Place(family, place.method, place.size, which), "call")

        return Column(which, "Time (ms)"), cell

    def right(place: Place) -> Cell:
        found = at(place).gradient(*place.key)
        return right_cell(found, MARKS[found.mark].strip())

    def number(column: str, show: Callable[[float], str]) -> Callable[[Place], Cell]:
        return lambda place: number_cell(largest(at(place).numbers(*place.key, column)), show)

    return with_best(
        grid(
            f"table7-passes-{family}",
            f"{label}: both passes",
            places,
            [
                (
                    Column("Method", numeric=False),
                    lambda place: method_cell(at(place), place.method),
                ),
                *(entry(which) for which in PASSES),
                (Column("right"), right),
                (Column("build (s)"), number("build_s", significant)),
                (Column("memory"), number("peak_memory", memory)),
            ],
            caption="right: calls whose gradients are right, of those that can be judged.",
            long=True,
        )
    )


TABLE = TableModule("table7", "Table 7: Layers of today", 70, requests, render, suite="survey")
