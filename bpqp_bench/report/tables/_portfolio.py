"""What the two portfolio tables share: results by market and method, and their cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Row
from bpqp_bench.report.published import published_portfolio
from bpqp_bench.report.text import plus_minus, significant, tiny
from bpqp_bench.tasks.portfolio.results import (
    PortfolioFolder,
    RunResult,
    load_results,
    summary_frame,
)

__all__ = ["MARKETS", "Metric", "Results", "market_note", "metrics_panel", "read_results"]

MARKETS = {
    "qlib": "CSI 500, Qlib's Alpha158",
    "synthetic": "Synthetic factor market",
    "sp500": "20 companies of the S&P 500",
}
_PAPER_NAMES = {"two-stage": "Two-Stage", "bpqp": "BPQP", "dc3": "DC3"}


@dataclass(frozen=True)
class Metric:
    """A column: metric, heading, whether less is better, and in which table the paper has it."""

    name: str
    label: str
    lower: bool = False
    published: bool = False


@dataclass(frozen=True)
class Results:
    """All results of a run and their means over seeds."""

    runs: tuple[RunResult, ...]
    summary: pd.DataFrame

    def markets(self) -> list[str]:
        """Markets that were run, the paper's first."""
        present = list(dict.fromkeys(run.data for run in self.runs))
        return [m for m in MARKETS if m in present] + [m for m in present if m not in MARKETS]

    def names(self, data: str) -> list[str]:
        """Methods run on a market, in the order of their first result."""
        return list(dict.fromkeys(run.name for run in self.runs if run.data == data))

    def of(self, data: str, name: str) -> list[RunResult]:
        """Results of a method on a market, by seed."""
        found = [run for run in self.runs if run.data == data and run.name == name]
        return sorted(found, key=lambda run: run.seed)


def read_results(inputs: Inputs) -> Results:
    """Read the run's portfolio results; none where it has none."""
    if inputs.run_dir is None:
        return Results((), summary_frame(()))
    runs = tuple(load_results(PortfolioFolder.of(inputs.run_dir)))
    return Results(runs, summary_frame(runs))


def metrics_panel(
    results: Results, data: str, names: Sequence[str], metrics: Sequence[Metric], key: str
) -> Panel:
    """One row a method, one column a metric; mean ± std over seeds, best in its column marked."""
    shown = [metric for metric in metrics if _any(results, data, names, metric.name)]
    best = {metric.name: _best(results, data, names, metric) for metric in shown}
    rows = []
    for name in names:
        runs = results.of(data, name)
        cells = [Cell(runs[0].label, runs[0].label.lower(), notes=_notes(runs))]
        complete = [run for run in runs if run.status == "ok"]
        for metric in shown:
            found = (_value(run, metric.name) for run in complete)
            values = tuple(value for value in found if math.isfinite(value))
            below = _published(name, metric)
            if not values:
                state = "> budget" if any(run.status == "timeout" for run in runs) else "failed"
                cells.append(Cell(state if not complete else "n/a", below=below, tone="missing"))
                continue
            series = pd.Series(values)
            mean = float(series.mean())
            std = float(series.std(ddof=1)) if len(series) > 1 else math.nan
            text = tiny(mean) if metric.name == "violation" else plus_minus(mean, std)
            tone = "best" if best[metric.name] == name else ""
            cells.append(Cell(text, mean, below=below, runs=values, tone="best" if tone else ""))
        rows.append(Row(tuple(cells)))
    columns = [Column("Method", numeric=False), *(Column(metric.label) for metric in shown)]
    title = MARKETS.get(data, data)
    caption = market_note(results, data)
    return Panel(f"{key}-{data}", title, tuple(columns), tuple(rows), caption=caption)


def market_note(results: Results, data: str) -> str:
    """Say what the market is: assets, days, dates, seeds."""
    run = next(run for run in results.runs if run.data == data)
    seeds = len({run.seed for run in results.runs if run.data == data})
    market, learning = run.market, run.config.get("learning", {})
    low, high = market.get("assets_per_day", [0, 0])
    assets = f"{low}" if low == high else f"{low} to {high}"
    parts = ", ".join(
        f"{name} {market[name][2]} days ({market[name][0]} to {market[name][1]})"
        for name in ("train", "valid", "test")
        if name in market
    )
    dates = " Dates are invented." if data == "synthetic" else ""
    return (
        f"{assets} assets a day, {market.get('features', 0)} features; {parts}; {seeds} "
        f"seed{'s' if seeds != 1 else ''}, at most {learning.get('epochs', '?')} epochs.{dates}"
    )


def _value(run: RunResult, metric: str) -> float:
    if metric == "train_s":
        return float(run.timing.get("epoch_s", math.nan))
    if metric == "build_s":
        return float(run.timing.get("build_s", math.nan))
    if metric == "decide_ms":
        return float(run.timing.get("decide_s", math.nan)) * 1e3
    return float(run.metrics.get(metric, math.nan))


def _any(results: Results, data: str, names: Sequence[str], metric: str) -> bool:
    return any(
        math.isfinite(_value(run, metric)) for name in names for run in results.of(data, name)
    )


def _best(results: Results, data: str, names: Sequence[str], metric: Metric) -> str | None:
    if metric.name in ("build_s", "violation", "decide_ms"):
        return None
    means: dict[str, float] = {}
    for name in names:
        values = [_value(run, metric.name) for run in results.of(data, name) if run.status == "ok"]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            means[name] = sum(finite) / len(finite)
    if len(means) < 2:
        return None
    return (min if metric.lower else max)(means, key=lambda name: means[name])


def _notes(runs: Sequence[RunResult]) -> tuple[str, ...]:
    found = dict.fromkeys(
        f"{run.label}, seed {run.seed}: {run.cause}" for run in runs if run.status != "ok"
    )
    odd = {
        status: count
        for run in runs
        for status, count in run.statuses.items()
        if status not in ("solved", "approximate")
    }
    notes = list(found)
    if odd:
        listed = ", ".join(f"{status} {count} times" for status, count in odd.items())
        notes.append(f"{runs[0].label}: the solver reported {listed} in a seed")
    return tuple(notes)


def _published(name: str, metric: Metric) -> str:
    if not metric.published:
        return ""
    frame = published_portfolio()
    row = frame[(frame["method"] == _PAPER_NAMES.get(name)) & (frame["metric"] == metric.name)]
    if row.empty:
        return "paper n/a"
    mean, std = float(row["mean"].iloc[0]), float(row["std"].iloc[0])
    return f"paper {significant(mean)} ± {significant(std, 2)}"
