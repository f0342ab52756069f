"""Performance profile of table 8: real problems, right gradients alone."""

from __future__ import annotations

import pandas as pd

from bpqp_bench.report.figures._style import (
    Style,
    close_profiles,
    draw_steps,
    legend_below,
    new_figure,
    styles,
)
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.real import judged, methods
from bpqp_bench.statistics import performance_profile


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw the share of all problems that each method has right within a factor of the fastest."""
    found = judged(inputs)
    if found.empty:
        return ()
    keys = ["family", "size", "seed"]
    every = pd.MultiIndex.from_frame(found[keys].drop_duplicates())
    good = found[found["verdict"].isin(["right", "solved"])]
    times = good.pivot_table(index=keys, columns="method", values="seconds").reindex(every)
    figure, axes = new_figure(1, 1, height=2.8)
    axis = axes[0, 0]
    look = styles(inputs.names.methods(methods()))
    for key, (factors, share) in performance_profile(times).items():
        style = look.get(key, Style("#7F7F7F", "o", "-"))
        draw_steps(axis, factors, share, style, inputs.cells.label(key) or key)
    axis.set_xscale("log")
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("τ, factor of the fastest time")
    axis.set_ylabel("share of problems, right")
    close_profiles(axes)
    legend_below(figure, axes)
    return (
        Drawing(
            "real-profiles",
            "Real problems: performance profile",
            f"Share of the {len(times)} real problems of table 8 that a method has right (or "
            "solved, where there is no gradient to judge) within τ times the fastest total time "
            "(protocol call).",
            figure=figure,
        ),
    )


FIGURE = FigureModule("real-profiles", 80, draw, suite="survey")
