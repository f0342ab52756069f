"""Second-order cones in the backward pass: their curvature and the gradients of the binding ones.

At a point on a cone's smooth boundary the constraint ‖Fz + g‖ − cᵀz − d = 0 contributes μ times its
Hessian to the Hessian of the Lagrangian and its gradient to the active rows (the general form of
Theorem 1). At the cone's tip (Fz + g = 0, cᵀz + d = 0) it has no gradient; there, all those linear
equations bind together, and are taken as rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.active_set import Mask, stack_rows
from bpqp_bench.layers.kkt import factorize_kkt
from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, no_clock, residuals
from bpqp_bench.problem.instance import Array, Matrix

_TIP = 1e-7
_NEWTON_STEPS = 4
_ROUNDING = 8.0 * float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class ConeTerms:
    """Hessian of the Lagrangian (n, n), rows of the binding cones (k, n), and if one is at its tip.

    ``owner`` gives the cone of every row.
    """

    hessian: Matrix
    rows: Array
    owner: tuple[int, ...]
    tip: bool


def cone_terms(qp: ConvexQP, z: Array, mu: Array, active: Mask) -> ConeTerms:
    """Terms of the cones that bind at z with multipliers μ."""
    hessian = qp.P.toarray() if sp.issparse(qp.P) else np.array(qp.P)
    rows: list[Array] = []
    owner: list[int] = []
    tip = False
    weights: dict[int, float] = {}  # Σ μᵢ/‖rᵢ‖ by matrix F: cones often share one
    shared: dict[int, Matrix] = {}
    radial: list[Array] = []
    for i in np.flatnonzero(active):
        cone = qp.cones[i]
        length = float(np.linalg.norm(cone.F @ z + cone.g))
        size = float(abs(cone.F).sum(axis=1).max() * np.abs(z).max() + np.abs(cone.g).max())
        if length <= _TIP * max(size, 1e-300):
            F = cone.F.toarray() if sp.issparse(cone.F) else cone.F
            rows += [*F, cone.c]
            owner += [int(i)] * (len(F) + 1)
            tip = True
        else:
            # μ∇²‖Fz + g‖ = (μ/‖r‖)(FᵀF − tᵀt) with r = Fz + g, t = rᵀF/‖r‖.
            curvature = float(mu[i]) / length
            along = cone.F.T @ ((cone.F @ z + cone.g) / length)
            shared[id(cone.F)] = cone.F
            weights[id(cone.F)] = weights.get(id(cone.F), 0.0) + curvature
            radial.append(np.sqrt(curvature) * along)
            rows.append(along - cone.c)
            owner.append(int(i))
    for key, F in shared.items():
        square = F.T @ F
        hessian += weights[key] * (square.toarray() if sp.issparse(square) else square)
    if radial:
        T = np.array(radial)
        hessian -= T.T @ T
    stacked = np.array(rows) if rows else np.zeros((0, qp.n))
    return ConeTerms(hessian, stacked, tuple(owner), tip)


def polish_cones(
    qp: ConvexQP, solution: QPSolution, rows: Mask, cones: Mask, clock: Phase = no_clock
) -> QPSolution:
    """Newton's method on the KKT equations of the binding constraints, from the solver's point.

    Kept only as long as the residuals fall; at a cone's tip the point is returned unchanged.
    """
    best = solution
    neq, active = qp.neq, np.flatnonzero(cones)
    force = max(float(np.abs(qp.q).max(initial=0.0)), float(np.abs(qp.P @ best.z).max()))
    rounding = _ROUNDING * max(force, float(np.abs(best.z).max(initial=0.0)))
    for _ in range(_NEWTON_STEPS):
        if max(best.primal, best.dual) <= rounding:
            return best
        with clock("setup"):
            terms = cone_terms(qp, best.z, best.mu, cones)
            linear = stack_rows(qp.A, qp.G, rows)
            linear = linear.toarray() if sp.issparse(linear) else linear
            C = np.concatenate([linear, terms.rows])
        if terms.tip:
            return best
        factor = factorize_kkt(terms.hessian, C, clock)
        with clock("setup"):
            values = np.array([qp.cones[i].value(best.z) for i in active])
            right = -np.concatenate([qp.A @ best.z - qp.b, (qp.G @ best.z - qp.h)[rows], values])
            # The multipliers are solved for themselves: their old values drop out.
            gradient = -(qp.P @ best.z + qp.q)
        step = factor.solve(gradient, right, clock)
        with clock("solve"):
            z, y = best.z + step.x, step.y
            lam, mu = np.zeros(qp.nineq), np.zeros(len(qp.cones))
            lam[rows] = y[neq : neq + int(rows.sum())]
            mu[active] = y[neq + int(rows.sum()) :]
            if (lam < 0).any() or (mu < 0).any():
                return best
            primal, dual = residuals(qp, z, y[:neq], lam, mu)
            if max(primal, dual) >= max(best.primal, best.dual):
                return best
            best = QPSolution(
                z, y[:neq], lam, mu, solution.status, solution.iterations, primal, dual
            )
    return best
