"""One look for all figures: a method keeps its colour, marker and line everywhere.

The colour says which method, marker and line style which variant of it, so that the figures can
be read without colour too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bpqp_bench.report.inputs import MethodName

# After Okabe and Ito, "Color Universal Design" (2008); yellow left out: too light for lines.
_COLOURS = {
    "bpqp": "#D55E00",
    "exact": "#000000",
    "cvxpy": "#0072B2",
    "qpth": "#009E73",
    "altdiff": "#CC79A7",
    "jaxopt": "#56B4E9",
    "dc3": "#E69F00",
}
_SPARE = ("#7F7F7F", "#8C564B", "#5E3C99", "#B2ABD2", "#4D4D4D")
_PAGE_WIDTH = 7.2  # inches
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 4)))

# Typed loosely: matplotlib spells out the literal names of all its settings.
RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "svg.hashsalt": "bpqp_bench",
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Style:
    """How one method is drawn."""

    colour: str
    marker: str
    line: Any


def styles(methods: Iterable[MethodName]) -> dict[str, Style]:
    """Return the style of every method by key, whichever other methods are drawn with it.

    Variants of one method are told apart in the order of their appearance.
    """
    found: dict[str, Style] = {}
    seen: dict[str, int] = {}
    spare: dict[str, str] = {}
    for method in methods:
        if method.key in found:
            continue
        base = method.key.partition("[")[0]
        # exact-solve is a method of its own and a variant of exact to the reader.
        group = next((known for known in _COLOURS if base.startswith(known)), base)
        if group not in _COLOURS and group not in spare:
            spare[group] = _SPARE[len(spare) % len(_SPARE)]
        index = seen.get(group, 0)
        seen[group] = index + 1
        found[method.key] = Style(
            colour=_COLOURS.get(group) or spare[group],
            marker=_MARKERS[index % len(_MARKERS)],
            line=_LINES[index % len(_LINES)],
        )
    return found


def new_figure(rows: int, columns: int, height: float = 2.3, **options: Any) -> tuple[Any, Any]:
    """Return a figure as wide as a page with its axes, shape (rows, columns).

    No pyplot: it would keep every figure alive and needs a global state.
    """
    figure = Figure(figsize=(_PAGE_WIDTH, height * rows + 1.0), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend_below(figure: Any, axes: Any) -> None:
    """Put one legend for all axes beneath the figure, where it covers no data."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=_columns(list(handles)),
            frameon=False,
        )


def _columns(labels: list[str]) -> int:
    # As many columns as fit the page; a legend fills column by column.
    for count in range(5, 1, -1):
        height = -(-len(labels) // count)
        columns = [labels[start : start + height] for start in range(0, len(labels), height)]
        inches = sum(0.6 + 0.054 * max(len(label) for label in column) for column in columns)
        if inches <= _PAGE_WIDTH:
            return count
    return 1


def draw_steps(axis: Any, factors: Any, share: Any, style: Style, label: str) -> None:
    """Draw one profile; it begins at τ = 1 with the share on which the method is the fastest."""
    x = np.concatenate([[1.0], factors])
    y = np.concatenate([[0.0], share])
    axis.step(
        x,
        y,
        where="post",
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markevery=[len(x) - 1] if len(factors) else [],
        markersize=4,
        linewidth=1.2,
        label=label,
    )


def close_profiles(axes: Any) -> None:
    """Draw every profile to the edge: it stays at its last value."""
    for column in axes.T:
        right = max(
            (line.get_xdata()[-1] for axis in column for line in axis.get_lines()), default=1.0
        )
        for axis in column:
            for line in axis.get_lines():
                x, y = line.get_xdata(), line.get_ydata()
                axis.plot(
                    [x[-1], right * 1.3],
                    [y[-1], y[-1]],
                    color=line.get_color(),
                    linestyle=line.get_linestyle(),
                    linewidth=line.get_linewidth(),
                )
            axis.set_xlim(0.9, right * 1.3)
