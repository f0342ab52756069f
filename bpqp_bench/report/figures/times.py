"""Time against size, log-log, by pass and protocol, with the published points beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bpqp_bench.report.figures._style import Style, legend_below, new_figure, size_axis, styles
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.published import published_time
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS, table_methods
from bpqp_bench.report.tables.large_scale import FAMILY
from bpqp_bench.results.cells import PROTOCOLS, Pass, Protocol
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import summarize

__all__ = ["FIGURE"]

_PASSES: tuple[Pass, ...] = ("forward", "backward", "total")
_MEANING = {
    "call": "everything that a training step pays",
    "solver": "the solve phase alone, which the authors timed for BPQP",
}


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one figure per protocol for the sizes of table 1, and one for the large ones."""
    large = PROFILES[-1].large_sizes
    sizes = inputs.cells.sizes(*FAMILIES)
    drawings: list[Drawing] = []
    if small := [size for size in sizes if size not in large]:
        drawings += [_draw(inputs, protocol, FAMILIES, small) for protocol in PROTOCOLS]
    if big := [size for size in inputs.cells.sizes(FAMILY) if size in large]:
        drawings.append(_draw(inputs, "call", {FAMILY: "QP"}, big))
    return tuple(drawings)


def _draw(
    inputs: Inputs, protocol: Protocol, families: Mapping[str, str], sizes: list[str]
) -> Drawing:
    scale = "large-scale" if sizes[0] in PROFILES[-1].large_sizes else "times"
    wide = len(families) == 1
    shape = (1, len(_PASSES)) if wide else (len(_PASSES), len(families))
    sharing: dict[str, Any] = {"sharex": True, "sharey": True if wide else "row"}
    figure, axes = new_figure(*shape, height=2.4 if wide else 2.2, **sharing)
    grid = axes.T if wide else axes
    look = styles([*inputs.names.methods(METHODS), *table_methods(inputs, "lp")])
    for row, which in enumerate(_PASSES):
        for column, (family, label) in enumerate(families.items()):
            axis = grid[row, column]
            for method in table_methods(inputs, family):
                if not any(inputs.cells.outcome(family, s, method.key).n for s in sizes):
                    continue
                style = look.setdefault(method.key, Style("#7F7F7F", "o", "-"))
                _line(
                    axis,
                    inputs,
                    family,
                    method,
                    which=which,
                    protocol=protocol,
                    style=style,
                    sizes=sizes,
                )
            axis.set_yscale("log")
            size_axis(axis, sizes)
            axis.tick_params("x", rotation=30)
            if row == 0 or wide:
                axis.set_title(label)
            if column == 0:
                axis.set_ylabel(f"{which} (ms)")
    axes[-1, 1].set_xlabel("size n×m")
    legend_below(figure, axes)
    return Drawing(
        f"{scale}-{protocol}",
        f"Time against size{' at large scale' if wide else ''}, protocol {protocol}",
        f"Median time per instance against size, protocol {protocol} ({_MEANING[protocol]}); "
        "bands hold the middle half of the instances. Hollow marks: published means, from another "
        "machine and with the authors' own clocks.",
        figure,
    )


def _line(
    axis: Any,
    inputs: Inputs,
    family: str,
    method: MethodName,
    *,
    which: Pass,
    protocol: Protocol,
    style: Style,
    sizes: list[str],
) -> None:
    points: list[tuple[float, float, float, float]] = []
    published: list[tuple[float, float]] = []
    for size in sizes:
        n = float(size.partition("x")[0])
        times = inputs.cells.times(family, size, method.key, which, protocol) * 1e3
        times = times[times > 0]
        if len(times):
            found = summarize(times)
            points.append((n, found.median, found.q25, found.q75))
        # The variant with the paper's settings has the same published figures as the method.
        twin = method.name.endswith("-paper")
        known = None if twin else published_time(method.name, family, which, size)
        if known is not None:
            published.append((n, known.mean * 1e3))
    if points:
        x, median, low, high = zip(*points, strict=True)
        axis.plot(
            x,
            median,
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            label=method.label,
            markersize=4,
            linewidth=1.2,
        )
        axis.fill_between(x, low, high, color=style.colour, alpha=0.12, linewidth=0)
    # Without measured points beside it a published one has no line in the legend.
    if points and published:
        x, mean = zip(*published, strict=True)
        axis.plot(
            x,
            mean,
            color=style.colour,
            marker=style.marker,
            linestyle="none",
            markerfacecolor="none",
            markersize=6,
            markeredgewidth=1.0,
        )


FIGURE = FigureModule("times", 10, draw)
