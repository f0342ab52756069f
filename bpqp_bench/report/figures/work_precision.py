"""Work–precision: total time against the gradient's error as the tolerance goes down.

A method measured at one tolerance is a point, and the choice of the point decides who wins. The
curves need a run with several: ``bpqp-bench run --tolerance 1e-3 --tolerance 1e-6 …``.
"""

from __future__ import annotations

from collections import defaultdict

from bpqp_bench.report.figures._style import legend_below, new_figure, styles
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule

__all__ = ["FIGURE", "Curve", "curves"]

_FLOOR = 1e-16  # below this an error is rounding
_AT_LEAST = 3  # tolerances; fewer make no curve

# Median error and median time in seconds, from the loosest tolerance to the tightest.
Curve = list[tuple[float, float]]


def curves(inputs: Inputs, family: str, size: str) -> dict[MethodName, Curve]:
    """Return the curve of every method that was measured at three tolerances or more."""
    found: dict[MethodName, dict[float, tuple[float, float]]] = defaultdict(dict)
    for key in inputs.cells.methods(family):
        split = inputs.names.at_tolerance(key)
        error = inputs.cells.regular(family, size, key, "accuracy.q.rel_l2")
        if split is not None and not error.empty:
            time = inputs.cells.regular(family, size, key, "time.total.call")
            found[split[0]][split[1]] = (float(error.median()), float(time.median()))
    return {
        method: [points[tolerance] for tolerance in sorted(points, reverse=True)]
        for method, points in found.items()
        if len(points) >= _AT_LEAST
    }


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw a panel for each family and size that has a curve."""
    panels = {
        (family, size): found
        for family in inputs.cells.families()
        for size in inputs.cells.sizes(family)
        if (found := curves(inputs, family, size))
    }
    if not panels:
        return ()
    columns = min(len(panels), 2)
    figure, axes = new_figure(-(-len(panels) // columns), columns, height=2.6)
    look = styles(dict.fromkeys(method for found in panels.values() for method in found))
    for axis, ((family, size), found) in zip(axes.flat, panels.items(), strict=False):
        for method, curve in found.items():
            style = look[method.key]
            axis.plot(
                [max(error, _FLOOR) for error, _ in curve],
                [1e3 * time for _, time in curve],
                color=style.colour,
                marker=style.marker,
                linestyle=style.line,
                label=method.label,
                markersize=4,
                linewidth=1.0,
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.invert_xaxis()
        axis.set_title(f"{family}, {size.replace('x', '×')}")
        axis.set_xlabel("relative error of the gradient")
        axis.set_ylabel("total, call (ms)")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    legend_below(figure, axes)
    return (
        Drawing(
            "work-precision",
            "Work and precision",
            "Median total time (protocol call) against the median relative error of the gradient, "
            "one point a tolerance, joined from the loosest to the tightest. Lower right is best; "
            "a curve that goes up and not right buys nothing with its time.",
            figure=figure,
        ),
    )


FIGURE = FigureModule("work-precision", 25, draw)
