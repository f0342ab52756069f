"""Portfolio: learning curves and cumulative excess return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bpqp_bench.report.figures._style import legend_below, new_figure, styles
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables._portfolio import MARKETS, Results, read_results
from bpqp_bench.tasks.portfolio.results import PortfolioFolder, RunResult, load_series

_CURVES = (("valid_mse", "MSE (%²)"), ("valid_regret", "regret (%)"), ("valid_ic", "IC"))


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw both figures for the markets that were run."""
    results = read_results(inputs)
    markets = results.markets()
    if not markets or inputs.run_dir is None:
        return ()
    series = load_series(PortfolioFolder.of(inputs.run_dir), results.runs)
    drawings = [_learning(results, markets)]
    if len(series):
        drawings.append(_wealth(results, markets, series))
    return tuple(drawings)


def _methods(results: Results, data: str) -> list[tuple[MethodName, list[RunResult]]]:
    found: list[tuple[MethodName, list[RunResult]]] = []
    for name in results.names(data):
        runs = [run for run in results.of(data, name, "ic") if run.epochs]
        if runs:
            found.append((MethodName(name, runs[0].method, runs[0].label), runs))
    return found


def _shown(
    methods: list[tuple[MethodName, list[RunResult]]], names: tuple[str, ...]
) -> list[tuple[MethodName, list[RunResult]]]:
    """Keep two-stage, one exact layer for all, and what else is named; all if there is no such."""
    kept = [pair for pair in methods if pair[0].name in names]
    return kept if any(pair[0].name == "bpqp" for pair in kept) else methods


def _learning(results: Results, markets: list[str]) -> Drawing:
    figure, axes = new_figure(len(markets), len(_CURVES))
    for row, data in enumerate(markets):
        methods = _methods(results, data)
        look = styles([name for name, _ in methods])
        # DC3's regret would flatten the others.
        shown = _shown(methods, ("two-stage", "bpqp"))
        for column, (field, label) in enumerate(_CURVES):
            axis = axes[row, column]
            for name, runs in shown:
                style = look[name.key]
                table = pd.DataFrame(
                    {run.seed: {e["epoch"]: e[field] for e in run.epochs} for run in runs}
                ).sort_index()
                # Seeds stop at different epochs: a mean over other seeds than before would jump.
                table = table.dropna()
                mean = table.mean(axis=1)
                axis.plot(
                    mean.index,
                    mean,
                    color=style.colour,
                    marker=style.marker,
                    linestyle=style.line,
                    markersize=3,
                    label=name.label,
                )
                if table.shape[1] > 1:
                    spread = table.std(axis=1, ddof=1)
                    axis.fill_between(
                        mean.index, mean - spread, mean + spread, color=style.colour, alpha=0.12
                    )
            axis.set_ylabel(label)
            axis.set_xlabel("epoch")
            if column == len(_CURVES) // 2:
                axis.set_title(MARKETS.get(data, data))
            axis.xaxis.get_major_locator().set_params(integer=True)
    legend_below(figure, axes)
    return Drawing(
        "portfolio-learning",
        "Portfolio: learning curves",
        "Prediction error, regret of the decision and information coefficient on the validation "
        "days after each epoch; mean over seeds and one standard deviation, as far as all seeds "
        "were trained. BPQP stands for all exact layers.",
        figure=figure,
    )


def _wealth(results: Results, markets: list[str], series: pd.DataFrame) -> Drawing:
    figure, axes = new_figure(len(markets), 1, height=2.6)
    for row, data in enumerate(markets):
        axis: Any = axes[row, 0]
        methods = _methods(results, data)
        look = styles([name for name, _ in methods])
        for name, _ in _shown(methods, ("two-stage", "bpqp", "dc3")):
            mine = (series["data"] == data) & (series["chosen_by"] == "ic")
            own = series[mine & (series["name"] == name.name)]
            if own.empty:
                continue
            daily = own.pivot_table(index="date", columns="seed", values="excess").sort_index()
            path = daily.cumsum() * 100
            mean = path.mean(axis=1)
            style = look[name.key]
            axis.plot(
                mean.index,
                mean,
                color=style.colour,
                linestyle=style.line,
                linewidth=1.1,
                label=name.label,
            )
            if path.shape[1] > 1:
                spread = path.std(axis=1, ddof=1)
                axis.fill_between(
                    mean.index, mean - spread, mean + spread, color=style.colour, alpha=0.1
                )
        axis.axhline(0.0, color="#777777", linewidth=0.6)
        axis.set_title(f"{MARKETS.get(data, data)}: summed excess return (%)")
        axis.margins(x=0.01)
        if data not in ("qlib", "sp500"):
            days = np.asarray(axis.lines[0].get_xdata())
            axis.set_xlabel(f"{len(days)} test days (dates are invented)")
    legend_below(figure, axes)
    return Drawing(
        "portfolio-return",
        "Portfolio: cumulative excess return",
        "Return of the portfolio in excess of the equal-weight mean, summed over the test days, "
        "without costs, the epoch chosen by validation IC; mean over seeds and one standard "
        "deviation. BPQP stands for all exact layers.",
        figure=figure,
    )


FIGURE = FigureModule("portfolio", 60, draw)
