"""Figure of table 7: total time against size, by class of problems and batch."""

from __future__ import annotations

from bpqp_bench.report.figures._survey import lines
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.layers_today import FAMILIES, records


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw the classes across and the batches down."""
    shown = [
        row
        | {
            **{"column": FAMILIES[row["family"]], "row": f"batch of {row['batch']}"},
            **{"x": int(row["size"].partition("x")[0]), "ms": 1e3 * row["total_s"]},
        }
        for row in records(inputs)
    ]
    spec = lines(inputs, shown, "variables")
    if spec is None:
        return ()
    return (
        Drawing(
            "layers-today",
            "Layers of today: time against size",
            "Median total time for one instance (protocol call) against the number of variables, "
            "by class of problems and batch. Filled marks: right gradients; hollow ones: not "
            "right, or not judged.",
            spec=spec,
        ),
    )


FIGURE = FigureModule("layers-today", 12, draw, suite="survey")
