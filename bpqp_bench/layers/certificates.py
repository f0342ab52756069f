"""Proofs that a problem has no solution, searched for by a linear program and checked here.

Infeasible: a Farkas vector (ν, λ ≥ 0) with Aᵀν + Gᵀλ = 0 and bᵀν + hᵀλ < 0. Unbounded: a direction
r with Pr = 0, Ar = 0, Gr ≤ 0 and qᵀr < 0, where the problem is feasible. Both are checked on the
caller's data, every sum relative to the sizes of its own terms, which no change of units alters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from bpqp_bench.layers.equilibrate import equilibrate
from bpqp_bench.layers.problem import ConvexQP, violations
from bpqp_bench.problem.instance import Array, Matrix

_ZERO = 1e-13  # of a sum that has to vanish, relative to its terms
_NEGATIVE = 1e-10  # of a sum that has to be negative
_SUPPORT = 1e-9
_HIDDEN = 1e-12  # violation, relative to its own terms, at which a proof is looked for
_FAINT = 1e-9  # gradient of the Lagrangian, relative to q, likewise
# A linear program's tolerances are absolute: a narrow contradiction is seen when made larger.
_MAGNIFIED = 1e6


def worth_a_proof(qp: ConvexQP, z: Array, dual: float) -> bool:
    """Whether a violation or a slope, the dual residual, may hide that there is no solution."""
    off = float(violations(qp, z, blurred=False).max(initial=0.0))
    # Without q nothing is unbounded, since P is positive semidefinite.
    return off > _HIDDEN or 0.0 < _FAINT * float(np.abs(qp.q).max(initial=0.0)) < dual


def farkas_vector(qp: ConvexQP, time_limit: float = 0.0) -> tuple[Array, Array] | None:
    """Find ν and λ that prove Az = b, Gz ≤ h infeasible; None if there is no such proof."""
    if qp.neq + qp.nineq == 0:
        return None
    # The objective, which has no part in it, would set the unit of length.
    scaled, scaling = equilibrate(replace(qp, P=0.0 * qp.P, q=0.0 * qp.q))
    # minimize bᵀν + hᵀλ subject to Aᵀν + Gᵀλ = 0, |ν| ≤ 1, 0 ≤ λ ≤ 1
    far = np.abs(scaled.h) > 1e15  # a row that is so far away proves nothing
    cost = np.concatenate([scaled.b, np.where(far, 0.0, scaled.h)])
    bounds = np.concatenate(
        [np.tile([-1.0, 1.0], (qp.neq, 1)), np.stack([np.zeros(qp.nineq), ~far * 1.0], axis=1)]
    )
    equal = _stack(scaled.A.T, scaled.G.T, axis=1)
    for size in (1.0, _MAGNIFIED):
        y = _minimize(size * cost, equal, None, bounds, time_limit)
        for candidate in () if y is None else (y, _cleaned(equal, y)):
            nu, lam = scaling.rows_a * candidate[: qp.neq], scaling.rows_g * candidate[qp.neq :]
            lam = np.maximum(lam, 0.0)
            if is_farkas(qp, nu, lam):
                return nu, lam
    return None


def is_farkas(qp: ConvexQP, nu: Array, lam: Array) -> bool:
    """Check a proof of infeasibility on the problem's own data."""
    terms = np.concatenate([qp.b * nu, np.where(lam > 0.0, qp.h, 0.0) * lam])
    total, size = float(terms.sum()), float(np.abs(terms).sum())
    left = qp.A.T @ nu + qp.G.T @ lam
    sizes = abs(qp.A).T @ np.abs(nu) + abs(qp.G).T @ lam
    return bool(
        (lam >= 0.0).all() and total < -_NEGATIVE * size and (np.abs(left) <= _ZERO * sizes).all()
    )


def recession_direction(qp: ConvexQP, time_limit: float = 0.0) -> Array | None:
    """Find a feasible direction along which the objective falls without end; None if none is."""
    scaled, scaling = equilibrate(qp)
    flat = _stack(scaled.P, scaled.A, axis=0)
    bounds = np.tile([-1.0, 1.0], (qp.n, 1))
    r = _minimize(scaled.q, flat, scaled.G, bounds, time_limit)
    if r is None:
        return None
    tight = np.abs(scaled.G @ r) <= _SUPPORT
    rows = sp.csr_matrix(scaled.G)[tight] if sp.issparse(scaled.G) else scaled.G[tight]
    for candidate in (r, _cleaned(_stack(flat, rows, axis=0), r)):
        direction = scaling.columns * candidate
        if is_recession(qp, direction):
            return direction
    return None


def is_recession(qp: ConvexQP, r: Array) -> bool:
    """Check a direction of unboundedness on the problem's own data."""
    falls = qp.q * r
    rises = qp.G @ r - _ZERO * (abs(qp.G) @ np.abs(r))
    flat = all((np.abs(M @ r) <= _ZERO * (abs(M) @ np.abs(r))).all() for M in (qp.P, qp.A))
    down = float(falls.sum()) < -_NEGATIVE * float(np.abs(falls).sum())
    return bool(flat and down and (rises <= 0.0).all())


def _minimize(
    cost: Array, equal: Matrix, below: Matrix | None, bounds: Array, time_limit: float
) -> Array | None:
    """Minimize over a box by HiGHS; None unless the minimum is negative."""
    given: dict[str, object] = {}
    if below is not None and below.shape[0]:
        given = {"A_ub": below, "b_ub": np.zeros(below.shape[0])}
    options = {"time_limit": time_limit} if time_limit else {}
    options |= {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9}
    found = linprog(
        cost, A_eq=equal, b_eq=np.zeros(equal.shape[0]), bounds=bounds, options=options, **given
    )
    if found.x is None or not float(cost @ found.x) < 0.0:
        return None
    return np.asarray(found.x)


def _cleaned(M: Matrix, y: Array) -> Array:
    """Bring My to zero exactly, changing only entries of y that are not zero already."""
    support = np.flatnonzero(np.abs(y) > _SUPPORT)
    if len(support) == 0 or M.shape[0] * len(support) > 4_000_000:
        return y
    part = M[:, support].toarray() if sp.issparse(M) else M[:, support]
    better = np.zeros_like(y)
    better[support] = y[support] - np.linalg.lstsq(part, part @ y[support], rcond=1e-12)[0]
    return better


def _stack(one: Matrix, other: Matrix, axis: int) -> Matrix:
    if sp.issparse(one) or sp.issparse(other):
        join = sp.vstack if axis == 0 else sp.hstack
        return sp.csc_matrix(join([sp.csc_matrix(one), sp.csc_matrix(other)]))
    return np.concatenate([one, other], axis=axis)
