"""Phase breakdown: where the time of a call goes."""

from __future__ import annotations

from typing import Any

from bpqp_bench.method.phase_clock import PHASES
from bpqp_bench.report.figures._vega import facets, figure, only, own_scales
from bpqp_bench.report.figures.accuracy_time import largest_common_size
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.efficiency import table_methods
from bpqp_bench.report.tables.real import random_families
from bpqp_bench.report.text import significant

_COLOURS = {
    "prepare": "#56B4E9",
    "setup": "#E69F00",
    "solve": "#009E73",
    "extract": "#CC79A7",
    "other": "#BBBBBB",
}


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw forward and backward pass of every method as stacked bars, one row per dataset."""
    records: list[dict[str, Any]] = []
    for family, label in random_families(inputs).items():
        methods = table_methods(inputs, family)
        size = largest_common_size(inputs, family, methods)
        for method in methods if size else ():
            for side in ("forward", "backward"):
                where = {"row": f"{label}, {str(size).replace('x', '×')}", "column": side}
                found = _phases(inputs, (family, str(size), method.key), side)
                records += [where | {"label": method.label} | record for record in found]
    if not records:
        return ()
    y = {"field": "label", "type": "nominal", "sort": None, "title": None}
    color = {
        "field": "phase",
        "type": "nominal",
        "scale": {"domain": list(_COLOURS), "range": list(_COLOURS.values())},
        "legend": {"title": None, "orient": "bottom"},
    }
    share = {
        **{"field": "share", "type": "quantitative", "title": "share of the call"},
        **{"scale": {"domain": [0, 1.15]}, "axis": {"format": "%", "values": [0, 0.5, 1]}},
    }
    pale = {"condition": {"test": "datum.split", "value": 1}, "value": 0.45}
    layer = [
        {
            "transform": only("phase"),
            "mark": "bar",
            "encoding": {"x": share, "y": y, "color": color, "opacity": pale,
                         "order": {"field": "order"}},
        },
        {
            "transform": only("call"),
            "mark": {"type": "text", "align": "left", "fontSize": 9, "dx": 3},
            "encoding": {"x": share | {"stack": None}, "y": y, "text": {"field": "text"}},
        },
    ]  # fmt: skip
    rows = list(dict.fromkeys(record["row"] for record in records))
    body = facets(layer, rows, ["forward", "backward"], (260, 0))
    body["spec"]["height"] = {"step": 13}
    body |= own_scales("y")
    return (
        Drawing(
            "phases",
            "Phase breakdown",
            "Share of each phase in the mean time of a call, with that time in ms at the right, "
            "at the largest size that most methods finished. Pale: the library's call cannot "
            "be split and is all counted as solve.",
            spec=figure(body, records),
        ),
    )


def _phases(inputs: Inputs, key: tuple[str, str, str], side: str) -> list[dict[str, Any]]:
    means = {
        phase: float(inputs.cells.values(*key, f"{side}.{phase}").mean())
        for phase in (*PHASES, "other")
    }
    call = sum(means.values())
    if not call > 0:
        return []
    split = inputs.cells.split(key[2])
    records: list[dict[str, Any]] = [
        {"kind": "phase", "phase": phase, "share": mean / call, "order": place, "split": split}
        for place, (phase, mean) in enumerate(means.items())
    ]
    return [*records, {"kind": "call", "share": 1.0, "text": significant(call * 1e3)}]


FIGURE = FigureModule("phases", 40, draw)
