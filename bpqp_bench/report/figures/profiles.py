"""Performance profiles after Dolan and Moré, of all answers and of accurate ones alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bpqp_bench.report.figures._style import Style, legend_below, new_figure, styles
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.efficiency import FAMILIES, METHODS, table_methods
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import performance_profile

__all__ = ["ACCURATE", "FIGURE", "close_profiles", "draw_steps"]

# A gradient counts as accurate within this 1 − cos: an angle of about 0.08 degrees.
ACCURATE = 1e-6


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one column per dataset; the upper row counts any answer, the lower accurate ones."""
    families = [family for family in FAMILIES if inputs.cells.sizes(family)]
    if not families:
        return ()
    figure, axes = new_figure(2, len(families), height=2.2, sharey=True, sharex="col")
    look = styles([*inputs.names.methods(METHODS), *table_methods(inputs, "lp")])
    for column, family in enumerate(families):
        for row, accurate in enumerate((False, True)):
            axis = axes[row, column]
            times = _times(inputs, family, accurate)
            for key, (factors, share) in performance_profile(times).items():
                style = look.get(key, Style("#7F7F7F", "o", "-"))
                draw_steps(axis, factors, share, style, inputs.cells.label(key) or key)
            axis.set_xscale("log")
            axis.set_ylim(0, 1.03)
            if row == 0:
                axis.set_title(FAMILIES[family])
            else:
                axis.set_xlabel("τ, factor of the fastest time")
            if column == 0:
                axis.set_ylabel("share, accurate" if accurate else "share, any answer")
    close_profiles(axes)
    legend_below(figure, axes)
    return (
        Drawing(
            "performance-profiles",
            "Performance profiles",
            "Share of all instances of the sizes of table 1 that a method answered within τ times "
            "the fastest total time (protocol call). Below, only answers whose gradient lies "
            f"within 1 − cos ≤ {ACCURATE:g} of the reference count; degenerate instances are left "
            "out there.",
            figure,
        ),
    )


def _times(inputs: Inputs, family: str, accurate: bool) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    problems: set[str] = set()
    degenerate: set[str] = set()
    # The large sizes have a table of their own, with few of the methods.
    large = PROFILES[-1].large_sizes
    sizes = [size for size in inputs.cells.sizes(family) if size not in large]
    for method in table_methods(inputs, family):
        pieces: list[pd.Series] = []
        if any(_poses_another(inputs, family, size, method.key) for size in sizes):
            continue
        for size in sizes:
            rows = inputs.cells.measured(family, size, method.key)
            problems |= set(rows.index)
            bad = rows["reference.degenerate"].fillna(False).astype(bool)
            degenerate |= set(rows.index[bad])
            if accurate:
                rows = rows[rows["accuracy.q.one_minus_cos"] <= ACCURATE]
            pieces.append(rows["time.total.call"])
        joined = pd.concat(pieces) if pieces else pd.Series(dtype=float)
        tried = any(
            inputs.cells.outcome(family, size, method.key).state not in ("missing", "unsupported")
            for size in sizes
        )
        if tried:
            columns[method.key] = joined
    index = sorted(problems - degenerate if accurate else problems)
    return pd.DataFrame({key: column.reindex(index) for key, column in columns.items()})


def _poses_another(inputs: Inputs, family: str, size: str, method: str) -> bool:
    # A variant that solves another problem (the paper's LP with ε = 0) does not compete here.
    rows = inputs.cells.measured(family, size, method)
    return "posed" in rows and bool(rows["posed"].notna().any())


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


FIGURE = FigureModule("performance-profiles", 30, draw)
