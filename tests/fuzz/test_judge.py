"""The judge sees what is wrong: right answers are spoilt in every way that it should notice."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from places import ROOT

from bpqp_bench.errors import InstanceError, MethodError

from . import truth
from .judge import PAIRS, Finding, Refusal, ask, judge, run
from .kinds import KINDS, Problem, make, planted
from .pool import fuzz
from .render import page

DEFAULT = PAIRS[0]


@pytest.fixture
def asked():
    """Problem, right answer, v."""
    problem = planted(np.random.default_rng(3), n=5, neq=1, active=2, inactive=3)
    v = np.random.default_rng(4).standard_normal(5)
    return problem, ask(problem, DEFAULT, v), v


def verdict(problem, answer, v):
    return judge(problem, answer, v, np.random.default_rng(0)).outcome


def test_the_right_answer(asked):
    assert verdict(*asked) == "right"


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G", "h"])
@pytest.mark.parametrize("error", [1e-2, -2.0])
def test_a_gradient_that_is_off(asked, name, error):
    problem, answer, v = asked
    part = answer.gradients[name]
    spoilt = answer.gradients | {name: part + error * np.abs(part).max() * (part != 0.0)}
    assert verdict(problem, replace(answer, gradients=spoilt), v) == "wrong silently"
    flagged = answer.facts | {"gradient": "inaccurate"}
    answer = replace(answer, gradients=spoilt, facts=flagged)
    assert verdict(problem, answer, v) == "right, flagged"


@pytest.mark.parametrize("gradient", ["exact", "inaccurate", "least-squares"])
def test_a_point_that_is_off(asked, gradient):
    problem, answer, v = asked
    facts = answer.facts | {"gradient": gradient}
    spoilt = replace(answer, z=answer.z + 1e-5, facts=facts)
    assert verdict(problem, spoilt, v) == "wrong silently"
    doubted = replace(spoilt, facts=facts | {"status": "inaccurate"})
    assert verdict(problem, doubted, v) == "wrong, flagged"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InstanceError("instance 0 is infeasible"), "refused falsely"),
        (InstanceError("instance 0 is unbounded below"), "refused falsely"),
        (MethodError("instance 0: failed (tried osqp)"), "no answer"),
        ("RuntimeError: no", "crash"),
    ],
)
def test_a_refusal_of_what_has_a_solution(asked, error, outcome):
    problem, _, v = asked
    assert verdict(problem, Refusal(error), v) == outcome
    unknown = replace(problem, verdict="", active=None)
    assert verdict(unknown, Refusal(error), v) == outcome


@pytest.mark.parametrize("kind", ["contradictory", "unbounded", "indefinite"])
def test_an_answer_to_what_has_no_solution(asked, kind):
    problem = make(kind, 5)
    assert isinstance(problem, Problem)
    n, neq, m = problem.n, len(problem.b), len(problem.h)
    _, answer, _ = asked
    answer = replace(answer, z=np.ones(n), nu=np.zeros(neq), lam=np.zeros(m))
    assert verdict(problem, answer, np.ones(n)) == "wrong silently"
    claim = {"infeasible": "infeasible", "unbounded": "unbounded"}.get(
        problem.verdict, "not positive semidefinite"
    )
    assert verdict(problem, Refusal(InstanceError(claim)), np.ones(n)) == "refused truly"
    other = "unbounded" if claim == "infeasible" else "infeasible"
    assert verdict(problem, Refusal(InstanceError(other)), np.ones(n)) == "refused falsely"


def test_a_gradient_that_does_not_exist_is_not_exact():
    problem = make("weak", 0)
    v = np.ones(problem.n)
    answer = ask(problem, DEFAULT, v)
    called = replace(answer, facts=answer.facts | {"gradient": "exact"})
    assert verdict(problem, called, v) == "wrong silently"


@pytest.mark.parametrize("kind", ["integers", "random", "contradictory", "unbounded", "strict"])
def test_truth_from_highs_is_that_of_the_construction(kind):
    for seed in range(30):
        problem = make(kind, seed)
        if problem.verdict and problem.gap > 1e-6:
            unknown = replace(problem, verdict="", active=None, z=None)
            assert truth.verdict(unknown) in (problem.verdict, "undecided"), seed


@pytest.mark.parametrize("condition", [1e2, 1e7, 1e10, 1e14, 1e20])
def test_systems_are_solved_beyond_float64(condition):
    rng = np.random.default_rng(0)
    row = rng.standard_normal(6)
    near = row + condition**-0.5 * rng.standard_normal(6)
    x, y = rng.integers(-4, 5, 6).astype(float), rng.integers(-4, 5, 2).astype(float)
    C = np.stack([row, near])
    system = truth.System(np.eye(6), C)
    wide = C.astype(truth.Wide)
    found = system.solve(np.concatenate([x + y @ wide, wide @ x]))
    np.testing.assert_allclose(found[:6].astype(float), x, atol=1e-9)


def test_every_kind_makes_the_same_problem_again():
    for kind in KINDS:
        one, other = make(kind, 7), make(kind, 7)
        problems = (
            (one, other) if isinstance(one, Problem) else (one.problems[0], other.problems[0])
        )
        for name in "PqAbGh":
            assert np.array_equal(
                getattr(problems[0], name), getattr(problems[1], name), equal_nan=True
            )


def misbehave(kind, seed, pair):
    """Hang, die, raise, or answer, by seed."""
    if seed == 1:
        time.sleep(60)
    if seed == 2:
        os._exit(3)
    if seed == 3:
        raise ZeroDivisionError
    return Finding("right")


def test_a_problem_that_hangs_or_dies_costs_itself_only():
    tasks = [(DEFAULT, "strict", range(5)), (DEFAULT, "lp", range(2))]
    found = {
        (kind, seed): outcome
        for _, kind, seed, (outcome, *_) in fuzz(tasks, jobs=2, limit=1.0, solve=misbehave)
    }
    strict = ["right", "timeout", "crash", "undecided", "right"]
    assert found == {
        **{("strict", seed): outcome for seed, outcome in enumerate(strict)},
        ("lp", 0): "right",
        ("lp", 1): "timeout",
    }


def test_the_other_solvers():
    for pair in PAIRS[1:]:
        # Alt-Diff calls no gradient exact.
        expected = "right, flagged" if pair == "alt-diff" else "right"
        assert run("strict", 0, pair).outcome == expected


def test_the_page_has_every_kind_and_the_sums():
    rows = [
        {"solvers": DEFAULT, "kind": kind, "outcomes": {"right": 2, "timeout": 1}} for kind in KINDS
    ]
    fault = {"solvers": DEFAULT, "kind": "lp", "seed": 5, "outcome": "timeout", "why": "a|b <c>"}
    result = {"command": "make fuzz", "commit": "0", "machine": "m", "seconds": 1, "limit": 9.0}
    text = page([result | {"counts": rows, "faults": [fault]}])
    assert f"| all | {3 * len(KINDS)} | {2 * len(KINDS)} |" in text
    assert "- lp, timeout: 5. The first: a\\|b &lt;c>" in text
    published = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"\n| {kind} | " in published
        assert f"- **{kind}**: " in published
