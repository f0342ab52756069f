"""Time against size, log-log, by pass and protocol, with the published points beside."""

from __future__ import annotations

from typing import Any

from bpqp_bench.published import published_time
from bpqp_bench.report.cells import PROTOCOLS, Pass, Protocol
from bpqp_bench.report.figures._style import Style, legend_below, new_figure, size_axis, styles
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS, table_methods
from bpqp_bench.statistics import summarize

__all__ = ["FIGURE"]

_PASSES: tuple[Pass, ...] = ("forward", "backward", "total")
_MEANING = {
    "call": "everything that a training step pays",
    "solver": "the solve phase alone, which the authors timed for BPQP",
}


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one figure per protocol."""
    if not any(inputs.cells.sizes(family) for family in FAMILIES):
        return ()
    return tuple(_draw(inputs, protocol) for protocol in PROTOCOLS)


def _draw(inputs: Inputs, protocol: Protocol) -> Drawing:
    figure, axes = new_figure(len(_PASSES), len(FAMILIES), height=2.2, sharex=True, sharey="row")
    look = styles([*inputs.names.methods(METHODS), *table_methods(inputs, "lp")])
    sizes = inputs.cells.sizes(*FAMILIES)
    for row, which in enumerate(_PASSES):
        for column, (family, label) in enumerate(FAMILIES.items()):
            axis = axes[row, column]
            for method in table_methods(inputs, family):
                style = look.setdefault(method.key, Style("#7F7F7F", "o", "-"))
                _line(axis, inputs, family, method, which=which, protocol=protocol, style=style)
            axis.set_yscale("log")
            size_axis(axis, sizes)
            axis.tick_params("x", rotation=30)
            if row == 0:
                axis.set_title(label)
            if column == 0:
                axis.set_ylabel(f"{which} (ms)")
    axes[-1, 1].set_xlabel("size n×m")
    legend_below(figure, axes)
    return Drawing(
        f"times-{protocol}",
        f"Time against size, protocol {protocol}",
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
) -> None:
    points: list[tuple[float, float, float, float]] = []
    published: list[tuple[float, float]] = []
    for size in inputs.cells.sizes(*FAMILIES):
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
        axis.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
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
