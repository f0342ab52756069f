"""The residual of the KKT conditions, each over the size of its own terms."""

import numpy as np
import pytest

from bpqp_bench.layers.problem import ConvexQP, QPSolution, componentwise_residual


def residual(z, nu=(), lam=(), **given):
    n = len(z)
    data = {
        "A": np.zeros((0, n)),
        "b": np.zeros(0),
        "G": np.zeros((0, n)),
        "h": np.zeros(0),
    } | given
    qp = ConvexQP(np.eye(n), -np.arange(1.0, n + 1.0), **data)
    parts = (np.array(part, dtype=float) for part in (z, nu, lam))
    return componentwise_residual(qp, QPSolution(*parts, np.zeros(0), "solved", None, 0.0, 0.0))


def test_rounding_of_a_variable_that_is_fixed_at_zero_is_no_violation():
    # As in TORSION1 of CUTEst: all equalities fix variables at zero.
    fixed = {"A": np.array([[1.0, 0.0]]), "b": np.zeros(1)}
    assert residual([1e-17, 2.0], nu=[1.0], **fixed) <= 1e-8
    assert residual([1e-6, 2.0], nu=[1.0], **fixed) == pytest.approx(1.0)


def test_a_small_condition_is_not_hidden_by_a_large_one():
    # Row 1 is off by a thousandth of its own terms, which are a millionth of those of row 2.
    rows = {"A": np.array([[1.0, 0.0], [0.0, 1e6]]), "b": np.array([1.0, 2e6])}
    assert residual([1.001, 2.0], nu=[-0.001, 0.0], **rows) == pytest.approx(0.001 / 2.001)


def test_forces_and_complementarity_count():
    upper = {"G": np.eye(2), "h": np.array([0.5, 5.0])}
    assert residual([0.5, 2.0], lam=[0.5, 0.0], **upper) == 0.0
    assert residual([0.5, 2.0], lam=[0.4, 0.0], **upper) == pytest.approx(0.1 / 1.9)
    # A multiplier of 0.1 on a row with slack 3 moves the force, too.
    assert residual([0.5, 1.9], lam=[0.5, 0.1], **upper) == pytest.approx(0.31 / (6.9 * 0.5))
    assert residual([np.nan, 2.0], lam=[0.5, 0.0], **upper) == np.inf
