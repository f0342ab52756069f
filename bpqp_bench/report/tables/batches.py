"""Batches: time per instance against the number of instances in a batch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import LEGEND, Entry, Place, grid, time_cell, with_best
from bpqp_bench.results.cells import PASSES, Cells, Pass, sort_sizes
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

__all__ = ["TABLE"]

_CAPTION = (
    "Milliseconds per instance: median and middle half over batches, protocol call. A method that "
    "takes no batch is called once for each instance; a batch is right if every gradient in it is. "
    f"{LEGEND}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for nothing: a run with --batch, or of today's layers, measures it."""
    del profile
    return ()


def render(inputs: Inputs) -> Table:
    """Render one panel a pass, with a column for each batch, where several were measured."""
    by_batch = {
        cells.setting.batch: cells
        for cells in inputs.settings
        if (cells.setting.dtype, cells.setting.device) == ("float64", "cpu")
    }
    rows = _rows(by_batch) if len(by_batch) > 1 else []
    panels = [_panel(by_batch, which, rows) for which in reversed(PASSES)]
    records = [
        {"dataset": row.section, "method": row.method.key, "batch": batch, "pass": which}
        | _record(cells, row, which)
        for row in rows
        for batch, cells in sorted(by_batch.items())
        for which in PASSES
    ]
    return Table(
        TABLE.key, TABLE.title, _CAPTION, tuple(panels), pd.DataFrame.from_records(records)
    )


def _rows(by_batch: dict[int, Cells]) -> list[Place]:
    """Every family and size that was measured with batches, and its methods."""
    batched = [cells for batch, cells in by_batch.items() if batch > 1]
    rows: list[Place] = []
    for family in sorted({family for cells in batched for family in cells.families()}):
        for size in sort_sizes(size for cells in batched for size in cells.sizes(family)):
            keys = {
                key: cells.label(key) or key
                for cells in batched
                for key in cells.methods(family)
                if cells.outcome(family, size, key).state != "missing"
            }
            rows += [
                Place(family, MethodName(key, key, label), size, section=f"{family}, {size}")
                for key, label in sorted(keys.items())
            ]
    return rows


def _panel(by_batch: dict[int, Cells], which: Pass, rows: list[Place]) -> Panel:
    def entry(batch: int, cells: Cells) -> Entry:
        def cell(row: Place) -> Cell:
            return time_cell(cells, Place(row.family, row.method, row.size, which), "call")

        return Column(str(batch), "instances in a batch"), cell

    names: Entry = (
        Column("Method", numeric=False),
        lambda row: Cell(row.method.label, row.method.label.lower()),
    )
    entries = [names, *(entry(batch, cells) for batch, cells in sorted(by_batch.items()))]
    return with_best(grid(f"batches-{which}", which.capitalize(), rows, entries))


def _record(cells: Cells, row: Place, which: Pass) -> dict[str, Any]:
    key = (row.family, row.size, row.method.key)
    return {
        "family": row.family,
        "size": row.size,
        "outcome": cells.outcome(*key).state,
        "gradient": cells.gradient(*key).mark,
        "n": cells.outcome(*key).n,
        "median_s": cells.times(*key, which, "call").median(),
    }


TABLE = TableModule("batches", "Batches", 75, requests, render)
