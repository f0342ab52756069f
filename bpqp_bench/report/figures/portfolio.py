"""Portfolio: learning curves and cumulative excess return."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from bpqp_bench.report.figures._vega import Spec, facets, figure, method_scales, own_scales, panels
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
    drawings = [_learning(inputs, results, markets)]
    if len(series):
        drawings.append(_wealth(inputs, results, markets, series))
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
    """Keep the methods named; all of them where BPQP, which stands for exact layers, is missing."""
    kept = [pair for pair in methods if pair[0].name in names]
    return kept if any(pair[0].name == "bpqp" for pair in kept) else methods


def _learning(inputs: Inputs, results: Results, markets: list[str]) -> Drawing:
    records: list[dict[str, Any]] = []
    methods: list[MethodName] = []
    for data, (field, label) in itertools.product(markets, _CURVES):
        # DC3's regret would flatten the others.
        for name, runs in _shown(_methods(results, data), ("two-stage", "bpqp")):
            methods.append(name)
            table = pd.DataFrame(
                {run.seed: {e["epoch"]: e[field] for e in run.epochs} for run in runs}
            ).sort_index()
            # Seeds stop at different epochs: a mean over other seeds than before would jump.
            panel = {"row": MARKETS.get(data, data), "column": label, "label": name.label}
            records += [panel | point for point in _over_seeds(table.dropna())]
    x = {"field": "x", "type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1}}
    rows = list(dict.fromkeys(record["row"] for record in records))
    body = facets(
        _layer(inputs, methods, x, points=True), rows, [label for _, label in _CURVES], (210, 150)
    )
    return Drawing(
        "portfolio-learning",
        "Portfolio: learning curves",
        "Prediction error, regret of the decision and information coefficient on the validation "
        "days after each epoch; mean over seeds and one standard deviation, as far as all seeds "
        "were trained. BPQP stands for all exact layers.",
        spec=figure(body | own_scales("x", "y"), records),
    )


def _wealth(inputs: Inputs, results: Results, markets: list[str], series: pd.DataFrame) -> Drawing:
    records: list[dict[str, Any]] = []
    methods: list[MethodName] = []
    for data in markets:
        invented = "" if data in ("qlib", "sp500") else " (dates are invented)"
        mine = series[(series["data"] == data) & (series["chosen_by"] == "ic")]
        for name, _ in _shown(_methods(results, data), ("two-stage", "bpqp", "dc3")):
            own = mine[mine["name"] == name.name]
            if own.empty:
                continue
            methods.append(name)
            daily = own.pivot_table(index="date", columns="seed", values="excess").sort_index()
            path = daily.cumsum() * 100
            path.index = pd.to_datetime(path.index).strftime("%Y-%m-%d")
            panel = {"panel": f"{MARKETS.get(data, data)}{invented}", "label": name.label}
            records += [panel | point for point in _over_seeds(path)]
    x = {
        **{"field": "x", "type": "temporal", "title": None},
        "scale": {"type": "utc"},  # the same dates in every time zone
        "axis": {"format": "%b %Y"},
    }
    zero = {
        "transform": [{"aggregate": [{"op": "count", "as": "days"}]}],  # one line, not one a day
        "mark": {"type": "rule", "color": "#777777", "strokeWidth": 0.6},
        "encoding": {"y": {"datum": 0}},
    }
    markets_shown = list(dict.fromkeys(record["panel"] for record in records))
    layer = [*_layer(inputs, methods, x, "summed excess return (%)"), zero]
    body = panels(layer, markets_shown, 1, (660, 170), ("x", "y"))
    return Drawing(
        "portfolio-return",
        "Portfolio: cumulative excess return",
        "Return of the portfolio in excess of the equal-weight mean, summed over the test days, "
        "without costs, the epoch chosen by validation IC; mean over seeds and one standard "
        "deviation. BPQP stands for all exact layers.",
        spec=figure(body, records),
    )


def _over_seeds(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return mean and standard deviation of each row of a table with a column a seed."""
    mean, spread = table.mean(axis=1), table.std(axis=1, ddof=1).fillna(0.0)
    return [
        {"x": x, "y": float(y), "low": float(y - s), "high": float(y + s)}
        for x, y, s in zip(table.index.tolist(), mean, spread, strict=True)
    ]


def _layer(
    inputs: Inputs,
    methods: list[MethodName],
    x: Spec,
    title: str | None = None,
    points: bool = False,
) -> list[Spec]:
    color, shape = method_scales(inputs, (method.label for method in methods), methods)
    y = {"field": "y", "type": "quantitative", "title": title, "scale": {"zero": False}}
    where = {"x": x, "y": y, "color": color}
    band = {"y": y | {"field": "low"}, "y2": {"field": "high"}, "opacity": {"value": 0.12}}
    mark = {"type": "point", "filled": True, "size": 24, "opacity": 1}
    return [
        {"mark": "area", "encoding": where | band},
        {"mark": {"type": "line", "strokeWidth": 1.1}, "encoding": where},
        *([{"mark": mark, "encoding": where | {"shape": shape}}] if points else []),
    ]


FIGURE = FigureModule("portfolio", 60, draw)
