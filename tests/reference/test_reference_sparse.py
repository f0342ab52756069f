"""The sparse reference against mpmath, the dense reference, planted solutions and linprog."""

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from bpqp_bench import Instance, Registry, Size
from bpqp_bench.reference import NoReferenceError, compute_reference
from bpqp_bench.reference.compute import as_quadratic
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.qp_active_set import solve_quadratic
from bpqp_bench.reference.qp_sparse import solve_sparse
from bpqp_bench.reference.sparse import SparseExactProduct, SparseKKTSystem

REGISTRY = Registry()


def instance_of(P, q, A, b, G, h, kind="qp"):
    n = len(q)
    matrices = (np.asarray(M, dtype=float).reshape(-1, n) for M in (P, A, G))
    P, A, G = (sp.csc_matrix(M) for M in matrices)
    return Instance(P, np.array(q, float), A, np.array(b, float), G, np.array(h, float), (), kind)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), density=st.floats(0.05, 1.0))
def test_products_have_30_digits(seed, density):
    rng = np.random.default_rng(seed)
    M = sp.random(17, 23, density, random_state=rng, data_rvs=rng.standard_normal).tocsr()
    M.data *= 10.0 ** rng.integers(-8, 9, M.nnz)
    x = DD(rng.standard_normal(23), 1e-17 * rng.standard_normal(23))
    found = SparseExactProduct(M) @ x
    mp.mp.dps = 60
    dense = M.toarray()
    for i in range(17):
        terms = [mp.mpf(dense[i, j]) * (mp.mpf(x.hi[j]) + mp.mpf(x.lo[j])) for j in range(23)]
        error = mp.fsum([mp.mpf(found.hi[i]), mp.mpf(found.lo[i]), *(-t for t in terms)])
        assert abs(error) <= mp.mpf(10) ** -30 * mp.fsum([abs(t) for t in terms])


def test_null_dimensions_are_counted():
    """Two repeated rows and one variable in no term: dimensions 2 and 1."""
    rng = np.random.default_rng(0)
    C = rng.standard_normal((6, 20))
    C[4], C[5] = C[0], -2.0 * C[1]
    C[:, 7] = 0.0
    H = np.eye(20)
    H[7, 7] = 0.0
    system = SparseKKTSystem(sp.csr_matrix(H), sp.csr_matrix(C))
    assert (system.primal_null, system.dual_null) == (1, 2)


@pytest.mark.parametrize("exponent", [0, 4, 8, 11])
def test_ill_conditioned_systems_are_refined_to_the_end(exponent):
    rng = np.random.default_rng(exponent)
    H = np.diag(10.0 ** -np.linspace(0, exponent, 12))
    C = rng.standard_normal((3, 12))
    system = SparseKKTSystem(sp.csr_matrix(H), sp.csr_matrix(C))
    rhs = rng.standard_normal(15)
    refined = system.refine(DD.of(rhs))
    mp.mp.dps = 60
    K = np.block([[H, C.T], [C, np.zeros((3, 3))]])
    exact = mp.lu_solve(mp.matrix(K.tolist()), mp.matrix(rhs.tolist()))
    assert (system.primal_null, system.dual_null) == (0, 0)
    for i in range(15):
        error = abs(mp.mpf(refined.x.hi[i]) + mp.mpf(refined.x.lo[i]) - exact[i])
        assert error <= 1e-20 * max(abs(e) for e in exact)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "spec", ["qp-active[density=0.3]", "qp-active[condition=1e6,density=0.1]", "lp", "osqp-class"]
)
def test_sparse_and_dense_references_are_the_same(spec, seed):
    choice = REGISTRY.family(spec)
    instance = choice.draw(choice.size or Size(40, 15), seed)
    dense, sparse = solve_quadratic(as_quadratic(instance)), solve_sparse(instance)
    assert np.array_equal(dense.active, sparse.active)
    scale = np.abs(dense.z.hi).max()
    assert np.abs(dense.z.hi - sparse.z.hi).max() <= 1e-15 * scale
    assert sparse.margin == pytest.approx(dense.margin, rel=1e-6)
    assert sparse.reasons() == dense.reasons()


@pytest.mark.parametrize("seed", range(3))
def test_planted_solutions_are_found(seed):
    instance = REGISTRY.family("qp-active[density=0.02]").draw(Size(400, 150), seed)
    found = compute_reference(instance, instance.loss_gradient)
    assert found.certificate.method == "sparse active set"
    assert not found.certificate.degenerate
    assert found.z == pytest.approx(instance.planted.z, abs=1e-12)
    assert found.lam == pytest.approx(instance.planted.lam, abs=1e-11)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_degenerate_vertices_are_solved_and_marked(seed):
    """More rows than variables meet at the optimum of an LP with integer data."""
    rng = np.random.default_rng(seed)
    n, m = 6, 30
    G = rng.integers(-3, 4, (m, n)).astype(float)
    z = rng.integers(-3, 4, n).astype(float)
    tight = rng.random(m) < 0.6
    lam = np.where(tight, rng.integers(0, 3, m), 0).astype(float)
    instance = instance_of(
        np.zeros((n, n)),
        -G.T @ lam,
        np.zeros((0, n)),
        [],
        G,
        G @ z + np.where(tight, 0.0, 5.0),
        "lp",
    )
    point = solve_sparse(instance)
    truth = linprog(instance.q, G, instance.h, bounds=(None, None), method="highs")
    assert instance.objective(point.z.hi) == pytest.approx(truth.fun, abs=1e-9)
    found = instance.residuals(point.z.hi, point.nu.hi, point.lam.hi)
    assert max(found.primal, found.dual, found.complementarity) <= 1e-12
    assert point.fault == 0.0 or point.reasons()


def test_a_weakly_active_row_is_marked():
    instance = instance_of(
        2.0 * np.eye(2), [-2.0, 0.0], np.zeros((0, 2)), [], [[1.0, 0.0], [0.0, 1.0]], [1.0, 5.0]
    )
    point = solve_sparse(instance)
    assert point.z.hi == pytest.approx([1.0, 0.0], abs=1e-30)
    assert any("weakly active" in reason for reason in point.reasons())


def test_a_free_direction_is_marked():
    instance = instance_of(
        np.diag([1.0, 0.0]),
        [-1.0, 0.0],
        np.zeros((0, 2)),
        [],
        [[0.0, 1.0], [0.0, -1.0]],
        [1.0, 1.0],
    )
    reasons = solve_sparse(instance).reasons()
    assert any("solution not unique (1 free" in reason for reason in reasons)


def test_negative_curvature_is_not_overlooked():
    instance = instance_of(
        np.diag([1.0, -1e-3]),
        [0.0, 0.0],
        np.zeros((0, 2)),
        [],
        [[0.0, 1.0], [0.0, -1.0]],
        [1.0, 1.0],
    )
    with pytest.raises(NoReferenceError, match="not convex") as caught:
        solve_sparse(instance)
    assert caught.value.cause == "not-convex"


@pytest.mark.parametrize(
    ("q", "h", "cause"),
    [(np.full(60, -1.0), np.full(60, -1.0), "infeasible"), (np.full(60, 1.0), None, "unbounded")],
)
def test_sparse_problems_without_a_solution_have_a_proof(q, h, cause):
    n = q.size
    lower = -np.eye(n) if h is not None else np.eye(n)
    G = np.vstack([np.eye(n), lower])
    right = np.concatenate([np.zeros(n), np.zeros(n) if h is None else h])
    instance = instance_of(np.zeros((n, n)), q, np.zeros((0, n)), [], G, right, "lp")
    with pytest.raises(NoReferenceError) as caught:
        compute_reference(instance, np.ones(n))
    assert caught.value.cause == cause
