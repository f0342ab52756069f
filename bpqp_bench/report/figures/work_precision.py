"""Work–precision: total time against the gradient's error as the tolerance goes down.

A method measured at one tolerance is a point, and the choice of the point decides who wins. Any run
with several tolerances draws the curves: ``bpqp-bench run --tolerance 1e-3 --tolerance 1e-6 …``.
"""

from __future__ import annotations

from typing import Any

from bpqp_bench.report.figures._vega import figure, log, method_scales, panels
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.work_precision import points

_FLOOR = 1e-16  # below this an error is rounding


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw a panel for each family and size that has a curve."""
    curves = {
        f"{family}, {size.replace('x', '×')}": points(inputs, family, size)
        for family in inputs.cells.families()
        for size in inputs.cells.sizes(family)
    }
    records: list[dict[str, Any]] = [
        {
            **{"panel": panel, "label": method.label},
            **{"tolerance": tolerance, "error": max(error, _FLOOR), "ms": 1e3 * time},
        }
        for panel, found in curves.items()
        for method, curve in found.items()
        for tolerance, (error, time) in curve.items()
    ]
    if not records:
        return ()
    methods = [method for found in curves.values() for method in found]
    color, shape = method_scales(inputs, (method.label for method in methods), methods)
    axis = {"format": ".0e", "labelOverlap": True}
    where = {
        "x": log("error", "relative error of the gradient", axis=axis, scale={"reverse": True}),
        "y": log("ms", "total, call (ms)"),
        "color": color,
        "order": {"field": "tolerance", "sort": "descending"},
    }
    layer = [
        {"mark": {"type": "line", "strokeWidth": 1.1}, "encoding": where},
        {
            "mark": {"type": "point", "size": 40, "filled": True, "opacity": 0.9},
            "encoding": where | {"shape": shape},
        },
    ]
    body = panels(layer, list(curves), 2, (330, 220), ("x", "y"))
    return (
        Drawing(
            "work-precision",
            "Work and precision",
            "Median total time (protocol call) against the median relative error of the gradient, "
            "one point a tolerance, joined from the loosest to the tightest. Lower right is best; "
            "a curve that goes up and not right buys nothing with its time.",
            spec=figure(body, records),
        ),
    )


FIGURE = FigureModule("work-precision", 25, draw, suite="survey")
