"""Table 4: portfolio, two-stage learning against learning through the optimization."""

from __future__ import annotations

import math
from typing import Any

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._portfolio import (
    MARKETS,
    Metric,
    Results,
    metrics_panel,
    no_requests,
    not_run,
    read_results,
    tidy,
)
from bpqp_bench.report.text import interval, significant, tiny
from bpqp_bench.tasks.portfolio.results import PortfolioFolder, load_json

METRICS = (
    Metric("MSE", "MSE (%²)", lower=True),
    Metric("IC", "IC", published=True),
    Metric("ICIR", "ICIR", published=True),
    Metric("RankIC", "rank IC"),
    Metric("AnnRet_pct", "Ann.Ret. (%)", published=True),
    Metric("Sharpe", "Sharpe", published=True),
    Metric("MaxDD_pct", "Max. drawdown (%)", lower=True),
    Metric("regret", "Regret (%)", lower=True),
    Metric("regret_return", "of it return", lower=True),
    Metric("regret_risk", "of it risk", lower=True),
    Metric("signal_regret", "Regret to signal (%)", lower=True),
    Metric("train_s", "s/epoch", lower=True),
)
_LEFT_OUT = ("dc3",)  # has a table of its own
_CAPTION = (
    "A network predicts returns, mean-variance optimization decides. Two-Stage learns from the "
    "prediction error alone, the others from the regret of the decision too, through the layer "
    "named. What learns is shown twice, with the epoch of the best IC and with that of the lowest "
    "regret on the validation days. Mean ± standard deviation over seeds, on the test days. "
    "Returns are in excess of the equal-weight mean, without costs. Regret: to the best decision "
    "in hindsight, the return that was missed plus the risk that was too high (negative: lower "
    "than hindsight's); regret to signal: to the best decision knowing the expected returns, which "
    "only drawn markets reveal. The paper's figures are of CSI 500 and stand beside this machine's "
    "for reference, whatever the market; its MSE is in units that it does not say. Methods that "
    "solve the problem exactly follow the same training up to rounding, which training amplifies: "
    "the spread "
    "of their rows is chance, and what tells them apart is time."
)


def render(inputs: Inputs) -> Table:
    """Render every market, then the differences, the times and the gradients."""
    results = read_results(inputs)
    panels: list[Panel] = []
    for data in results.markets():
        names = [name for name in results.names(data) if name not in _LEFT_OUT]
        panels.append(metrics_panel(results, data, names, METRICS, TABLE.key))
    if inputs.run_dir is not None and results.runs:
        folder = PortfolioFolder.of(inputs.run_dir)
        panels += _significance(load_json(folder.significance), results)
        panels += [_split(results)]
        panels += _speed(load_json(folder.speed))
        panels += _gradients(load_json(folder.gradients))
    panels = panels or [not_run(TABLE.key)]
    return TABLE.filled(_CAPTION, panels, tidy(results))


_WHAT = {metric.name: metric.label for metric in METRICS}
_PAIRS = (("bpqp", "two-stage"), ("bpqp", "minimum-variance"), ("two-stage", "minimum-variance"))


def _significance(rows: list[dict[str, Any]], results: Results) -> list[Panel]:
    # Exact layers learn the same up to chance; one of them speaks for all.
    kept = [row for row in rows if (row["name"], row["baseline"]) in _PAIRS]
    kept = kept or [row for row in rows if row["name"] not in _LEFT_OUT]
    if not kept:
        return []
    labels = {run.name: run.label for run in results.runs}
    lines = [
        Row(
            (
                Cell(f"{labels[row['name']]} less {labels[row['baseline']]}"),
                Cell(row.get("chosen_by", "ic")),
                Cell(_WHAT.get(row["metric"], row["metric"])),
                Cell(significant(row["difference"]), row["difference"]),
                Cell(interval(row["low"], row["high"]), row["low"]),
                Cell(row["verdict"]),
            ),
            section=MARKETS.get(row["data"], row["data"]),
        )
        for row in kept
    ]
    columns = (
        Column("Difference", numeric=False),
        Column("Epoch by", numeric=False),
        Column("Metric", numeric=False),
        Column("Difference"),
        Column("95 % interval"),
        Column("Verdict", numeric=False),
    )
    first = kept[0]
    return [
        Panel(
            "table4-significance",
            "What learning from the decision changes, and what prediction is worth at all",
            columns,
            tuple(lines),
            caption=(
                "Paired bootstrap over seeds and test days together, days in circular blocks of "
                f"about {first['block']}, {first['resamples']} resamples; the metric is computed "
                "per seed and averaged over the seeds. Where Two-Stage is not better than minimum "
                "variance, predictions are worth nothing and the market can't tell ways to learn "
                "apart. All methods: significance.json."
            ),
        )
    ]


def _split(results: Results) -> Panel:
    parts = ("epoch", "predictor", "forward", "backward", "other")
    rows = []
    for data in results.markets():
        for name in results.names(data):
            runs = [r for r in results.of(data, name, "ic") if r.status != "failed"]
            if not runs:
                continue
            means = {
                part: sum(run.timing[f"{part}_s"] for run in runs) / len(runs)
                for part in (*parts, "forward_solver", "backward_solver")
            }
            days = sum(run.timing["days"] for run in runs) / len(runs)
            cells = [Cell(runs[0].label, runs[0].label.lower())]
            cells += [Cell(significant(means[part]), means[part]) for part in parts]
            solver = means["forward_solver"] + means["backward_solver"]
            cells += [Cell(significant(solver), solver)]
            step = means["epoch"] / days * 1e3
            cells += [Cell(significant(step), step)]
            rows.append(Row(tuple(cells), section=MARKETS.get(data, data)))
    columns = [Column("Method", numeric=False), Column("s/epoch")]
    columns += [Column(part, "of which") for part in parts[1:]]
    columns += [Column("solver alone"), Column("ms/day")]
    return Panel(
        "table4-time",
        "Time of an epoch",
        tuple(columns),
        tuple(rows),
        caption=(
            "Seconds of a training epoch, mean over epochs and seeds: predictor (both its passes "
            "and the optimizer), forward and backward call of the layer, other (loss, covariance, "
            "conversions). solver alone: the solve phases of both passes, what the paper timed."
        ),
    )


def _speed(rows: list[dict[str, Any]]) -> list[Panel]:
    if not rows:
        return []
    lines = []
    for row in rows:
        if row["cause"]:
            cells = [Cell(row["label"], notes=(row["cause"],)), *[Cell("n/a", tone="missing")] * 5]
        else:
            cells = [Cell(row["label"], row["label"].lower())]
            for name in ("step_s", "forward_s", "backward_s"):
                cells.append(Cell(significant(row[name] * 1e3), row[name] * 1e3))
            for name in ("step_ratio", "layer_ratio"):
                ratio = row[name]
                text = "n/a"
                if ratio is not None:
                    text = f"{significant(ratio['median'])} {interval(ratio['low'], ratio['high'])}"
                cells.append(Cell(text.strip(), ratio["median"] if ratio else None))
        lines.append(Row(tuple(cells), section=f"{row['assets']} assets, {row['days']} days"))
    columns = (
        Column("Method", numeric=False),
        Column("training step", "ms a day"),
        Column("forward", "ms a day"),
        Column("backward", "ms a day"),
        Column("training step", "paired ratio to BPQP"),
        Column("layer", "paired ratio to BPQP"),
    )
    return [
        Panel(
            "table4-steps",
            "Training steps, day by day",
            columns,
            tuple(lines),
            caption=(
                "All methods on the same days in random order. Median paired ratio with its 95 % "
                "interval; above 1 BPQP with the paper's solvers is faster."
            ),
        )
    ]


def _gradients(rows: list[dict[str, Any]]) -> list[Panel]:
    if not rows:
        return []
    lines = []
    for row in rows:
        cells = [Cell(row.get("label", row["method"])), Cell(str(row.get("date", "")))]
        if row["cause"]:
            cells = [Cell(cells[0].text, notes=(row["cause"],)), cells[1]]
            cells += [Cell("n/a", tone="missing")] * 4
        else:
            cells.append(Cell(str(row["holdings"]), row["holdings"]))
            for name in ("one_minus_cos", "regret_one_minus_cos", "regret_rel_l2"):
                value = row[name]
                value = math.nan if value is None else value
                cells.append(Cell(tiny(value), value))
        lines.append(Row(tuple(cells), section=MARKETS.get(row["data"], row["data"])))
    columns = (
        Column("Layer", numeric=False),
        Column("Day", numeric=False),
        Column("Assets held"),
        Column("1 − cos, loss"),
        Column("1 − cos, regret² alone"),
        Column("relative error, regret² alone"),
    )
    return [
        Panel(
            "table4-gradients",
            "Gradient of the loss with respect to the predictions",
            columns,
            tuple(lines),
            caption=(
                "By autograd through the layer, against central differences of the problem solved "
                "exactly."
            ),
        )
    ]


TABLE = TableModule("table4", "Table 4: Portfolio", 35, no_requests, render)
