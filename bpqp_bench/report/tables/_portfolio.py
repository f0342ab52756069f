"""What the two portfolio tables share: results by market and method, and their cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Row
from bpqp_bench.report.published import published_portfolio
from bpqp_bench.report.text import plus_minus, significant, tiny
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.tasks.portfolio.config import CONTROLS
from bpqp_bench.tasks.portfolio.results import (
    PortfolioFolder,
    RunResult,
    load_results,
    summary_frame,
)

MARKETS = {
    "qlib": "CSI 500, Qlib's Alpha158",
    "synthetic": "Synthetic factor market",
    "sp500": "20 companies of the S&P 500",
    "positive-control": "Positive control: end-to-end learning must win",
    "negative-control": "Negative control: end-to-end learning must not win",
}
CHOSEN_BY = {
    "": "Decisions without learning",
    "ic": "Epoch chosen by the IC on the validation days",
    "regret": "Epoch chosen by the regret on the validation days",
}
_PAPER_NAMES = {"two-stage": "Two-Stage", "bpqp": "BPQP", "dc3": "DC3"}


@dataclass(frozen=True)
class Metric:
    """A column: metric, heading, whether less is better, whether the paper has it, any best."""

    name: str
    label: str
    lower: bool = False
    published: bool = False
    ranked: bool = True


@dataclass(frozen=True)
class Results:
    """All results of a run and their means over seeds."""

    runs: tuple[RunResult, ...]
    summary: pd.DataFrame

    def markets(self) -> list[str]:
        """Markets that were run, the paper's first."""
        present = list(dict.fromkeys(run.data for run in self.runs))
        return [m for m in MARKETS if m in present] + [m for m in present if m not in MARKETS]

    def names(self, data: str, chosen_by: str | None = None) -> list[str]:
        """Methods run on a market, in the order of their first result."""
        return list(
            dict.fromkeys(
                run.name
                for run in self.runs
                if run.data == data and chosen_by in (None, run.chosen_by)
            )
        )

    def of(self, data: str, name: str, chosen_by: str | None = None) -> list[RunResult]:
        """Results of a method on a market, by seed."""
        found = [
            run
            for run in self.runs
            if (run.data, run.name) == (data, name) and chosen_by in (None, run.chosen_by)
        ]
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
    """One row a method, one column a metric; mean ± std over seeds, best in its section marked."""
    groups = [
        (chosen_by, [n for n in names if n in results.names(data, chosen_by)])
        for chosen_by in CHOSEN_BY
    ]
    shown = [
        metric
        for metric in metrics
        if any(
            math.isfinite(_value(run, metric.name)) for n in names for run in results.of(data, n)
        )
    ]
    rows = []
    for chosen_by, there in groups:
        runs = {name: results.of(data, name, chosen_by) for name in there}
        # The paper has neither decisions without learning nor controls.
        if not chosen_by or data in CONTROLS:
            asked = [replace(metric, published=False, ranked=bool(chosen_by)) for metric in shown]
        else:
            asked = shown
        columns = [_column(runs, metric) for metric in asked]
        for position, own in enumerate(runs.values()):
            head = Cell(own[0].label, own[0].label.lower(), notes=_notes(own))
            cells = (head, *(column[position] for column in columns))
            rows.append(Row(cells, section=CHOSEN_BY[chosen_by]))
    heads = [Column("Method", numeric=False), *(Column(metric.label) for metric in shown)]
    title = MARKETS.get(data, data)
    note = market_note(results, data)
    return Panel(f"{key}-{data}", title, tuple(heads), tuple(rows), caption=note)


def _column(runs: Mapping[str, Sequence[RunResult]], metric: Metric) -> list[Cell]:
    cells: list[Cell] = []
    for name, own in runs.items():
        complete = [run for run in own if run.status == "ok"]
        found = (_value(run, metric.name) for run in complete)
        values = tuple(value for value in found if math.isfinite(value))
        below = _published(name, metric)
        if not values:
            state = "> budget" if any(run.status == "timeout" for run in own) else "failed"
            cells.append(Cell(state if not complete else "n/a", below=below, tone="missing"))
            continue
        series = pd.Series(values)
        mean = float(series.mean())
        std = float(series.std(ddof=1)) if len(series) > 1 else math.nan
        text = tiny(mean) if metric.name == "violation" else plus_minus(mean, std)
        cells.append(Cell(text, mean, below=below, runs=values))
    means = [cell.sort for cell in cells if isinstance(cell.sort, float)]
    if len(means) > 1 and metric.ranked:
        best = (min if metric.lower else max)(means)
        cells = [replace(cell, tone="best") if cell.sort == best else cell for cell in cells]
    return cells


def market_note(results: Results, data: str) -> str:
    """Say what the market is: assets, days, dates, seeds."""
    run = next(run for run in results.runs if run.data == data)
    learning = run.config.get("learning", {})
    seeds = len({run.seed for run in results.runs if run.data == data})
    market = run.market
    low, high = market.get("assets_per_day", [0, 0])
    assets = f"{low}" if low == high else f"{low} to {high}"
    parts = ", ".join(
        f"{name} {market[name][2]} days ({market[name][0]} to {market[name][1]})"
        for name in ("train", "valid", "test")
        if name in market
    )
    dates = "" if data in ("qlib", "sp500") else " Dates are invented."
    return (
        f"{assets} assets a day, {market.get('features', 0)} features; {parts}; {seeds} "
        f"seed{'s' if seeds != 1 else ''}, at most {learning.get('epochs', '?')} epochs.{dates}"
    )


def not_run(key: str) -> Panel:
    """Stand in place of a table of which nothing was run."""
    return Panel(f"{key}-none", "Not run", (Column("", numeric=False),), ())


def no_requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for no measurement: the tables live on the portfolio experiment."""
    del profile
    return ()


def tidy(results: Results) -> pd.DataFrame:
    """One row a result: what identifies it, its metrics and its times."""
    rows = [
        {
            "data": run.data,
            "method": run.method,
            "name": run.name,
            "label": run.label,
            "seed": run.seed,
            "status": run.status,
            "chosen_by": run.chosen_by,
            "best_epoch": run.best_epoch,
            **run.metrics,
            **run.timing,
        }
        for run in results.runs
    ]
    return pd.DataFrame(rows)


def _value(run: RunResult, metric: str) -> float:
    if metric == "decide_ms":
        return float(run.timing.get("decide_s", math.nan)) * 1e3
    source = "epoch_s" if metric == "train_s" else metric
    return float((run.metrics | run.timing).get(source, math.nan))


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
