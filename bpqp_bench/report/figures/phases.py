"""Phase breakdown: where the time of a call goes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpqp_bench.method.phase_clock import PHASES
from bpqp_bench.report.figures._style import legend_below, new_figure
from bpqp_bench.report.figures.accuracy_time import largest_common_size
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.efficiency import FAMILIES, table_methods
from bpqp_bench.report.text import significant

__all__ = ["FIGURE"]

_COLOURS = {
    "prepare": "#56B4E9",
    "setup": "#E69F00",
    "solve": "#009E73",
    "extract": "#CC79A7",
    "other": "#BBBBBB",
}


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw forward and backward pass of every method as stacked bars, one row per dataset."""
    families = [family for family in FAMILIES if inputs.cells.sizes(family)]
    if not families:
        return ()
    rows = {family: _shown(inputs, family) for family in families}
    tallest = max(len(methods) for methods, _ in rows.values())
    figure, axes = new_figure(
        len(families), 2, height=0.35 + 0.21 * max(tallest, 2), sharey="row", sharex=True
    )
    for row, family in enumerate(families):
        methods, size = rows[family]
        for column, side in enumerate(("forward", "backward")):
            axis = axes[row, column]
            _bars(axis, inputs, family, size, methods, side=side)
            axis.set_title(f"{FAMILIES[family]}, {size.replace('x', '×')}: {side}")
            axis.grid(visible=False)
            if row == len(families) - 1:
                axis.set_xlabel("share of the call (mean ms at the right)")
    legend_below(figure, axes)
    return (
        Drawing(
            "phases",
            "Phase breakdown",
            "Share of each phase in the mean time of a call, with that time in ms at the right, "
            "at the largest size that most methods finished. Hatched: the library's call cannot "
            "be split and is all counted as solve.",
            figure,
        ),
    )


def _shown(inputs: Inputs, family: str) -> tuple[list[MethodName], str]:
    methods = table_methods(inputs, family)
    size = largest_common_size(inputs, family, methods) or inputs.cells.sizes(family)[-1]
    measured = [
        method
        for method in methods
        if inputs.cells.outcome(family, size, method.key).state == "measured"
    ]
    return measured, size


def _bars(
    axis: Any, inputs: Inputs, family: str, size: str, methods: list[MethodName], *, side: str
) -> None:
    for place, method in enumerate(methods):
        rows = inputs.cells.measured(family, size, method.key)
        means = {
            phase: pd.to_numeric(rows[f"{side}.{phase}"]).mean() for phase in (*PHASES, "other")
        }
        call = sum(means.values())
        if not call > 0:
            continue
        left = 0.0
        for phase, mean in means.items():
            share = mean / call
            axis.barh(
                place,
                share,
                left=left,
                color=_COLOURS[phase],
                edgecolor="white",
                linewidth=0.4,
                height=0.75,
                hatch="" if inputs.cells.split(method.key) else "////",
                label=phase,
            )
            left += share
        axis.text(1.02, place, significant(call * 1e3), va="center", fontsize=7)
    axis.set_yticks(range(len(methods)), [method.label for method in methods])
    axis.set_xlim(0, 1.0)
    # Not invert_yaxis: the two axes of a row share theirs and would turn it twice.
    axis.set_ylim(len(methods) - 0.4, -0.6)


FIGURE = FigureModule("phases", 40, draw)
