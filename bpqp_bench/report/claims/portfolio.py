"""Claims about the portfolio experiment: C7, C8, C9.

What is said of decisions goes by the intervals of ``portfolio/significance.json``: Sharpe ratios of
a few hundred days differ by chance alone, and an interval that contains 0 decides nothing. Times
are of ``portfolio/summary.csv``, one record per method and metric with the columns ``method``,
``metric`` and ``mean``. Methods are ``two-stage``, ``qpth``, ``bpqp`` and ``dc3``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bpqp_bench.errors import ResultsError
from bpqp_bench.report.claims.model import (
    NOT,
    REPRODUCED,
    UNTESTED,
    Finding,
    Judged,
    Verdict,
    overall,
)
from bpqp_bench.report.claims.readings import times
from bpqp_bench.report.claims.setup import machine
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.tables._portfolio import MARKETS
from bpqp_bench.report.tables.dc3 import FAMILIES, dc3_methods
from bpqp_bench.report.text import interval, significant
from bpqp_bench.report.text import ratio as show_ratio
from bpqp_bench.statistics import paired_ratio
from bpqp_bench.tasks.portfolio.config import CONTROLS
from bpqp_bench.tasks.portfolio.results import load_json

SUMMARY = Path("portfolio") / "summary.csv"
_SIGNIFICANCE = Path("portfolio") / "significance.json"
# What a difference says of a claim that the first method is the better one, or the worse one.
_AS_CLAIMED: Mapping[str, Verdict] = {
    "better": REPRODUCED,
    "worse": NOT,
    "no difference": UNTESTED,
}
_AGAINST: Mapping[str, Verdict] = {"better": NOT, "worse": REPRODUCED, "no difference": UNTESTED}
_ABSENT = "portfolio experiment not in this run"
_DC3_ROW = (
    "the published DC3 row is of a network that was not trained: in the authors' main.py the "
    "optimizer holds the solver's parameters for naive_nn only, and three of their DC3 logs equal "
    "two-stage's bit by bit in MSE and IC, so that it is an untrained network after a two-stage "
    "predictor; here DC3 is trained"
)
_DATA = "the paper's market data (Chinese CSI 500, by Qlib) are not available here"


@dataclass(frozen=True)
class _Figures:
    means: Mapping[tuple[str, str], float]

    def get(self, method: str, metric: str) -> float:
        """Return a mean, NaN where there is none."""
        return self.means.get((method, metric), math.nan)


def c7(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: end-to-end learning beats two-stage in portfolio metrics, not in prediction."""
    published = {"Sharpe": "0.65 → 1.28", "AnnRet_pct": "9.28 → 17.67", "IC": "0.033 → 0.026"}
    rows = _differences(inputs, "bpqp", "two-stage")
    worth = _worth_predicting(inputs)
    # By the criterion that the controls are about; the IC of what decides well is bad there.
    controls = [
        row
        for row in rows
        if (row["metric"], row.get("chosen_by")) == ("regret", "regret") and row["data"] in CONTROLS
    ]
    checks = [_finding(row, _control_verdict(row), "") for row in controls]
    working = bool(checks) and all(check.verdict == REPRODUCED for check in checks)
    decisions: list[Finding] = []
    predictions: list[Finding] = []
    for row in rows:
        if row["data"] in CONTROLS:
            continue
        decides = working and row["data"] in worth
        if row["metric"] in ("Sharpe", "AnnRet_pct", "regret"):
            verdict = _AS_CLAIMED[row["verdict"]] if decides else UNTESTED
            decisions.append(_finding(row, verdict, published.get(row["metric"], "")))
        elif row["metric"] == "IC":
            # A concession: contradicted only where prediction is better for certain.
            verdict = NOT if row["verdict"] == "better" else REPRODUCED
            predictions.append(_finding(row, verdict if decides else UNTESTED, published["IC"]))
    if not decisions:
        decisions = [Finding("decisions", _ABSENT, UNTESTED)]
    worthless = [_finding(row, UNTESTED, "") for row in _prediction_rows(inputs)]
    parts = (
        overall((finding.verdict for finding in decisions), every=False),
        overall((finding.verdict for finding in predictions), every=False),
    )
    return _judged(
        inputs,
        claim,
        [*checks, *worthless, *decisions, *predictions],
        "The 95 % interval (paired bootstrap over seeds and test days) of BPQP's difference to "
        "two-stage in Sharpe ratio, annual return or regret, on any market of the run that can "
        "tell, lies on the side that the claim says, none lies on the other, and its information "
        "coefficient is not better for certain. A market can tell where predictions are worth "
        "something: two-stage has less regret than minimum variance, which predicts nothing. And "
        "the controls must come out: end-to-end learning lowers regret where the predictor is "
        "misspecified on purpose, and does not where it is well specified. The direction counts "
        "and not the published size, which belongs to the market.",
        "Regret in hindsight is one noisy number a day, against one label an asset and day for the "
        "prediction error, so that learning from it can fit the noise of the training days; the "
        "learning curves have its regret on days that it did not learn from.",
        overall(parts, every=True),
    )


def _control_verdict(row: dict[str, Any]) -> Verdict:
    """Say whether a control came out: a win on the positive one, none on the negative one."""
    won = row["verdict"] == "better"
    return REPRODUCED if won == (row["data"] == "positive-control") else NOT


def _prediction_rows(inputs: Inputs) -> list[dict[str, Any]]:
    rows = _differences(inputs, "two-stage", "minimum-variance")
    return [row for row in rows if row["data"] not in CONTROLS and row["metric"] == "regret"]


def _worth_predicting(inputs: Inputs) -> set[str]:
    """Return markets on which two-stage has less regret than minimum variance, by any epoch."""
    return {row["data"] for row in _prediction_rows(inputs) if row["verdict"] == "better"}


def c8(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: training with BPQP is faster than with qpth."""
    figures = _read(inputs)
    finding = Finding("seconds per epoch", _ABSENT, UNTESTED, "2.75 times in one version")
    if figures is not None:
        own, other = figures.get("bpqp", "train_s"), figures.get("qpth", "train_s")
        if own > 0 and not math.isnan(other):
            text = f"qpth {significant(other)} s, BPQP {significant(own)} s: "
            text += f"ratio {significant(other / own)}"
            finding = Finding(
                "seconds per epoch", text, REPRODUCED if other > own else NOT, finding.published
            )
    return _judged(
        inputs,
        claim,
        [finding],
        "An epoch with BPQP takes less time than with qpth; the published factor is of a GPU for "
        "qpth and cannot be expected here.",
        "qpth solves a batch at once by dense interior-point steps, BPQP one after another.",
        finding.verdict,
    )


def c9(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: DC3 is fast but its decisions are poor."""
    # The paper gives a mean and no difference.
    published = {"Sharpe": "DC3's is −0.16"}
    findings = [
        _finding(row, _AGAINST[row["verdict"]], published.get(row["metric"], ""))
        for base in ("two-stage", "bpqp")
        for row in _differences(inputs, "dc3", base)
        if row["metric"] in ("Sharpe", "regret") and row["data"] not in CONTROLS
    ]
    if not findings:
        findings = [Finding("decisions of DC3", _ABSENT, UNTESTED, published["Sharpe"])]
    poor = overall((finding.verdict for finding in findings), every=False)
    speed = _speed(inputs)
    return _judged(
        inputs,
        claim,
        [*findings, *speed],
        "The 95 % interval of DC3's difference to two-stage or to BPQP in Sharpe ratio or regret, "
        "on any market of the run, says worse and none says better, and its total time (call) is "
        "below BPQP's at every size of table 5; the training, paid before, stands there too.",
        "DC3's speed rests on a small network and its quality on the training: few samples and "
        "epochs leave it far from optimal (table 5), many cost more before the first one.",
        overall((poor, *(finding.verdict for finding in speed)), every=True),
        (_DC3_ROW,),
    )


def _differences(inputs: Inputs, name: str, baseline: str) -> list[dict[str, Any]]:
    """Read what the run found of one method against another, on all its markets."""
    if inputs.run_dir is None:
        return []
    path = inputs.run_dir / _SIGNIFICANCE
    rows = load_json(path)
    try:
        return [row for row in rows if (row["name"], row["baseline"]) == (name, baseline)]
    except (KeyError, TypeError):
        raise ResultsError(f"{path} is not a list of differences between methods") from None


def _finding(row: dict[str, Any], verdict: Verdict, published: str) -> Finding:
    market = MARKETS.get(row["data"], row["data"])
    sides = f"{row['name']} less {row['baseline']}"
    found = f"{significant(row['difference'])} {interval(row['low'], row['high'])}".strip()
    epoch = f", epoch by {row['chosen_by']}" if "chosen_by" in row else ""
    measured = f"{sides}: {found}, {row['verdict']}"
    return Finding(f"{row['metric']}, {market}{epoch}", measured, verdict, published)


def _speed(inputs: Inputs) -> list[Finding]:
    findings: list[Finding] = []
    trained = dc3_methods(inputs)[0]
    for plain, label in FAMILIES.items():
        family = inputs.names.family(plain)
        ratios = {
            size: ratio
            for size in inputs.cells.sizes(family)
            if (
                ratio := paired_ratio(
                    *(
                        times(inputs, name, family, size, "total", "call")
                        for name in (trained.name, "bpqp")
                    )
                )
            )
        }
        what = f"time of DC3, {label}"
        if not ratios:
            findings.append(Finding(what, "DC3 and BPQP were not both measured", UNTESTED))
            continue
        text = "; ".join(f"{size}: {show_ratio(ratio)}" for size, ratio in ratios.items())
        good = all(ratio.median < 1 for ratio in ratios.values())
        findings.append(Finding(what, f"over BPQP's {text}", REPRODUCED if good else NOT))
    return findings


def _read(inputs: Inputs) -> _Figures | None:
    if inputs.run_dir is None or not (inputs.run_dir / SUMMARY).is_file():
        return None
    path = inputs.run_dir / SUMMARY
    try:
        frame = pd.read_csv(path)
        means = {
            (str(method), str(metric)): float(mean)
            for method, metric, mean in zip(
                frame["method"], frame["metric"], frame["mean"], strict=True
            )
        }
    except (KeyError, ValueError) as error:
        raise ResultsError(f"{path} is not a portfolio summary: {error}") from None
    return _Figures(means)


def _judged(
    inputs: Inputs,
    claim: dict[str, str],
    findings: list[Finding],
    threshold: str,
    why: str,
    verdict: Verdict,
    more: tuple[str, ...] = (),
) -> Judged:
    return Judged(
        claim["id"],
        claim["claim"],
        claim["where"],
        verdict,
        threshold,
        tuple(findings),
        (machine(inputs), _DATA, *more),
        why if verdict == NOT else "",
    )
