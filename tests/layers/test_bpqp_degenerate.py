"""Degenerate active sets: a documented gradient with a flag, never NaN, never an exception."""

import numpy as np
import pytest
import torch

from bpqp_bench.layers import BPQP
from bpqp_bench.layers.qp_solvers import SOLVERS

PAIRS = [("osqp", "osqp"), ("osqp", "direct"), ("proxqp", "direct"), ("piqp", "proxqp")]


def solve(layer, *data):
    """Return z*, the gradients of Σ z*ᵢ i and the flag."""
    given = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in data]
    z = layer(*given)
    (z * torch.arange(1.0, len(z) + 1)).sum().backward()
    return z.detach().numpy(), [part.grad.numpy() for part in given], layer.last_info[0]


def problem(seed=0):
    """Draw a QP in 5 variables with two binding rows and an equality."""
    rng = np.random.default_rng(seed)
    root, A, G = (rng.standard_normal(s) for s in ((5, 5), (1, 5), (3, 5)))
    P, z = root.T @ root + np.eye(5), rng.standard_normal(5)
    q = -P @ z - A.T @ [0.7] - G.T @ [0.8, 0.6, 0.0]
    return P, q, A, A @ z, G, G @ z + [0.0, 0.0, 1.0]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_row_that_repeats_changes_nothing_but_its_own_multipliers(pair):
    P, q, A, b, G, h = problem()
    z, plain, info = solve(BPQP(*pair, eps_abs=1e-9, eps_rel=1e-9), P, q, A, b, G, h)
    assert info["gradient"] == "exact"
    twice = np.concatenate([G, 2 * G[:1]]), np.append(h, 2 * h[0])
    same, found, info = solve(BPQP(*pair, eps_abs=1e-9, eps_rel=1e-9), P, q, A, b, *twice)
    np.testing.assert_allclose(same, z, atol=1e-8)
    for i in range(4):
        np.testing.assert_allclose(found[i], plain[i], atol=1e-6)
    assert all(np.isfinite(part).all() for part in found)
    # Moving both rows together is moving the one: the derivatives add up.
    np.testing.assert_allclose(found[5][0] + 2 * found[5][3], plain[5][0], atol=1e-6)
    if pair[1] == "direct":
        assert info["gradient"] == "least-squares"


@pytest.mark.parametrize("name", SOLVERS)
def test_redundant_equalities_in_the_backward_pass_of_any_solver(name):
    from bpqp_bench.layers.backward import adjoint_qp
    from bpqp_bench.layers.kkt import factorize_kkt
    from bpqp_bench.layers.settings import Settings

    P, q, A, _, G, _ = problem()
    C = np.concatenate([A, G[:2], A, G[:1] + G[1:2]])
    settings = Settings(backward=name, eps_abs=1e-9, eps_rel=1e-9)
    found, _ = adjoint_qp(P, C, q, settings)
    exact = factorize_kkt(P, np.concatenate([A, G[:2]])).solve(-q)
    tolerance = 1e-4 if name == "highs" else 1e-6
    np.testing.assert_allclose(found.z, exact.x, atol=tolerance)
    np.testing.assert_allclose(C.T @ found.nu, -q - P @ exact.x, atol=10 * tolerance)


@pytest.mark.parametrize("pair", [("osqp", "osqp"), ("osqp", "direct"), ("clarabel", "direct")])
def test_redundant_equalities(pair):
    P, q, A, b, G, h = problem()
    z, plain, _ = solve(BPQP(*pair), P, q, A, b, G, h)
    same, found, info = solve(BPQP(*pair), P, q, np.tile(A, (2, 1)), np.tile(b, 2), G, h)
    np.testing.assert_allclose(same, z, atol=1e-8)
    np.testing.assert_allclose(found[1], plain[1], atol=1e-6)
    np.testing.assert_allclose(found[3].sum(), plain[3][0], atol=1e-6)
    if pair[1] == "direct":
        assert info["gradient"] == "least-squares"
        np.testing.assert_allclose(found[3][0], found[3][1], atol=1e-9)  # least norm: in halves


@pytest.mark.parametrize("pair", PAIRS)
def test_a_weakly_active_row_gives_the_derivative_of_one_side(pair):
    P, q, A, b, G, h = problem()
    z = solve(BPQP("daqp", "direct"), P, q, A, b, G, h)[0]
    h = h.copy()
    h[2] = G[2] @ z  # binds with multiplier zero
    layer = BPQP(*pair, eps_abs=1e-9, eps_rel=1e-9)
    _, found, info = solve(layer, P, q, A, b, G, h)
    assert info["gradient"] == "one-sided"
    assert info["weakly_active_rows"] == 1
    with_row = solve(layer, P, q, np.concatenate([A, G]), np.append(b, h), G[:0], h[:0])[1][1]
    without = solve(layer, P, q, np.concatenate([A, G[:2]]), np.append(b, h[:2]), G[:0], h[:0])
    distances = [np.abs(found[1] - side).max() for side in (with_row, without[1][1])]
    assert min(distances) < 1e-6


def test_more_binding_rows_than_variables():
    # The corner of four half-planes in the plane; z* does not move with q.
    G = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    P, q, A, b, h = np.eye(2), np.array([-3.0, -3.0]), np.zeros((0, 2)), np.zeros(0), G.sum(axis=1)
    for pair in PAIRS:
        z, found, info = solve(BPQP(*pair, eps_abs=1e-9, eps_rel=1e-9), P, q, A, b, G, h)
        np.testing.assert_allclose(z, [1.0, 1.0], atol=1e-7)
        assert all(np.isfinite(part).all() for part in found)
        if info["active_rows"] == 4:
            np.testing.assert_allclose(found[1], 0.0, atol=1e-6)


def test_a_flat_objective_gives_the_shortest_gradient():
    # P has no curvature along z₃ and nothing holds it: one solution of many.
    P, q = np.diag([1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])
    none = np.zeros((0, 3)), np.zeros(0)
    for pair in (("osqp", "direct"), ("proxqp", "direct")):
        _, found, info = solve(BPQP(*pair), P, q, *none, *none)
        assert info["gradient"] == "least-squares"
        np.testing.assert_allclose(found[1], [-1.0, -2.0, 0.0], atol=1e-9)


def test_a_linear_program_at_a_vertex_has_no_gradient_in_q():
    G = np.concatenate([np.eye(3), -np.eye(3)])
    P, q, A, b, h = np.zeros((3, 3)), np.array([1.0, -2.0, 3.0]), np.zeros((0, 3)), [], np.ones(6)
    for pair in (("osqp", "direct"), ("osqp", "osqp"), ("clarabel", "direct"), ("highs", "direct")):
        z, found, info = solve(BPQP(*pair), P, q, A, b, G, h)
        np.testing.assert_allclose(z, [-1.0, 1.0, -1.0], atol=1e-7)
        np.testing.assert_allclose(found[1], 0.0, atol=1e-7)
        assert info["gradient"] == "exact"
