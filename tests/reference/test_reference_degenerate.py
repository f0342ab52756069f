"""Instances without a gradient are marked; instances without a solution are clear errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from bpqp_bench import Instance, Registry, SecondOrderCone, Size
from bpqp_bench.errors import BenchError
from bpqp_bench.reference import NoReferenceError, compute_reference


def make(P, q, A=None, b=None, G=None, h=None, cones=()):
    n = len(q)
    return Instance(
        P=np.asarray(P, dtype=float),
        q=np.asarray(q, dtype=float),
        A=np.zeros((0, n)) if A is None else np.asarray(A, dtype=float),
        b=np.zeros(0) if b is None else np.asarray(b, dtype=float),
        G=np.zeros((0, n)) if G is None else np.asarray(G, dtype=float),
        h=np.zeros(0) if h is None else np.asarray(h, dtype=float),
        cones=cones,
        problem_class="socp" if cones else "qp",
    )


def reference_of(instance):
    return compute_reference(instance, np.ones(instance.n))


def test_weakly_active_constraint():
    # The unconstrained minimum (0.3, 0.7) lies on the boundary z₁ ≤ 0.3.
    reference = reference_of(make(np.eye(2), [-0.3, -0.7], G=[[1.0, 0.0]], h=[0.3]))
    certificate = reference.certificate
    assert certificate.degenerate
    assert "weakly active" in certificate.why
    assert certificate.margin < 1e-15
    assert np.isfinite(reference.gradients["q"]).all()
    assert reference.summary().degenerate


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_small_margin_is_not_degenerate(side):
    # 1e-9 to either side of weakly active the gradient exists and is what that side says.
    reference = reference_of(make(np.eye(2), [-0.3, -0.7], G=[[1.0, 0.0]], h=[0.3 + side * 1e-9]))
    assert not reference.certificate.degenerate
    assert reference.certificate.n_active == (side < 0)
    assert 1e-10 < reference.certificate.margin < 1e-8
    assert np.allclose(reference.gradients["q"], [-1.0 if side > 0 else 0.0, -1.0], atol=1e-15)


def test_dense_qp_with_a_planted_weakly_active_row():
    rng = np.random.default_rng(0)
    n = 12
    root = rng.standard_normal((n, n))
    P, G, z = root @ root.T, rng.standard_normal((5, n)), rng.standard_normal(n)
    lam = np.array([0.5, 0.0, 0.7, 0.0, 0.0])
    slack = np.array([0.0, 0.0, 0.0, 0.3, 0.6])
    reference = reference_of(make(P, -P @ z - G.T @ lam, G=G, h=G @ z + slack))
    assert reference.certificate.degenerate
    assert "weakly active" in reference.certificate.why
    assert np.abs(reference.z - z).max() < 1e-12


def test_duplicate_active_rows():
    G = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    reference = reference_of(make(np.eye(2), [-1.0, -1.0], G=G, h=[0.5, 0.5, 5.0]))
    certificate = reference.certificate
    assert certificate.degenerate
    assert "linearly dependent (1 too many)" in certificate.why
    assert np.isinf(certificate.condition)
    assert np.allclose(reference.z, [0.5, 1.0], atol=1e-15)
    # z* and its derivative along the rows that both copies share are still unique
    assert np.allclose(reference.gradients["q"], [0.0, -1.0], atol=1e-12)


def test_redundant_equalities():
    A = [[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]
    reference = reference_of(make(np.eye(3), [0.0, 1.0, 1.0], A=A, b=[1.0, 2.0]))
    assert reference.certificate.degenerate
    assert "linearly dependent" in reference.certificate.why
    assert np.allclose(reference.z, [1.0, 0.0, -1.0], atol=1e-14)


def test_overdetermined_vertex():
    # Three rows meet in the corner (1, 1) of the plane.
    G = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    reference = reference_of(make(np.zeros((2, 2)), [-1.0, -1.5], G=G, h=[1.0, 1.0, 2.0, 0.0, 0.0]))
    assert reference.certificate.degenerate
    assert np.allclose(reference.z, [1.0, 1.0], atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_overdetermined_vertex_with_rounded_data(seed):
    # Four equalities and two or more active rows through one point of R⁵, up to rounding.
    instance = Registry().family("lp[eps=0]").draw(Size(5, 4), seed)
    assert instance.planted.active.sum() >= 2
    reference = reference_of(instance)
    assert reference.certificate.degenerate
    assert "linearly dependent" in reference.certificate.why
    assert np.abs(reference.z - instance.planted.z).max() < 1e-12


def test_lp_whose_solution_is_not_unique():
    G = np.vstack([np.eye(2), -np.eye(2)])
    reference = reference_of(make(np.zeros((2, 2)), [1.0, 0.0], G=G, h=[1.0, 1.0, 0.0, 0.0]))
    assert reference.certificate.degenerate
    assert "not unique (1 free" in reference.certificate.why
    assert np.isnan(reference.gradients["q"]).all()
    assert reference.objective == pytest.approx(0.0, abs=1e-9)


def test_qp_flat_along_a_feasible_line():
    reference = reference_of(make([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0]))
    assert reference.certificate.degenerate
    assert "not unique" in reference.certificate.why


def test_tip_of_a_cone():
    # min z₃ + 0.1 z₁ over ‖(z₁, z₂)‖ ≤ z₃ is attained at the tip only.
    cone = SecondOrderCone(np.eye(3)[:2], np.zeros(2), np.eye(3)[2], 0.0)
    reference = reference_of(make(np.zeros((3, 3)), [0.1, 0.0, 1.0], cones=(cone,)))
    assert reference.certificate.degenerate
    assert "tip" in reference.certificate.why
    assert np.abs(reference.z).max() < 1e-6
    assert np.isnan(reference.gradients["q"]).all()


def test_weakly_active_cone():
    # The unconstrained minimum (0.6, 0.8) lies on the unit sphere.
    ball = SecondOrderCone(np.eye(2), np.zeros(2), np.zeros(2), 1.0)
    reference = reference_of(make(np.eye(2), [-0.6, -0.8], cones=(ball,)))
    assert reference.certificate.degenerate
    assert "weakly active" in reference.certificate.why


@pytest.mark.parametrize(("q", "radius"), [([0.0, 0.0], 1.0), ([1.0, 2.0], 0.0)])
def test_degenerate_balls(q, radius):
    ball = SecondOrderCone(np.eye(2), np.zeros(2), np.zeros(2), radius)
    reference = reference_of(make(np.zeros((2, 2)), q, cones=(ball,)))
    assert reference.certificate.degenerate
    assert np.isnan(reference.gradients["q"]).all()


EYE = np.eye(2)
UNIT_BALL = SecondOrderCone(EYE, np.zeros(2), np.zeros(2), 1.0)


@pytest.mark.parametrize(
    ("instance", "cause"),
    [
        (make(EYE, [1, 1], G=[[1, 0], [-1, 0]], h=[-1, -1]), "infeasible"),
        (make(EYE, [1, 1], A=[[1, 1], [1, 1]], b=[0, 1]), "infeasible"),
        (make(EYE, [1, 1], A=[[1, 1]], b=[5], G=[[1, 0], [0, 1]], h=[1, 1]), "infeasible"),
        (make(EYE * 0, [1, 0], G=[[1, 0], [-1, 0]], h=[-1, -1]), "infeasible"),
        (make(EYE, [1, 1], A=[[1, 0]], b=[3], cones=(UNIT_BALL,)), "infeasible"),
        (make(EYE * 0, [1, 1], G=[[1, 0], [0, 1]], h=[1, 1]), "unbounded"),
        (make(EYE * 0, [1, 1], A=[[1, 0]], b=[1]), "unbounded"),
        (make(EYE * 0, [1, 1]), "unbounded"),
        (make([[1, 0], [0, -1]], [1, 1], A=[[1, 0]], b=[1]), "not-convex"),
        (make([[1, 0.5], [0, 1]], [1, 1]), "input"),
    ],
)
def test_no_reference(instance, cause):
    with pytest.raises(NoReferenceError, match=instance.name) as caught:
        reference_of(instance)
    assert caught.value.cause == cause
    assert isinstance(caught.value, BenchError)
    assert "\n" not in str(caught.value)


def test_unbounded_cone_program():
    cone = SecondOrderCone(np.eye(3)[:2], np.zeros(2), np.eye(3)[2], 0.0)
    with pytest.raises(NoReferenceError, match="unbounded"):
        reference_of(make(np.zeros((3, 3)), [0.0, 0.0, -1.0], cones=(cone,)))


def test_bad_requests():
    instance = make(EYE, [1.0, 1.0])
    with pytest.raises(NoReferenceError, match="shape"):
        compute_reference(instance, np.ones(3))
    with pytest.raises(NoReferenceError, match="respect to Q"):
        compute_reference(instance, np.ones(2), ("q", "Q"))
    n = 12_001
    large = Instance(
        P=sp.csc_matrix(sp.identity(n)),
        q=np.ones(n),
        A=sp.csc_matrix((0, n)),
        b=np.zeros(0),
        G=sp.csc_matrix((0, n)),
        h=np.zeros(0),
    )
    assert np.abs(compute_reference(large, np.ones(n)).z + 1.0).max() <= 1e-15  # sparse: fits
    cone = SecondOrderCone(sp.csc_matrix(sp.identity(n)), np.zeros(n), np.zeros(n), 1.0)
    large = replace(large, cones=(cone,), problem_class="socp", sha256="")
    with pytest.raises(NoReferenceError, match="too large"):
        compute_reference(large, np.ones(n))
