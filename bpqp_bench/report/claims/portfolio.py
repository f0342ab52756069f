"""Claims about the portfolio experiment: C7, C8, C9.

They read ``portfolio/summary.csv`` of the run, one record per method and metric with the columns
``method``, ``metric``, ``mean`` and, where there are several seeds, ``std`` and ``n``. Methods are
``two-stage``, ``qpth``, ``bpqp`` and ``dc3``; metrics those of the published table and
``regret`` and ``train_s`` (seconds of training per epoch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bpqp_bench.errors import ResultsError
from bpqp_bench.report.claims.model import NOT, REPRODUCED, UNTESTED, Finding, Judged, overall
from bpqp_bench.report.claims.ratios import cell_ratio
from bpqp_bench.report.claims.setup import machine
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.tables.dc3 import FAMILIES, dc3_methods
from bpqp_bench.report.text import significant

__all__ = ["SUMMARY", "c7", "c8", "c9"]

SUMMARY = Path("portfolio") / "summary.csv"
_ABSENT = "portfolio experiment not in this run"
_DATA = "the paper's market data (Chinese CSI 500, by Qlib) are not to be had here"


@dataclass(frozen=True)
class _Figures:
    means: Mapping[tuple[str, str], float]

    def get(self, method: str, metric: str) -> float:
        """Return a mean, NaN where there is none."""
        return self.means.get((method, metric), math.nan)


def c7(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: end-to-end learning beats two-stage in portfolio metrics, not in prediction."""
    figures = _read(inputs)
    published = {"Sharpe": "0.65 → 1.28", "AnnRet_pct": "9.28 → 17.67", "IC": "0.033 → 0.026"}
    findings: list[Finding] = []
    for metric, better in (("Sharpe", True), ("AnnRet_pct", True), ("IC", False)):
        one, two = (
            (math.nan, math.nan)
            if figures is None
            else (figures.get("two-stage", metric), figures.get("bpqp", metric))
        )
        if math.isnan(one) or math.isnan(two):
            findings.append(Finding(metric, _ABSENT, UNTESTED, published[metric]))
            continue
        good = two > one if better else two <= one
        text = f"two-stage {significant(one)}, BPQP {significant(two)}"
        findings.append(Finding(metric, text, REPRODUCED if good else NOT, published[metric]))
    return _judged(
        inputs,
        claim,
        findings,
        "BPQP's mean Sharpe ratio and annual return over the seeds exceed two-stage's, and its "
        "information coefficient does not: the direction of the published differences, since "
        "their size belongs to the market.",
        "The prediction loss and the decision loss pull apart only where errors of the forecast "
        "matter for the decision; how much depends on the market and on the risk aversion.",
    )


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
    )


def c9(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: DC3 is fast but its decisions are poor."""
    figures = _read(inputs)
    findings: list[Finding] = []
    sharpe = math.nan if figures is None else figures.get("dc3", "Sharpe")
    if math.isnan(sharpe):
        findings.append(Finding("Sharpe of DC3", _ABSENT, UNTESTED, "−0.16"))
    else:
        other = figures.get("bpqp", "Sharpe") if figures is not None else math.nan
        good = sharpe < 0 or sharpe < other
        text = f"DC3 {significant(sharpe)}, BPQP {significant(other)}"
        findings.append(Finding("Sharpe of DC3", text, REPRODUCED if good else NOT, "−0.16"))
    findings += _speed(inputs)
    return _judged(
        inputs,
        claim,
        findings,
        "DC3's mean Sharpe ratio is negative or below BPQP's, and its total time (call) is below "
        "BPQP's at every size of table 5; the training, paid before, stands there too.",
        "DC3's speed rests on a small network and its quality on the training: few samples and "
        "epochs leave it far from optimal (table 5), many cost more before the first one.",
    )


def _speed(inputs: Inputs) -> list[Finding]:
    findings: list[Finding] = []
    trained = dc3_methods(inputs)[0]
    for plain, label in FAMILIES.items():
        family = inputs.names.family(plain)
        ratios = [
            ratio
            for size in inputs.cells.sizes(family)
            if (
                ratio := cell_ratio(
                    inputs, trained.name, family, size, which="total", protocol="call"
                )
            )
        ]
        what = f"time of DC3, {label}"
        if not ratios:
            findings.append(Finding(what, "DC3 and BPQP were not both measured", UNTESTED))
            continue
        text = "; ".join(f"{ratio.size}: {ratio.text}" for ratio in ratios)
        good = all(ratio.value < 1 for ratio in ratios)
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
    inputs: Inputs, claim: dict[str, str], findings: list[Finding], threshold: str, why: str
) -> Judged:
    verdict = overall((finding.verdict for finding in findings), every=True)
    return Judged(
        claim["id"],
        claim["claim"],
        claim["where"],
        verdict,
        threshold,
        tuple(findings),
        (machine(inputs), _DATA),
        why if verdict == NOT else "",
    )
