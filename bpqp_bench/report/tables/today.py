"""Table 7: the layers of today, in every setting that the run measured."""

from __future__ import annotations

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import (
    LEGEND,
    Entry,
    Place,
    grid,
    number_cell,
    time_cell,
    with_best,
)
from bpqp_bench.report.tables.accuracy import accuracy_families
from bpqp_bench.report.tables.efficiency import METHODS
from bpqp_bench.report.text import memory, significant
from bpqp_bench.results.cells import PASSES, Cells, Pass
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

__all__ = ["TABLE"]

_CAPTION = (
    "Milliseconds per instance: median and middle half, protocol call. right: gradients that are "
    "right, of those that can be judged. build: seconds, once for each family and size "
    "(compilation, canonicalization). memory: largest peak of the worker process. "
    f"{LEGEND}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for nothing: `bpqp-bench run --group modern` measures it."""
    del profile
    return ()


def render(inputs: Inputs) -> Table:
    """Render a panel for each setting in which layers beyond the paper's were measured."""
    paper = {inputs.names.method(name).key for name in (*METHODS, *inputs.requested)}
    labels = accuracy_families(inputs)
    panels: list[Panel] = []
    records: list[dict[str, object]] = []
    for cells in inputs.settings:
        there = cells.keys()
        modern = {(family, size) for family, size, key in there if key not in paper}
        rows = [
            Place(
                family,
                MethodName(key, key, cells.label(key) or key),
                size,
                section=f"{labels.get(family, family)}, {size}",
            )
            for family in cells.families()
            for size in cells.sizes(family)
            for *place, key in there
            if tuple(place) == (family, size) and (family, size) in modern
        ]
        if rows:
            panels.append(_panel(cells, rows))
            records += [_record(cells, row) for row in rows]
    if not panels:
        panels = [Panel("table7-none", "Not run", (Column("", numeric=False),), ())]
    return Table(
        TABLE.key, TABLE.title, _CAPTION, tuple(panels), pd.DataFrame.from_records(records)
    )


def _panel(cells: Cells, rows: list[Place]) -> Panel:
    def timed(which: Pass) -> Entry:
        def cell(row: Place) -> Cell:
            return time_cell(cells, Place(row.family, row.method, row.size, which), "call")

        return Column(which, "ms"), cell

    def right(row: Place) -> Cell:
        found = cells.gradient(row.family, row.size, row.method.key)
        return Cell(f"{found.right}/{found.judged}" if found.judged else found.mark)

    def value(row: Place, column: str) -> float:
        found = cells.values(row.family, row.size, row.method.key, column)
        return float(found.max() if column == "peak_memory" else found.median())

    setting = cells.setting
    entries: list[Entry] = [
        (
            Column("Method", numeric=False),
            lambda row: Cell(row.method.label, row.method.label.lower()),
        ),
        *(timed(which) for which in PASSES),
        (Column("right"), right),
        (Column("build (s)"), lambda row: number_cell(value(row, "build_s"), significant)),
        (Column("memory"), lambda row: number_cell(value(row, "peak_memory"), memory)),
    ]
    key = f"table7-{setting.batch}-{setting.dtype}-{setting.device}-{setting.threads}"
    title = f"Batch {setting.batch}, {setting.dtype}, {setting.device}"
    return with_best(grid(key, title, rows, entries))


def _record(cells: Cells, row: Place) -> dict[str, object]:
    key = (row.family, row.size, row.method.key)
    found = cells.gradient(*key)
    return {
        **{"family": row.family, "size": row.size, **cells.setting._asdict()},
        **{"method": row.method.key, "label": row.method.label},
        **{"outcome": cells.outcome(*key).state, "n": cells.outcome(*key).n},
        **{f"{which}_median_s": cells.times(*key, which, "call").median() for which in PASSES},
        **{"gradient": found.mark, "one_minus_cos_worst": found.worst_cosine},
        "build_s": cells.values(*key, "build_s").median(),
        "peak_memory": cells.values(*key, "peak_memory").max(),
    }


TABLE = TableModule("table7", "Table 7: Layers of today", 70, requests, render)
