"""Direct solution of the KKT system against 50-digit arithmetic, and on singular systems."""

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp

from bpqp_bench.layers.kkt import factorize_kkt, independent_rows


def exact_solution(P, C, r, s):
    """Solve in 50 digits."""
    n, p = P.shape[0], C.shape[0]
    K = np.block([[P, C.T], [C, np.zeros((p, p))]])
    with mpmath.workdps(50):
        w = mpmath.lu_solve(mpmath.matrix(K.tolist()), mpmath.matrix([*r, *s]))
    return np.array([float(x) for x in w])[:n], np.array([float(x) for x in w])[n:]


def draw(n, p, condition=1e3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    P = scale * (Q * condition ** -np.linspace(0, 1, n)) @ Q.T
    return 0.5 * (P + P.T), rng.random((p, n)), rng.standard_normal(n), rng.standard_normal(p)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("n", "p", "condition", "scale"),
    [(8, 0, 1e3, 1.0), (8, 3, 1e3, 1.0), (8, 8, 1e2, 1.0), (8, 3, 1e9, 1.0), (8, 3, 1.0, 2e-6)],
)
def test_agrees_with_fifty_digits(n, p, condition, scale, sparse):
    P, C, r, s = draw(n, p, condition, scale)
    x, y = exact_solution(P, C, r, s)
    data = (sp.csc_matrix(P), sp.csc_matrix(C)) if sparse else (P, C)
    found = factorize_kkt(*data).solve(r, s)
    error = 1e-15 * max(condition, 1e2) * 10
    assert np.linalg.norm(found.x - x) <= error * np.linalg.norm(x)
    assert np.linalg.norm(found.y - y) <= error * max(np.linalg.norm(y), scale)
    assert not found.least_squares


def test_ways_are_chosen_by_what_the_matrix_allows():
    P, C, r, s = draw(8, 3)
    assert factorize_kkt(P, C).how == "cholesky"
    P[:, 0] = P[0, :] = 0.0  # singular, but not on the null space of C
    factor = factorize_kkt(P, C)
    assert factor.how == "symmetric indefinite"
    x, y = exact_solution(P, C, r, s)
    found = factor.solve(r, s)
    np.testing.assert_allclose(found.x, x, rtol=1e-9)
    np.testing.assert_allclose(found.y, y, rtol=1e-9)
    assert not found.least_squares
    assert factorize_kkt(P, np.concatenate([C, C[:1]])).how == "least squares"


@pytest.mark.parametrize("sparse", [False, True])
def test_dependent_rows_leave_x_alone_and_give_the_shortest_multipliers(sparse):
    P, C, r, _ = draw(8, 3)
    C /= np.linalg.norm(C, axis=1)[:, None]
    x, y = exact_solution(P, C, r, np.zeros(3))
    twice = np.concatenate([C, C[:1]])
    data = (sp.csc_matrix(P), sp.csc_matrix(twice)) if sparse else (P, twice)
    found = factorize_kkt(*data).solve(r)
    assert found.least_squares
    np.testing.assert_allclose(found.x, x, rtol=1e-7, atol=1e-9)
    # The two equal rows share the multiplier evenly.
    np.testing.assert_allclose(found.y, [y[0] / 2, y[1], y[2], y[0] / 2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_flat_directions_give_the_shortest_solution(sparse):
    # minimize ½x₁² + rᵀx in three variables, r without a component in the flat ones: x₂ = x₃ = 0.
    P, C, r = np.diag([1.0, 0.0, 0.0]), np.zeros((0, 3)), np.array([2.0, 0.0, 0.0])
    data = (sp.csc_matrix(P), sp.csc_matrix(C)) if sparse else (P, C)
    found = factorize_kkt(*data).solve(r)
    assert found.least_squares
    np.testing.assert_allclose(found.x, [2.0, 0.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_an_unsolvable_system_stays_finite(sparse):
    P, C, r = np.diag([1.0, 0.0, 0.0]), np.zeros((0, 3)), np.array([2.0, 1.0, 0.0])
    data = (sp.csc_matrix(P), sp.csc_matrix(C)) if sparse else (P, C)
    found = factorize_kkt(*data).solve(r)
    assert found.least_squares
    assert np.isfinite(found.x).all()


def test_zeros_everywhere():
    found = factorize_kkt(np.zeros((3, 3)), np.zeros((2, 3))).solve(np.ones(3))
    assert found.least_squares
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.y).all()


def test_independent_rows_are_independent_and_enough():
    C = draw(8, 4)[1]
    rows = np.concatenate([C, C[:2], C[:1] + C[1:2]])
    kept = independent_rows(rows)
    assert len(kept) == 4
    assert np.linalg.matrix_rank(rows[kept]) == 4


def test_minres_agrees_with_a_factorization():
    P, C, r, s = (sp.csc_matrix(part) if part.ndim == 2 else part for part in draw(30, 8))
    direct, iterative = factorize_kkt(P, C), factorize_kkt(P, C, iterative=True)
    one, other = direct.solve(r, s), iterative.solve(r, s)
    assert iterative.how == "minres"
    np.testing.assert_allclose(other.x, one.x, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(other.y, one.y, rtol=1e-8, atol=1e-10)
    assert not other.least_squares
