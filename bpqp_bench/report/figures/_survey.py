"""What the figures of the survey share: lines of times, filled where the gradient is right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bpqp_bench.report.figures._vega import Spec, facets, figure, judged_lines, log, method_scales
from bpqp_bench.report.inputs import Inputs

_NEEDED = ("label", "row", "column", "x", "ms", "gradient")


def lines(inputs: Inputs, records: Iterable[Mapping[str, Any]], across: str) -> Spec | None:
    """Return a grid of charts of ``ms`` over ``x``, one line a method; None if nothing has a time.

    Parameters
    ----------
    records
        Each with label, row, column, x, ms and gradient.
    across
        Title of the x axis.
    """
    shown = [
        {name: record[name] for name in _NEEDED} for record in records if _positive(record["ms"])
    ]
    if not shown:
        return None
    color, shape = method_scales(inputs, (record["label"] for record in shown))
    ticks = sorted({record["x"] for record in shown})
    axis = {"values": ticks, "format": "d", "labelOverlap": False}
    where = {
        "x": log("x", across, axis=axis, scale={"nice": False, "padding": 10}),
        "y": log("ms", "ms"),
        "color": color,
    }
    rows = list(dict.fromkeys(record["row"] for record in shown))
    columns = list(dict.fromkeys(record["column"] for record in shown))
    return figure(facets(judged_lines(where, shape), rows, columns, (210, 170)), shown)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
