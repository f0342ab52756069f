"""General gradients: finite differences of the map that keeps the KKT residual."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch

from bpqp_bench.layers import BPQP
from bpqp_bench.layers.backward import Adjoint, gradients
from bpqp_bench.layers.equilibrate import Scaling
from bpqp_bench.layers.forward import ForwardPass
from bpqp_bench.layers.general_gradient import general_adjoint
from bpqp_bench.layers.problem import ConvexQP

NAMES = ("P", "q", "A", "b", "G", "h")
N, NEQ, NINEQ = 4, 1, 3


def data(seed=0):
    rng = np.random.default_rng(seed)
    root, q, A, G = (rng.standard_normal(s) for s in ((N, N), N, (NEQ, N), (NINEQ, N)))
    return [root.T @ root + np.eye(N), q, A, rng.standard_normal(NEQ), G, rng.random(NINEQ)]


def residual(w, P, q, A, b, G, h):
    z, nu, lam = w[:N], w[N : N + NEQ], w[N + NEQ :]
    return np.concatenate(
        [0.5 * (P + P.T) @ z + q + A.T @ nu + G.T @ lam, A @ z - b, lam * (G @ z - h)]
    )


def point(kind, seed=1):
    """Return a point far from optimal: inside all inequalities, or outside one of them."""
    rng = np.random.default_rng(seed)
    parts = data()
    z, nu = rng.standard_normal(N), rng.standard_normal(NEQ)
    lam = np.array([0.9, 0.05, 0.4])
    slack = np.array([0.3, 0.8, 0.5 if kind == "inside" else -0.2])
    parts[5] = parts[4] @ z + slack
    return parts, z, nu, lam


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_keeps_the_residual_in_every_parameter(kind, sparse):
    parts, z, nu, lam = point(kind)
    P, q, A, b, G, h = parts
    w, v = np.concatenate([z, nu, lam]), np.arange(1.0, N + 1)
    target = residual(w, *parts)
    assert np.abs(target).max() > 0.1
    convert = sp.csc_matrix if sparse else np.asarray
    z_t, nu_t, lam_t, singular = general_adjoint(
        convert(P), convert(A), convert(G), lam, h - G @ z, v
    )
    assert not singular
    qp, none = ConvexQP(P, q, A, b, G, h), np.zeros(0)
    done = ForwardPass(qp, Point(z, nu, lam), None, none, qp, Scaling.identity(qp))
    adjoint = Adjoint(
        z_t, nu_t, lam_t, none, "general", "solved", None, "direct", 0.0, all_rows=True
    )
    found = gradients(done, adjoint, NAMES)

    def moved(changed):
        solution = scipy.optimize.root(
            lambda x: residual(x, *changed) - target, w, tol=1e-13, options={"xtol": 1e-14}
        )
        assert np.abs(solution.fun).max() < 1e-11
        return v @ solution.x[:N]

    step = 1e-5
    for i, name in enumerate(NAMES):
        for index in np.ndindex(parts[i].shape):
            ends = []
            for sign in (1, -1):
                changed = [part.copy() for part in parts]
                changed[i][index] += sign * step
                ends.append(moved(changed))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert found[name][index] == pytest.approx(slope, rel=1e-5, abs=1e-6), (name, index)


class Point:
    """The part of a solver's answer that gradients look at."""

    def __init__(self, z, nu, lam):
        self.z, self.nu, self.lam = z, nu, lam


def test_is_the_usual_gradient_at_a_solution():
    rng = np.random.default_rng(3)
    P, _, A, _, G, _ = data()
    z, nu, lam = rng.standard_normal(N), rng.standard_normal(NEQ), np.array([0.8, 0.0, 0.6])
    q = -P @ z - A.T @ nu - G.T @ lam
    h = G @ z + np.array([0.0, 0.7, 0.0])
    given = [torch.tensor(part, requires_grad=True) for part in (P, q, A, A @ z, G, h)]
    v = torch.arange(1.0, N + 1).double()
    usual = torch.autograd.grad(BPQP(backward="direct")(*given) @ v, given)
    layer = BPQP(gradient="general")
    general = torch.autograd.grad(layer(*given) @ v, given)
    assert layer.last_info[0]["gradient"] == "general"
    for one, other in zip(usual, general, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)


def test_a_loose_solution_has_a_finite_general_gradient():
    instance = [torch.tensor(part, requires_grad=True) for part in data()]
    layer = BPQP(eps_abs=1e-2, eps_rel=1e-2, polish="none", gradient="general")
    layer(*instance).sum().backward()
    assert all(torch.isfinite(part.grad).all() for part in instance)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_singular_system_is_flagged(sparse):
    # λ = s = 0 on the only row, and no curvature at all.
    convert = sp.csc_matrix if sparse else np.asarray
    H, A, D = convert(np.zeros((2, 2))), convert(np.zeros((0, 2))), convert(np.ones((1, 2)))
    z, _, lam, singular = general_adjoint(H, A, D, np.zeros(1), np.zeros(1), np.ones(2))
    assert singular
    assert np.isfinite(z).all()
    assert np.isfinite(lam).all()
