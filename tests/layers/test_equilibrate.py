"""Units of a problem's own."""

import numpy as np
import pytest

from bpqp_bench.layers.equilibrate import equilibrate
from bpqp_bench.layers.problem import ConvexQP


def problem(sides):
    m = len(sides)
    return ConvexQP(np.eye(2), np.ones(2), np.zeros((0, 2)), np.zeros(0), np.ones((m, 2)), sides)


@pytest.mark.parametrize("zeros", [1, 20])
def test_a_zero_that_was_computed_is_no_length(zeros):
    real = [0.5, 3.0, 700.0]
    exact, _ = equilibrate(problem(np.array([*real, *([0.0] * zeros)])))
    noisy, _ = equilibrate(problem(np.array([*real, *([1e-16] * zeros)])))
    assert np.array_equal(exact.P, noisy.P)
    assert np.array_equal(exact.q, noisy.q)
    assert np.array_equal(exact.h[:3], noisy.h[:3])


def test_small_sides_do_not_set_the_length_of_large_ones():
    # As in QSHARE1B: most are 1e-4, which no point is near to that meets the others.
    qp, scaling = equilibrate(problem(np.array([1e-4] * 6 + [200.0, 500.0, 3000.0])))
    assert np.abs(qp.h).max() < 100.0
    assert scaling.columns.min() > 1.0


def test_a_bound_that_means_none_is_no_length():
    real = np.array([-0.5, 3.0, 700.0])
    plain, _ = equilibrate(problem(real))
    wide, _ = equilibrate(problem(np.array([*real, 1e12, 1e20, 1e20, 1e300])))
    assert np.array_equal(plain.P, wide.P)
    assert np.array_equal(plain.q, wide.q)
    assert np.array_equal(plain.h, wide.h[:3])


def test_curvature_is_seen_beside_rows_that_are_near():
    # The solution is 1e12 times as far away as the row that it is free of.
    qp, _ = equilibrate(
        ConvexQP(
            np.array([[1.0]]),
            np.array([1e6]),
            np.zeros((0, 1)),
            np.zeros(0),
            np.ones((1, 1)),
            np.array([1e-6]),
        )
    )
    assert qp.P[0, 0] >= 1e-7
