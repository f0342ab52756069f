"""References against closed forms and against mpmath with 50 digits."""

from __future__ import annotations

from itertools import product

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from bpqp_bench import Instance, Registry, SecondOrderCone, Size
from bpqp_bench.reference import compute_reference
from bpqp_bench.reference.extended import DD, ExactProduct

ALL = ("P", "q", "A", "b", "G", "h")
DIGITS = 50


def column(values):
    return mp.matrix([mp.mpf(float(x)) for x in values])


def solve_mp(instance, active, v):
    """Primal-dual solution and all gradients with 50 digits, written entry by entry."""
    n, neq = instance.n, instance.neq
    rows = np.vstack([instance.A, instance.G[active]])
    m = rows.shape[0]
    K = mp.zeros(n + m)
    for i in range(n):
        for j in range(n):
            K[i, j] = mp.mpf(float(instance.P[i, j]))
    for i in range(m):
        for j in range(n):
            K[n + i, j] = K[j, n + i] = mp.mpf(float(rows[i, j]))
    right = np.concatenate([-instance.q, instance.b, instance.h[active]])
    x = mp.lu_solve(K, column(right))
    w = mp.lu_solve(K, column(np.concatenate([-v, np.zeros(m)])))
    lam, adjoint_lam = [mp.mpf(0)] * instance.nineq, [mp.mpf(0)] * instance.nineq
    for k, i in enumerate(np.flatnonzero(active)):
        lam[i], adjoint_lam[i] = x[n + neq + k], w[n + neq + k]
    z, nu, zt, nut = x[:n], x[n : n + neq], w[:n], w[n : n + neq]

    def outer(a, b, c, d):
        return np.array(
            [
                [float(s * t + r * u) for t, u in zip(b, d, strict=True)]
                for s, r in zip(a, c, strict=True)
            ]
        ).reshape(len(a), n)

    gradients = {
        "P": outer([t / 2 for t in zt], z, [t / 2 for t in z], zt),
        "q": np.array([float(t) for t in zt]),
        "A": outer(nut, z, nu, zt),
        "b": np.array([-float(t) for t in nut]),
        "G": outer(adjoint_lam, z, lam, zt),
        "h": np.array([-float(t) for t in adjoint_lam]),
    }
    return list(z), list(nu), lam, gradients


def is_optimal_mp(instance, active):
    """Whether the KKT conditions hold with 50 digits on this active set."""
    if instance.neq + active.sum() > instance.n:
        return False
    z, _, lam, _ = solve_mp(instance, active, np.zeros(instance.n))
    if any(lam[i] <= 0 for i in np.flatnonzero(active)):
        return False
    return all(
        mp.fdot([mp.mpf(float(g)) for g in instance.G[i]], z) < mp.mpf(float(instance.h[i]))
        for i in np.flatnonzero(~active)
    )


def assert_close(actual, expected, digits=15):
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= 10.0**-digits * np.linalg.norm(expected)


def compare_with_mp(instance, reference, active, v):
    with mp.workdps(DIGITS):
        z, nu, lam, gradients = solve_mp(instance, active, v)
    assert_close(reference.z, np.array([float(t) for t in z]))
    assert_close(reference.nu, np.array([float(t) for t in nu]))
    assert_close(reference.lam, np.array([float(t) for t in lam]))
    for name in ALL:
        assert_close(reference.gradients[name], gradients[name])
    return gradients


def equality_qp(P, neq, rng):
    n = P.shape[0]
    return Instance(
        P=P,
        q=rng.standard_normal(n),
        A=rng.random((neq, n)),
        b=rng.random(neq),
        G=np.zeros((0, n)),
        h=np.zeros(0),
    )


@pytest.mark.parametrize("n", [1, 4, 12])
def test_equality_qp_of_the_paper_in_mpmath(n):
    rng = np.random.default_rng(n)
    root = rng.random((n, n))
    instance = equality_qp(root.T @ root + 1e-6 * np.eye(n), n // 3, rng)
    v = rng.standard_normal(n)
    reference = compute_reference(instance, v, ALL)
    compare_with_mp(instance, reference, np.zeros(0, dtype=bool), v)
    assert not reference.certificate.degenerate


def test_hilbert_matrix_of_condition_1e12_in_mpmath():
    P = scipy.linalg.hilbert(9)
    rng = np.random.default_rng(3)
    instance, v = equality_qp(P, 1, rng), rng.standard_normal(9)
    assert np.linalg.cond(P) > 1e11
    reference = compute_reference(instance, v, ALL)
    gradients = compare_with_mp(instance, reference, np.zeros(0, dtype=bool), v)
    # The test has teeth: plain float64 loses half of the digits here.
    K = np.block([[P, instance.A.T], [instance.A, np.zeros((1, 1))]])
    plain = np.linalg.solve(K, np.append(-v, 0.0))[:9]
    assert np.linalg.norm(plain - gradients["q"]) > 1e-12 * np.linalg.norm(gradients["q"])


@pytest.mark.parametrize("seed", range(2))
def test_lp_active_set_found_by_enumeration_in_mpmath(seed):
    instance = Registry().family("lp").draw(Size(8, 4), seed)
    v = np.random.default_rng(seed).standard_normal(8)
    with mp.workdps(30):
        optimal = [
            active
            for bits in product([False, True], repeat=4)
            if is_optimal_mp(instance, active := np.array(bits))
        ]
    assert len(optimal) == 1
    reference = compute_reference(instance, v, ALL)
    assert ((reference.lam > 0.0) == optimal[0]).all()
    assert reference.certificate.n_active == optimal[0].sum()
    compare_with_mp(instance, reference, optimal[0], v)
    assert np.linalg.norm(reference.gradients["q"]) > 1e4


@pytest.mark.parametrize("family", ["qp-active", "qp-active[condition=1e12]"])
def test_qp_with_active_rows_in_mpmath(family):
    instance = Registry().family(family).draw(Size(12, 4), 1)
    v = np.ones(12)
    reference = compute_reference(instance, v, ALL)
    assert reference.certificate.n_active == 2
    compare_with_mp(instance, reference, instance.planted.active, v)


def test_sparse_data_give_the_dense_gradient_on_their_pattern():
    dense = Registry().family("qp-active").draw(Size(12, 4), 2)
    sparse = Instance(
        P=sp.csc_matrix(dense.P),
        q=dense.q,
        A=sp.csc_matrix(np.where(np.abs(dense.A) > 0.1, dense.A, 0.0)),
        b=dense.b,
        G=sp.csc_matrix(dense.G),
        h=dense.h,
    )
    thinned = Instance(P=dense.P, q=dense.q, A=sparse.A.toarray(), b=dense.b, G=dense.G, h=dense.h)
    left, right = (compute_reference(i, np.ones(12), ALL) for i in (sparse, thinned))
    assert left.gradients["A"].nnz == sparse.A.nnz < dense.A.size
    pattern = thinned.A != 0.0
    assert_close(left.gradients["A"].toarray(), np.where(pattern, right.gradients["A"], 0.0))
    assert_close(left.gradients["P"].toarray(), right.gradients["P"])
    assert_close(left.gradients["h"], right.gradients["h"])


@pytest.mark.parametrize("n", [1, 2, 30])
def test_ball_closed_form_in_mpmath(n):
    instance = Registry().family("socp").draw(Size(n, 1), 5)
    v = np.random.default_rng(n).standard_normal(n)
    reference = compute_reference(instance, v, ("q", "P"))
    with mp.workdps(DIGITS):
        q, u = column(instance.q), column(v)
        c, norm = mp.mpf(float(instance.cones[0].d)), mp.norm(q)
        along = mp.fdot(q, u) / norm**2
        expected = np.array([float(-(c / norm) * (u[i] - q[i] * along)) for i in range(n)])
        z = np.array([float(-c * t / norm) for t in q])
    assert_close(reference.z, z)
    assert np.linalg.norm(reference.gradients["q"] - expected) <= 1e-15 * float(c / norm)
    symmetric = 0.5 * (np.outer(expected, z) + np.outer(z, expected))
    assert np.abs(reference.gradients["P"] - symmetric).max() <= 1e-14 * float(c / norm)
    assert reference.mu == pytest.approx([float(norm)], rel=1e-15)
    assert reference.certificate.residual < 1e-28


def test_ball_and_general_cones_agree():
    instance = Registry().family("socp").draw(Size(7, 1), 5)
    v = np.random.default_rng(0).standard_normal(7)
    closed = compute_reference(instance, v, ("q",))
    cone = instance.cones[0]
    # The same ball, scaled by three, is not recognized as one.
    scaled = SecondOrderCone(3.0 * np.eye(7), cone.g, cone.c, 3.0 * cone.d)
    general = compute_reference(
        Instance(
            P=instance.P,
            q=instance.q,
            A=instance.A,
            b=instance.b,
            G=instance.G,
            h=instance.h,
            cones=(scaled,),
            problem_class="socp",
        ),
        v,
        ("q",),
    )
    assert (closed.certificate.method, general.certificate.method) == (
        "closed form",
        "interior point",
    )
    assert_close(general.z, closed.z)
    assert_close(general.gradients["q"], closed.gradients["q"])


def test_planted_solutions_are_found():
    registry = Registry()
    for name in ("qp-active[active_share=1,condition=1e8]", "socp-robust", "socp"):
        instance = registry.family(name).draw(Size(20, 8), 0)
        reference = compute_reference(instance, np.ones(20))
        planted = instance.planted
        assert np.abs(reference.z - planted.z).max() < 1e-7
        multipliers = reference.mu if instance.cones else reference.lam
        assert ((multipliers > 0.0) == planted.active).all()
        residuals = instance.residuals(reference.z, reference.nu, reference.lam, reference.mu)
        assert max(residuals.primal, residuals.dual) < 1e-14


@pytest.mark.parametrize("n", [1, 5, 40])
def test_products_have_thirty_digits(n):
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, n)) * 10.0 ** rng.integers(-6, 6, (n, n))
    x = DD.of(rng.standard_normal(n)) + 1e-18 * rng.standard_normal(n)
    y = ExactProduct(matrix) @ x
    with mp.workdps(60):
        exact = mp.matrix(matrix.tolist()) * (column(x.hi) + column(x.lo))
        error = max(
            abs(mp.mpf(h) + mp.mpf(low) - e) for h, low, e in zip(y.hi, y.lo, exact, strict=True)
        )
    assert error <= 1e-30 * np.abs(matrix).max() * np.abs(x.hi).max()


def test_large_products_in_chunks_equal_small_ones():
    rng = np.random.default_rng(0)
    matrix = rng.random((1300, 1200))  # above the size whose slices are kept
    x = DD.of(rng.random(1200))
    whole, part = ExactProduct(matrix) @ x, ExactProduct(matrix[-3:].copy()) @ x
    assert np.abs((whole[-3:] - part).hi).max() <= 1e-28
