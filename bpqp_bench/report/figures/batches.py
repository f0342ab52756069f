"""Time of an instance against the batch, log-log, by pass and size."""

from __future__ import annotations

import itertools
from typing import Any

from bpqp_bench.report.figures._survey import lines
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables._common import Place
from bpqp_bench.report.tables._survey import at_best, by_batch, record, rows
from bpqp_bench.report.tables.batches import batched_problems
from bpqp_bench.results.cells import PASSES


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw the passes across and the sizes down."""
    every = by_batch(inputs)
    records: list[dict[str, Any]] = []
    for family, size in batched_problems(inputs):
        cells = {batch: one for batch, one in every.items() if size in one.sizes(family)}
        methods = rows(inputs, at_best(), cells.values(), family)
        for method, batch in itertools.product(methods, cells):
            found = record(cells, batch, Place(family, method, size))
            panel = {"row": f"{family}, {size.replace('x', '×')}", "x": batch}
            records += [
                found | panel | {"column": which, "ms": 1e3 * found[f"{which}_s"]}
                for which in PASSES
            ]
    spec = lines(inputs, records, "problems a call")
    if spec is None:
        return ()
    return (
        Drawing(
            "batches",
            "Time against batch",
            "Median time for one instance (protocol call) against the number of problems a call, "
            "by size and pass. A level line gains nothing from batches. Filled marks: right "
            "gradients; hollow ones: not right, or not judged.",
            spec=spec,
        ),
    )


FIGURE = FigureModule("batches", 15, draw, suite="survey")
