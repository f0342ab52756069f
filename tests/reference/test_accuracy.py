"""Accuracy of gradients and solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from bpqp_bench import Registry, Size, Solution
from bpqp_bench.reference import compute_reference
from bpqp_bench.reference.accuracy import gradient_accuracy, solution_accuracy


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-6, 1e-3, 1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e150])
def test_small_angles_are_told_apart(angle, scale):
    # In float64 1 − cos(1e-9) is 0; here it is 5e-19.
    reference = scale * np.array([1.0, 0.0, 0.0])
    gradient = 7.0 * scale * np.array([math.cos(angle), 0.0, math.sin(angle)])
    accuracy = gradient_accuracy(gradient, reference)
    assert accuracy.one_minus_cos == pytest.approx(2.0 * math.sin(angle / 2) ** 2, rel=1e-9)
    assert accuracy.norm == pytest.approx(scale)


def test_errors_are_relative_and_absolute():
    accuracy = gradient_accuracy(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    assert accuracy.l2 == pytest.approx(0.5)
    assert accuracy.norm == pytest.approx(5.0)
    assert accuracy.rel_l2 == pytest.approx(0.1)


def test_random_gradients_agree_with_the_textbook_formula():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 4))
    cos = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert gradient_accuracy(a, b).one_minus_cos == pytest.approx(1.0 - cos, rel=1e-12)


def test_zero_gradients():
    zero, other = np.zeros(3), np.ones(3)
    both = gradient_accuracy(zero, zero)
    assert (both.one_minus_cos, both.rel_l2, both.l2, both.norm) == (0.0, 0.0, 0.0, 0.0)
    missing = gradient_accuracy(zero, other)
    assert (missing.one_minus_cos, missing.rel_l2) == (1.0, 1.0)
    invented = gradient_accuracy(other, zero)
    assert (invented.one_minus_cos, invented.rel_l2) == (1.0, math.inf)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_give_nan(bad):
    for pair in ((np.array([1.0, bad]), np.ones(2)), (np.ones(2), np.array([1.0, bad]))):
        assert math.isnan(gradient_accuracy(*pair).one_minus_cos)
        assert math.isnan(gradient_accuracy(*pair).rel_l2)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        gradient_accuracy(np.ones(3), np.ones((3, 1)))


def test_empty_gradients_agree():
    assert gradient_accuracy(np.zeros((0, 3)), np.zeros((0, 3))).one_minus_cos == 0.0


def test_a_sparse_reference_is_compared_on_its_pattern():
    dense = np.arange(1.0, 7.0).reshape(2, 3)
    pattern = sp.csc_matrix(([1.0, 6.0], ([0, 1], [0, 2])), shape=(2, 3))
    for gradient in (dense, sp.csc_matrix(dense), sp.csr_matrix(pattern)):
        accuracy = gradient_accuracy(gradient, pattern)
        assert accuracy.l2 == 0.0
        assert accuracy.norm == pytest.approx(math.sqrt(37.0))
    # an entry that the method left out counts as zero
    part = sp.csc_matrix(([1.0], ([0], [0])), shape=(2, 3))
    assert gradient_accuracy(part, pattern).l2 == pytest.approx(6.0)
    assert gradient_accuracy(part, pattern.toarray()).l2 == pytest.approx(6.0)


def test_solution_accuracy():
    instance = Registry().family("qp-active").draw(Size(12, 4), 0)
    reference = compute_reference(instance, np.ones(12))
    exact = Solution(z=reference.z, nu=reference.nu, lam=reference.lam)
    facts = solution_accuracy(instance, exact, reference)
    assert set(facts) == {
        "primal_residual",
        "dual_residual",
        "complementarity",
        "objective_gap",
        "solution_error",
    }
    assert all(0.0 <= value < 1e-14 for value in facts.values())

    direction = np.random.default_rng(0).standard_normal(12)
    moved = Solution(z=reference.z + 1e-9 * direction)
    facts = solution_accuracy(instance, moved, reference)
    length = np.linalg.norm(reference.z)
    assert facts["solution_error"] == pytest.approx(
        1e-9 * np.linalg.norm(direction) / length, rel=1e-6
    )
    slope = 1e-9 * abs((instance.P @ reference.z + instance.q) @ direction)
    assert facts["objective_gap"] == pytest.approx(slope / (1 + abs(reference.objective)), rel=1e-5)
    assert facts["dual_residual"] == facts["complementarity"] == math.inf
    assert 0.0 < facts["primal_residual"] < 1e-7
