"""Table 6: portfolio with DC3, a learned solver, against exact layers."""

from __future__ import annotations

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Panel, Table, TableModule
from bpqp_bench.report.tables._portfolio import (
    Metric,
    metrics_panel,
    no_requests,
    not_run,
    read_results,
    tidy,
)

_ROWS = ("two-stage", "dc3", "bpqp", "bpqp-fast")
_METRICS = (
    Metric("MSE", "MSE (%²)", lower=True),
    Metric("IC", "IC", published=True),
    Metric("ICIR", "ICIR", published=True),
    Metric("AnnRet_pct", "Ann.Ret. (%)", published=True),
    Metric("Sharpe", "Sharpe", published=True),
    Metric("regret", "Regret (%)", lower=True),
    Metric("signal_regret", "Regret to signal (%)", lower=True),
    Metric("violation", "violation", ranked=False),
    Metric("train_s", "s/epoch", lower=True),
    Metric("decide_ms", "decision (ms)", ranked=False),
    Metric("build_s", "training before (s)", ranked=False),
)
_CAPTION = (
    "DC3's network takes the predictions alone: its constraints are the simplex, and the "
    "covariance, which changes by day, enters the loss that it is trained on beforehand. Its "
    "answers sum to one but need not be positive; violation is the mean over days of the largest "
    "negative weight, and all other figures are of the nearest portfolio. The paper's are of "
    "CSI 500."
)


def render(inputs: Inputs) -> Table:
    """Render the markets on which DC3 was run."""
    results = read_results(inputs)
    panels: list[Panel] = []
    for data in results.markets():
        there = results.names(data)
        if "dc3" in there:
            names = [name for name in _ROWS if name in there]
            panels.append(metrics_panel(results, data, names, _METRICS, TABLE.key))
    panels = panels or [not_run(TABLE.key)]
    frame = tidy(results)
    if len(frame):
        frame = frame[frame["name"].isin(_ROWS)]
    return TABLE.filled(_CAPTION, panels, frame)


TABLE = TableModule("table6", "Table 6: Portfolio with DC3", 45, no_requests, render)
