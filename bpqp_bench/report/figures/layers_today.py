"""Figure of table 7: total time against size, by class of problems and batch."""

from __future__ import annotations

from typing import Any

from bpqp_bench.report.figures._survey import lines
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.layers_today import TABLE


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw the classes across and the batches down."""
    table = TABLE.render(inputs)
    labels = {panel.key.removeprefix("table7-"): panel.title for panel in table.panels}
    rows = [{str(k): v for k, v in row.items()} for row in table.tidy.to_dict("records")]
    records: list[dict[str, Any]] = [
        row
        | {
            **{"column": labels[row["family"]], "row": f"batch of {row['batch']}"},
            **{"x": int(row["size"].partition("x")[0]), "ms": 1e3 * row["total_s"]},
        }
        for row in rows
    ]
    spec = lines(inputs, records, "variables")
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
