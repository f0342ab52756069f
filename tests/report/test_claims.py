"""Verdicts on the claims, from runs made so that the right one is known."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from bpqp_bench.errors import ResultsError
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.report.claims import Judged, claims_markdown, judge_claims
from bpqp_bench.report.claims.model import (
    MIXED,
    NOT,
    REPRODUCED,
    UNTESTED,
    Finding,
    by_readings,
    overall,
)
from bpqp_bench.results.measurement import Measurement

SIZES = ("10x5", "50x10", "100x20", "500x100")


def judge(runs: list[Measurement], identifier: str, **more: Any) -> Judged:
    judged = judge_claims(samples.inputs(runs, "standard", **more))
    return next(one for one in judged if one.identifier == identifier)


def make(
    speeds: dict[str, float], sizes: tuple[str, ...] = SIZES, **more: Any
) -> list[Measurement]:
    return [
        samples.measurement(
            method=method, family=family, size=size, seed=seed, seconds=speed * 1e-3, **more
        )
        for (method, speed), family, size, seed in itertools.product(
            speeds.items(), ("qp", "lp", "socp"), sizes, range(5)
        )
    ]


# Names of the published configurations, as the paper ran them.
PAPER = {"bpqp": "bpqp-paper", "exact": "exact-paper", "cvxpy": "cvxpy-paper", "qpth": "qpth-paper"}


def published(
    speeds: dict[str, float], sizes: tuple[str, ...] = SIZES, **more: Any
) -> list[Measurement]:
    """Measure the configurations that the paper ran; on LP CVXPY's is a variant of its own."""
    return make({PAPER.get(name, name): speed for name, speed in speeds.items()}, sizes, **more)


def of(judged: Judged, reading: str) -> list[Finding]:
    return [finding for finding in judged.findings if finding.reading == reading]


def test_all_eleven_are_judged_and_an_empty_run_tests_none() -> None:
    judged = judge_claims(samples.inputs([], "smoke"))
    assert [one.identifier for one in judged] == [f"C{i}" for i in range(1, 12)]
    assert {one.verdict for one in judged} == {UNTESTED}
    assert all(one.threshold and one.findings for one in judged)
    text = claims_markdown(judged)
    assert text.count("## C") == 11
    assert "portfolio experiment not in this run" in text


@pytest.mark.parametrize(("factor", "verdict"), [(12.0, REPRODUCED), (2.0, NOT)])
def test_order_of_magnitude(factor: float, verdict: str) -> None:
    speeds = {"bpqp": 1.0, "exact": factor, "qpth": 2 * factor}
    found = judge(make(speeds) + published(speeds), "C1")
    assert found.readings["call"] == found.readings["best"] == verdict
    call = of(found, "call")[0]
    assert f"median ratio {1.5 * factor:.1f}"[:15] in call.measured
    assert bool(found.explanation) == (verdict == NOT)


def test_the_authors_clock_counts_the_solve_alone_of_bpqp_and_exact() -> None:
    # In these samples the solve phase is half of every call.
    found = judge(published({"bpqp": 1.0, "qpth": 2.0, "exact": 2.0}), "C1")
    assert found.readings == {"published": NOT, "call": NOT, "best": NOT}
    assert "median ratio 3.00" in of(found, "published")[0].measured  # of 4 (qpth) and 2 (Exact)
    assert "median ratio 2.00" in of(found, "call")[0].measured
    found = judge(published({"bpqp": 1.0, "qpth": 2.0}), "C1")
    assert found.readings == {"published": REPRODUCED, "call": NOT, "best": NOT}
    assert found.verdict == MIXED
    assert "4.00 on the authors' clock, 2.00 in call time" in found.contrast
    assert "50% of the call of BPQP" in found.contrast


def test_the_best_configuration_is_the_fastest_right_one() -> None:
    wrong = {"q": Accuracy(1e-3, 0.1, 0.1, 10.0)}
    runs = make({"bpqp": 3.0, "bpqp-fast": 1.0, "qpth": 8.0})
    runs += make({"bpqp-direct": 0.1, "qpth-paper": 0.2}, accuracy=wrong)
    best = of(judge(runs, "C1"), "best")[0]
    assert "median ratio 8.00" in best.measured


def test_headline_ratio_is_that_of_the_fastest_other_layer() -> None:
    runs = published({"bpqp": 1.0, "cvxpy": 40.0, "cvxpy-lp0": 9.0, "qpth": 30.0})
    found = judge(runs, "C2")
    measured = {f.what: f for f in of(found, "call")}
    assert measured["QP 100x20"].measured.startswith("30.0")
    assert measured["LP 100x20"].measured.startswith("9.00")
    assert measured["LP 100x20"].verdict == REPRODUCED  # half of 16.17 is 8.09
    assert measured["SOCP 100x20"].measured.startswith("30.0")
    assert found.readings["call"] == REPRODUCED
    assert judge(published({"bpqp": 1.0, "qpth": 2.0}), "C2").verdict == NOT
    slower = judge(published({"bpqp": 1.0, "cvxpy": 0.9}), "C2")
    # More than half of 1.67, and yet slower.
    assert {f.what: f.verdict for f in of(slower, "call")}["SOCP 100x20"] == NOT
    assert judge(published({"bpqp": 1.0, "qpth": 30.0}, SIZES[:2]), "C2").verdict == UNTESTED


def test_backward_alone_counts_published_cells_only() -> None:
    speeds = {"bpqp": 1.0, "cvxpy": 2.0, "cvxpy-lp0": 2.0, "qpth": 2.0}
    found = judge(published(speeds), "C3")
    assert found.readings["call"] == REPRODUCED
    # The paper has backward times of qpth at three sizes of QP and at four of LP.
    assert "7 of 7 cells" in of(found, "call")[1].measured
    found = judge(published(speeds | {"qpth": 0.5}), "C3")
    assert found.readings["call"] == NOT
    assert "qpth/OptNet" in found.explanation or "qpth-paper" in found.explanation
    assert "0.500 [0.500, 0.500] times BPQP's time" in found.explanation
    assert "setup 30%" in found.explanation


def test_exact_is_the_bottleneck_in_its_backward_pass_only_if_it_is() -> None:
    runs = published({"bpqp": 1.0, "exact": 4.0})
    assert judge(runs, "C4").verdict == NOT  # in these samples backward is a third of the total
    assert judge(published({"bpqp": 1.0, "exact": 4.0}, SIZES[:2]), "C4").verdict == UNTESTED
    slow = samples.pass_time(0.1)
    runs = [samples.replace(r, backward=slow) if r.method == "exact-paper" else r for r in runs]
    found = judge(runs, "C4")
    assert found.verdict == REPRODUCED
    assert "96%" in found.findings[0].measured


def test_one_instance_is_never_significant() -> None:
    runs = [r for r in published({"bpqp": 1.0, "qpth": 30.0}) if r.seed == 0]
    assert of(judge(runs, "C2"), "call")[0].verdict != REPRODUCED
    large = [r for r in published({"bpqp": 1.0, "exact": 3.0, "altdiff-paper": 3.0}, ("500x200",))
             if r.family == "qp"]  # fmt: skip
    assert judge([r for r in large if r.seed == 0], "C6").readings["call"] == UNTESTED
    assert judge([r for r in large if r.seed < 2], "C6").readings["call"] == REPRODUCED


def test_accuracy_is_compared_above_the_level_at_which_it_matters() -> None:
    exact = {"q": Accuracy(1e-14, 1e-7, 1e-6, 10.0)}
    runs = published({"bpqp": 1.0}, accuracy={"q": Accuracy(1e-10, 1e-5, 1e-4, 10.0)})
    runs += published({"qpth": 1.0}, accuracy=exact)
    assert judge(runs, "C5").verdict == REPRODUCED
    loose = {"q": Accuracy(1e-6, 1e-3, 1e-2, 10.0)}
    runs = published({"bpqp": 1.0}, accuracy=loose) + published({"qpth": 1.0}, accuracy=exact)
    found = judge(runs, "C5")
    assert found.verdict == NOT
    assert "1.0e−06 against 1.0e−14" in next(f.measured for f in found.findings if f.verdict == NOT)
    runs += make({"bpqp-fast": 0.5}, accuracy=exact)
    assert judge(runs, "C5").verdict == MIXED


def test_large_scale_counts_a_timeout_with_its_limit() -> None:
    large = ("500x200", "1500x500")
    speeds = {"bpqp": 1.0, "altdiff-paper": 3.0}
    runs = [r for r in published(speeds, large) if r.family == "qp"]
    for size in large:
        runs.append(
            samples.failure("timeout", "> 30 s", method="exact-paper", size=size, role="first")
        )
    found = judge(runs, "C6")
    assert found.readings["call"] == REPRODUCED
    assert "at least 20,000" in of(found, "call")[0].measured
    lost = [r for r in runs if (r.method, r.size) != ("bpqp-paper", "1500x500")]
    lost.append(
        samples.failure("timeout", "> 30 s", method="bpqp-paper", size="1500x500", role="first")
    )
    # Alt-Diff finished where BPQP did not; with Exact there is nothing to compare there.
    assert [f.verdict for f in of(judge(lost, "C6"), "call")] == [REPRODUCED, NOT]
    more = published({"exact": 0.2, "bpqp": 1.0}, ("3000x1000",))
    assert judge(runs + [r for r in more if r.family == "qp"], "C6").readings["call"] == NOT


@pytest.mark.parametrize(("power", "verdict"), [(1.0, REPRODUCED), (0.2, NOT), (2.0, NOT)])
def test_linear_growth_of_dc3(power: float, verdict: str) -> None:
    runs = [
        samples.measurement(
            method="dc3[epochs=50,samples=1000]",
            label="DC3",
            family=family,
            size=size,
            seed=seed,
            seconds=1e-5 * int(size.split("x")[0]) ** power * (1 + 0.01 * seed),
        )
        for family, size, seed in itertools.product(
            ("qp[fixed=true]", "lp[fixed=true]"), SIZES, range(3)
        )
    ]
    assert judge(runs, "C10").verdict == verdict
    assert judge([r for r in runs if r.size in SIZES[:2]], "C10").verdict == UNTESTED


def test_solver_agnostic_needs_every_pair() -> None:
    pairs = (
        "bpqp[backward=osqp,forward=osqp]",
        "bpqp[backward=direct,forward=scs]",
        "bpqp[backward=piqp,forward=proxqp]",
    )
    runs = [
        samples.measurement(method=pair, family=family, size="100x20", seed=seed)
        for pair, family, seed in itertools.product(pairs, ("qp", "qp-active"), range(2))
    ]
    assert judge(runs, "C11").verdict == REPRODUCED
    assert judge([r for r in runs if r.method != pairs[2]], "C11").verdict == UNTESTED
    loose = {"q": Accuracy(1e-3, 0.1, 0.1, 1.0)}
    runs.append(
        samples.measurement(
            method=pairs[1], family="qp-active", size="100x20", seed=9, accuracy=loose
        )
    )
    found = judge(runs, "C11")
    assert found.verdict == NOT
    assert "scs + direct at 100x20: 1.0e−03" in found.findings[1].measured


def _differences(
    name: str, baseline: str, data: str = "synthetic", **verdicts: str
) -> list[dict[str, object]]:
    common = {"data": data, "name": name, "baseline": baseline, "chosen_by": "regret"}
    numbers = {"difference": 0.3, "low": -0.1, "high": 0.7}
    return [
        {**common, **numbers, "metric": metric, "verdict": verdict.replace("_", " ")}
        for metric, verdict in verdicts.items()
    ]


# A market on which predictions are worth something, and controls that come out.
_TELLING = [
    *_differences("two-stage", "minimum-variance", regret="better"),
    *_differences("bpqp", "two-stage", "positive-control", regret="better"),
    *_differences("bpqp", "two-stage", "negative-control", regret="no difference"),
]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"Sharpe": "better", "regret": "better", "IC": "worse"}, REPRODUCED),
        ({"Sharpe": "no_difference", "regret": "better", "IC": "no_difference"}, REPRODUCED),
        ({"Sharpe": "no_difference", "regret": "no_difference", "IC": "worse"}, UNTESTED),
        ({"Sharpe": "better", "regret": "worse", "IC": "worse"}, NOT),
        ({"Sharpe": "better", "regret": "better", "IC": "better"}, NOT),
    ],
)
def test_a_claim_about_decisions_goes_by_intervals(
    tmp_path: Path, verdicts: dict[str, str], expected: str
) -> None:
    (tmp_path / "portfolio").mkdir()
    rows = _differences("bpqp", "two-stage", **verdicts)
    # Another pair's differences say nothing of this claim.
    rows += _differences("dc3", "two-stage", Sharpe="worse", regret="worse", IC="better")
    (tmp_path / "portfolio" / "significance.json").write_text(json.dumps([*rows, *_TELLING]))
    found = judge([], "C7", run_dir=tmp_path)
    assert found.verdict == expected
    assert [finding.verdict for finding in found.findings[:2]] == [REPRODUCED, REPRODUCED]
    (finding, *_) = [one for one in found.findings if one.what.startswith("Sharpe, Synthetic")]
    assert "bpqp less two-stage: 0.300 [−0.100, 0.700]" in finding.measured


@pytest.mark.parametrize("broken", range(4))
def test_a_market_that_cannot_tell_decides_nothing(tmp_path: Path, broken: int) -> None:
    (tmp_path / "portfolio").mkdir()
    telling = [dict(row) for row in _TELLING]
    if broken < 3:
        # Predictions worth nothing; a positive control that fails; a negative one that "wins".
        telling[broken]["verdict"] = ("no difference", "no difference", "better")[broken]
    else:
        telling = telling[:1]  # no controls were run
    rows = [*_differences("bpqp", "two-stage", Sharpe="worse", regret="worse"), *telling]
    (tmp_path / "portfolio" / "significance.json").write_text(json.dumps(rows))
    assert judge([], "C7", run_dir=tmp_path).verdict == UNTESTED


def test_portfolio_claims_read_their_summary(tmp_path: Path) -> None:
    folder = tmp_path / "portfolio"
    folder.mkdir()
    lines = ["method,metric,mean,std", "qpth,train_s,5,0", "bpqp,train_s,8,0", "dc3,Sharpe,-0.1,0"]
    (folder / "summary.csv").write_text("\n".join(lines), encoding="utf-8")
    rows = _differences("dc3", "bpqp", Sharpe="worse")
    (folder / "significance.json").write_text(json.dumps(rows))
    found = judge([], "C8", run_dir=tmp_path)
    assert found.verdict == NOT
    assert "ratio 0.625" in found.findings[0].measured
    # Its decisions are poor, but whether it is fast was not measured in this run.
    found = judge([], "C9", run_dir=tmp_path)
    assert found.findings[0].verdict == REPRODUCED
    assert found.verdict == UNTESTED
    assert judge([], "C7", run_dir=tmp_path).verdict == UNTESTED
    (folder / "summary.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ResultsError, match="not a portfolio summary"):
        judge([], "C8", run_dir=tmp_path)
    (folder / "significance.json").write_text("[1]")
    with pytest.raises(ResultsError, match="not a list of differences"):
        judge([], "C7", run_dir=tmp_path)


def test_joining_readings() -> None:
    same = dict.fromkeys(("published", "call", "best"), REPRODUCED)
    assert by_readings(same) == REPRODUCED
    assert by_readings(same | {"call": NOT}) == MIXED
    assert by_readings(same | {"call": UNTESTED}) == REPRODUCED
    # The claim is about the published configuration; the best one alone decides nothing.
    assert by_readings({"published": UNTESTED, "call": UNTESTED, "best": REPRODUCED}) == UNTESTED


def test_joining_verdicts() -> None:
    assert overall([REPRODUCED, UNTESTED], every=True) == UNTESTED
    assert overall([REPRODUCED, UNTESTED], every=False) == REPRODUCED
    assert overall([NOT, UNTESTED], every=True) == NOT
    assert overall([], every=False) == UNTESTED
