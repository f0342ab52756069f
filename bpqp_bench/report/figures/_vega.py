"""One look for all figures: a method keeps its colour and shape, on paper and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpqp_bench.report.choices import looks
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.tables.efficiency import METHODS, table_methods

Spec = dict[str, Any]

_CONFIG: Spec = {
    "font": "DejaVu Sans, Liberation Sans, Arial, sans-serif",
    "background": "white",
    "view": {"stroke": "#BBBBBB"},
    "axis": {
        "gridColor": "#EEEEEE",
        "gridWidth": 0.6,
        "titleFontWeight": "normal",
        "labelFontSize": 9,
    },
    "header": {"labelFontSize": 11, "titleFontSize": 0},
    "legend": {"labelLimit": 260, "symbolLimit": 0, "labelFontSize": 9},
}


def figure(body: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> Spec:
    """Return a Vega-Lite chart of records."""
    return {"data": {"values": list(records)}, "config": _CONFIG, **body}


def facets(
    layer: Sequence[Spec], rows: Sequence[str], columns: Sequence[str], size: tuple[int, int]
) -> Spec:
    """Return a grid of layered charts by the fields ``row`` and ``column``; one row has no name."""
    across = {"field": "column", "sort": list(columns), "header": {"title": None}}
    down = {"field": "row", "sort": list(rows), "header": {"title": None}}
    return {
        "facet": {"column": across} | ({"row": down} if len(rows) > 1 else {}),
        "spec": {"width": size[0], "height": size[1], "layer": list(layer)},
    }


def panels(
    layer: Sequence[Spec],
    titles: Sequence[str],
    columns: int,
    size: tuple[int, int],
    independent: Sequence[str],
) -> Spec:
    """Return layered charts by the field ``panel``, so many beside each other."""
    return {
        "facet": {"field": "panel", "sort": list(titles), "header": {"title": None}},
        "columns": columns,
        "spec": {"width": size[0], "height": size[1], "layer": list(layer)},
        **own_scales(*independent),
    }


def own_scales(*axes: str) -> Spec:
    """Return what gives each chart of a grid its own scale on some axes, "x" or "y"."""
    return {"resolve": {"scale": dict.fromkeys(axes, "independent")}}


def method_scales(
    inputs: Inputs, labels: Iterable[str], methods: Iterable[MethodName] = ()
) -> tuple[Spec, Spec]:
    """Return the encodings of colour and shape by the field ``label``, with one legend for both.

    ``methods`` are those that may be drawn without having been measured under their own key.
    """
    drawn = list(methods)
    known = [*inputs.names.methods(METHODS), *table_methods(inputs, "lp"), *drawn]
    keys = [*(name.key for name in known), *inputs.cells.methods(*inputs.cells.families())]
    found = looks(keys)
    names = {inputs.cells.label(key) or key: look for key, look in found.items()}
    names |= {method.label: found[method.key] for method in drawn}
    wanted = set(labels)
    shown = [label for label in names if label in wanted]
    legend = {"title": None, "orient": "bottom", "columns": 4, "symbolOpacity": 1}

    def scale(which: int) -> Spec:
        return {
            "field": "label",
            "type": "nominal",
            "scale": {"domain": shown, "range": [names[label][which] for label in shown]},
            "legend": legend,
        }

    return scale(0), scale(1)


def log(field: str, title: str | None, scale: Spec | None = None, axis: Spec | None = None) -> Spec:
    """Return a quantitative encoding on a logarithmic axis."""
    return {
        **{"field": field, "type": "quantitative", "title": title},
        "scale": {"type": "log"} | (scale or {}),
        "axis": {"tickCount": 5} | (axis or {}),
    }


def size_axis(sizes: Sequence[str]) -> Spec:
    """Return the encoding of the field ``n`` with the sizes "n×m" as its labels."""
    names = {size.partition("x")[0]: size.replace("x", "×") for size in sizes}
    axis = {
        "values": [int(n) for n in names],
        "labelExpr": f"({names})[datum.value]",
        "labelAngle": -30,
        "labelOverlap": False,
    }
    return log("n", None, axis=axis, scale={"nice": False, "padding": 10})


def judged_lines(where: Spec, shape: Spec) -> list[Spec]:
    """Return a line a method with its points, filled where the field ``gradient`` is right."""
    filled = {"condition": {"test": "datum.gradient == 'right'", "value": 0.9}, "value": 0}
    points = where | {"shape": shape, "fill": where["color"], "fillOpacity": filled}
    mark = {"type": "point", "size": 34, "strokeWidth": 1.2}
    return [
        {"mark": {"type": "line", "strokeWidth": 1.1}, "encoding": where},
        {"mark": mark, "encoding": points},
    ]


def only(kind: str) -> list[Spec]:
    """Return the transform that keeps the records of one kind."""
    return [{"filter": f"datum.kind == '{kind}'"}]
