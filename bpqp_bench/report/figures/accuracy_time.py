"""Accuracy against time: who is fast and right, who is only one of them."""

from __future__ import annotations

from typing import Any

from bpqp_bench.report.figures._style import Style, legend_below, new_figure, styles
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.accuracy import accuracy_families
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS, table_methods

__all__ = ["FIGURE", "largest_common_size"]

# Below this a distance is rounding; a gradient equal to the reference bit by bit goes there too.
_FLOOR = 1e-17


def largest_common_size(inputs: Inputs, family: str, methods: list[MethodName]) -> str | None:
    """Return the largest size at which as many methods answered as at any other, or None."""
    best: tuple[int, int] | None = None
    chosen: str | None = None
    for index, size in enumerate(inputs.cells.sizes(family)):
        count = sum(
            inputs.cells.outcome(family, size, method.key).state == "measured" for method in methods
        )
        if count and (best is None or (count, index) >= best):
            best, chosen = (count, index), size
    return chosen


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one panel per dataset, at the largest size that most methods finished."""
    labels = accuracy_families(inputs)
    shown = [family for family in FAMILIES if inputs.cells.sizes(family)]
    # One family with active inequalities beside the paper's, which has almost none.
    shown += [f for f in labels if f.startswith("qp-active") and inputs.cells.sizes(f)][:1]
    if not shown:
        return ()
    columns = min(len(shown), 2)
    figure, axes = new_figure(-(-len(shown) // columns), columns, height=2.6)
    look = styles([*inputs.names.methods(METHODS), *table_methods(inputs, "lp")])
    for axis, family in zip(axes.flat, shown, strict=False):
        methods = (
            table_methods(inputs, family) if family in FAMILIES else inputs.rows(METHODS, family)
        )
        size = largest_common_size(inputs, family, methods)
        if size is None:
            continue
        for method in methods:
            _point(axis, inputs, family, size, method, style=look.get(method.key))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.margins(0.12)
        axis.set_xlim(_FLOOR / 5, 5)
        axis.set_title(f"{labels[family]}, {size.replace('x', '×')}")
        axis.set_xlabel("1 − cos to the reference gradient")
        axis.set_ylabel("total, call (ms)")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    legend_below(figure, axes)
    return (
        Drawing(
            "accuracy-time",
            "Accuracy against time",
            "Median total time (protocol call) against the median distance of the gradient, at "
            "the largest size that most methods finished; whiskers hold the middle half of the "
            f"instances. Lower left is better; distances below {_FLOOR:g} are drawn there.",
            figure,
        ),
    )


def _point(
    axis: Any, inputs: Inputs, family: str, size: str, method: MethodName, *, style: Style | None
) -> None:
    key = (family, size, method.key)
    distance = inputs.cells.regular(*key, "accuracy.q.one_minus_cos")
    if distance.empty:
        return
    style = style or Style("#7F7F7F", "o", "-")
    x = distance.clip(lower=_FLOOR).quantile([0.25, 0.5, 0.75])
    y = (inputs.cells.regular(*key, "time.total.call") * 1e3).quantile([0.25, 0.5, 0.75])
    axis.errorbar(
        x[0.5],
        y[0.5],
        xerr=[[x[0.5] - x[0.25]], [x[0.75] - x[0.5]]],
        yerr=[[y[0.5] - y[0.25]], [y[0.75] - y[0.5]]],
        color=style.colour,
        marker=style.marker,
        linestyle="none",
        label=method.label,
        markersize=6,
        elinewidth=0.8,
    )


FIGURE = FigureModule("accuracy-time", 20, draw)
