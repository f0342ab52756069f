"""Time against size, log-log, by pass and protocol, with the published points beside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from bpqp_bench.report.figures._vega import (
    facets,
    figure,
    judged_lines,
    log,
    method_scales,
    only,
    size_axis,
)
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.published import published_time
from bpqp_bench.report.tables.efficiency import table_methods
from bpqp_bench.report.tables.large_scale import FAMILY
from bpqp_bench.report.tables.real import random_families
from bpqp_bench.results.cells import PASSES, PROTOCOLS, Protocol
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import summarize

_MEANING = {
    "call": "everything that a training step pays",
    "solver": "the solve phase alone, which the authors timed for BPQP",
}


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one figure per protocol for the sizes of table 1, and one for the large ones."""
    large = PROFILES[-1].large_sizes
    families = random_families(inputs)
    sizes = inputs.cells.sizes(*families)
    drawings: list[Drawing] = []
    if small := [size for size in sizes if size not in large]:
        drawings += [_draw(inputs, protocol, families, small, "times") for protocol in PROTOCOLS]
    if big := [size for size in inputs.cells.sizes(FAMILY) if size in large]:
        drawings.append(_draw(inputs, "call", {FAMILY: "QP"}, big, "large-scale"))
    return tuple(drawings)


def _draw(
    inputs: Inputs, protocol: Protocol, families: Mapping[str, str], sizes: list[str], name: str
) -> Drawing:
    records = list(_records(inputs, protocol, families, sizes))
    color, shape = method_scales(inputs, (record["label"] for record in records))
    where = {"x": size_axis(sizes), "y": log("median", "ms"), "color": color}
    band = {"y": log("q25", "ms"), "y2": {"field": "q75"}, "opacity": {"value": 0.12}}
    measured = [{"mark": "area", "encoding": where | band}, *judged_lines(where, shape)]
    layer = [
        *({"transform": only("measured")} | one for one in measured),
        {"transform": only("published"), "mark": {"type": "text", "fontSize": 12, "text": "+"},
         "encoding": where},
    ]  # fmt: skip
    wide = name == "large-scale"
    rows = list(families.values()) if wide else list(PASSES)
    columns = list(PASSES) if wide else list(families.values())
    for record in records:
        record["row"], record["column"] = (
            (record["dataset"], record["pass"]) if wide else (record["pass"], record["dataset"])
        )
    return Drawing(
        f"{name}-{protocol}",
        f"Time against size{' at large scale' if wide else ''}, protocol {protocol}",
        f"Median time per instance against size, protocol {protocol} ({_MEANING[protocol]}); "
        "bands hold the middle half of the instances. Filled marks: right gradients; hollow ones: "
        "not right, or not judged. +: published means, from another machine and with the authors' "
        "own clocks.",
        spec=figure(facets(layer, rows, columns, (210, 150)), records),
    )


def _records(
    inputs: Inputs, protocol: Protocol, families: Mapping[str, str], sizes: list[str]
) -> Iterator[dict[str, Any]]:
    for (family, dataset), which in itertools.product(families.items(), PASSES):
        for method in table_methods(inputs, family):
            # Without measured points beside it a published one has no line in the legend.
            if not any(inputs.cells.outcome(family, size, method.key).n for size in sizes):
                continue
            for size in sizes:
                record: dict[str, Any] = {
                    **{"dataset": dataset, "pass": which, "label": method.label},
                    "n": int(size.partition("x")[0]),
                }
                times = inputs.cells.times(family, size, method.key, which, protocol) * 1e3
                times = times[times > 0]
                if len(times):
                    found = summarize(times)
                    yield record | {
                        **{"kind": "measured", "median": found.median},
                        **{"q25": found.q25, "q75": found.q75},
                        "gradient": inputs.cells.gradient(family, size, method.key).mark,
                    }
                # The variant with the paper's settings has the method's published figures.
                twin = method.name.endswith("-paper")
                known = None if twin else published_time(method.name, family, which, size)
                if known is not None:
                    yield record | {"kind": "published", "median": known.mean * 1e3}


FIGURE = FigureModule("times", 10, draw)
