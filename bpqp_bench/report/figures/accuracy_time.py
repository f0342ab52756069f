"""Accuracy against time: who is fast and right, who is only one of them."""

from __future__ import annotations

from typing import Any

from bpqp_bench.report.figures._vega import Spec, figure, log, method_scales, panels
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.accuracy import accuracy_families
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS, table_methods
from bpqp_bench.report.tables.real import random_families

# Below this a distance is rounding; a gradient equal to the reference bit by bit goes there too.
_FLOOR = 1e-17


def largest_common_size(inputs: Inputs, family: str, methods: list[MethodName]) -> str | None:
    """Return the largest size at which as many methods answered as at any other, or None."""
    counts = {
        size: sum(
            inputs.cells.outcome(family, size, one.key).state == "measured" for one in methods
        )
        for size in inputs.cells.sizes(family)
    }
    most = max(counts.values(), default=0)
    return [size for size, count in counts.items() if count == most][-1] if most else None


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one panel per dataset, at the largest size that most methods finished."""
    labels = accuracy_families(inputs)
    shown = [family for family in random_families(inputs) if inputs.cells.sizes(family)]
    # One family with active inequalities beside the paper's, which has almost none.
    if not any(family.startswith("qp-active") for family in shown):
        shown += [f for f in labels if f.startswith("qp-active") and inputs.cells.sizes(f)][:1]
    records: list[dict[str, Any]] = []
    for family in shown:
        named = family in FAMILIES
        methods = table_methods(inputs, family) if named else inputs.rows(METHODS, family)
        size = largest_common_size(inputs, family, methods)
        if size is not None:
            title = f"{labels[family]}, {size.replace('x', '×')}"
            found = (_record(inputs, family, size, method) for method in methods)
            records += [record | {"panel": title} for record in found if record]
    if not records:
        return ()
    color, shape = method_scales(inputs, (record["label"] for record in records))
    floor = {"domainMin": _FLOOR}
    x = log("x", "1 − cos to the reference gradient", scale=floor,
            axis={"format": ".0e", "labelOverlap": True})  # fmt: skip
    y = log("y", "total, call (ms)")
    where = {"x": x, "y": y, "color": color}
    layer: list[Spec] = [
        {"mark": "rule", "encoding": where | {"x": x | {"field": "x25"}, "x2": {"field": "x75"}}},
        {"mark": "rule", "encoding": where | {"y": y | {"field": "y25"}, "y2": {"field": "y75"}}},
        {
            "mark": {"type": "point", "size": 60, "filled": True, "opacity": 1},
            "encoding": where | {"shape": shape},
        },
    ]
    titles = list(dict.fromkeys(record["panel"] for record in records))
    body = panels(layer, titles, 2, (330, 190), ("y",))
    return (
        Drawing(
            "accuracy-time",
            "Accuracy against time",
            "Median total time (protocol call) against the median distance of the gradient, at "
            "the largest size that most methods finished; whiskers hold the middle half of the "
            f"instances. Lower left is better; distances below {_FLOOR:g} are drawn there.",
            spec=figure(body, records),
        ),
    )


def _record(inputs: Inputs, family: str, size: str, method: MethodName) -> dict[str, Any]:
    key = (family, size, method.key)
    distance = inputs.cells.regular(*key, "accuracy.q.one_minus_cos")
    if distance.empty:
        return {}
    x = distance.clip(lower=_FLOOR).quantile([0.25, 0.5, 0.75])
    y = (inputs.cells.regular(*key, "time.total.call") * 1e3).quantile([0.25, 0.5, 0.75])
    names = ("x25", "x", "x75", "y25", "y", "y75")
    return {"label": method.label, **dict(zip(names, [*x, *y], strict=True))}


FIGURE = FigureModule("accuracy-time", 20, draw)
