"""Performance profile of table 8: real problems, right gradients alone."""

from __future__ import annotations

import pandas as pd

from bpqp_bench.report.figures._vega import figure
from bpqp_bench.report.figures.profiles import profile_layer, profile_records
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.real import judged


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw the share of all problems that each method has right within a factor of the fastest."""
    found = judged(inputs)
    if found.empty:
        return ()
    keys = ["family", "size", "seed"]
    every = pd.MultiIndex.from_frame(found[keys].drop_duplicates())
    good = found[found["verdict"].isin(["right", "solved"])]
    times = good.pivot_table(index=keys, columns="method", values="seconds").reindex(every)
    records = profile_records(inputs, times)
    layer = profile_layer(inputs, records, "share of problems, right")
    return (
        Drawing(
            "real-profiles",
            "Real problems: performance profile",
            f"Share of the {len(times)} real problems of table 8 that a method has right (or "
            "solved, where there is no gradient to judge) within τ times the fastest total time "
            "(protocol call).",
            spec=figure({"width": 560, "height": 260, "layer": layer}, records),
        ),
    )


FIGURE = FigureModule("real-profiles", 80, draw, suite="survey")
