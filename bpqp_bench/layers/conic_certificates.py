"""Proofs that a problem with second-order cones has no solution, searched for and checked here.

With rows R and right-hand side s of the form s − Rz ∈ K = {0} × R₊ × SOC × … (`conic_rows`), the
problem is infeasible if Rᵀy = 0 and sᵀy < 0 for a y in the dual cone K*; a feasible one is
unbounded along a d with Pd = 0, −Rd ∈ K and qᵀd < 0 (Boyd and Vandenberghe, Convex Optimization,
sections 5.9.4 and 5.8). An interior-point method finds both as points of bounded problems, to fewer
digits than a vertex of a linear program has.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.problem import ConvexQP, Tolerances
from bpqp_bench.layers.qp_solvers import solve_qp
from bpqp_bench.layers.solvers._conic import conic_rows
from bpqp_bench.problem.instance import Array, Matrix, SecondOrderCone

_ZERO = 1e-9  # of a sum that has to vanish, relative to its terms
_NEGATIVE = 1e-5  # of a sum that has to be negative
_TIGHT = Tolerances(1e-12, 1e-12)


def conic_verdict(qp: ConvexQP) -> str:
    """Return "infeasible" or "unbounded" if there is a proof of it, "" otherwise."""
    rows, right, _ = conic_rows(qp)
    blocks = _blocks(qp)
    # Minimize sᵀy over the dual cone, down to −1.
    signs = sp.eye(rows.shape[0], format="csr")
    below = sp.vstack([-signs[qp.neq : qp.neq + qp.nineq], -right[None, :]], format="csc")
    y = _minimize(right, sp.csc_matrix(rows.T), below, [_top(signs, block) for block in blocks])
    if y is not None:
        y[qp.neq : qp.neq + qp.nineq] = np.maximum(y[qp.neq : qp.neq + qp.nineq], 0.0)
        for block in blocks:  # onto the cone, from within rounding of it
            y[block.start] = max(y[block.start], float(np.linalg.norm(y[block][1:])))
        if _vanishes(rows.T, y) and _falls(right, y):
            return "infeasible"
    bare = [replace(cone, g=np.zeros(len(cone.g)), d=0.0) for cone in qp.cones]
    flat = sp.vstack([sp.csc_matrix(qp.A), sp.csc_matrix(qp.P)], format="csc")
    below = sp.vstack([sp.csc_matrix(qp.G), sp.csc_matrix(-qp.q[None, :])], format="csc")
    d = _minimize(qp.q, flat, below, bare)
    if d is None or not (_vanishes(flat, d) and _falls(qp.q, d)):
        return ""
    inside = (qp.G @ d <= _ZERO * (abs(qp.G) @ np.abs(d))).all() and all(
        cone.value(d) <= _ZERO * float(np.linalg.norm(cone.F @ d)) for cone in bare
    )
    return "unbounded" if inside else ""


def _blocks(qp: ConvexQP) -> list[slice]:
    """Where the rows of every cone are."""
    ends = np.cumsum([qp.neq + qp.nineq, *[len(cone.g) + 1 for cone in qp.cones]])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


def _top(signs: sp.csr_matrix, block: slice) -> SecondOrderCone:
    """Require of some entries that the first is at least the length of the others."""
    rest = signs[block.start + 1 : block.stop]
    first = signs[block.start].toarray().ravel()
    return SecondOrderCone(sp.csc_matrix(rest), np.zeros(rest.shape[0]), first, 0.0)


def _minimize(
    cost: Array, equal: sp.csc_matrix, below: sp.csc_matrix, cones: list[SecondOrderCone]
) -> Array | None:
    """Minimize over a cone, the cost being at least −1; None unless it comes near that."""
    n, h = len(cost), np.zeros(below.shape[0])
    h[-1] = 1.0
    nothing = sp.csc_matrix((n, n))
    found = solve_qp(
        ConvexQP(nothing, cost, equal, np.zeros(equal.shape[0]), below, h, tuple(cones)),
        "clarabel",
        _TIGHT,
    ).z
    return found if np.isfinite(found).all() and float(cost @ found) < -0.5 else None


def _vanishes(M: Matrix, x: Array) -> bool:
    return bool((np.abs(M @ x) <= _ZERO * (abs(M) @ np.abs(x))).all())


def _falls(cost: Array, x: Array) -> bool:
    terms = cost * x
    return float(terms.sum()) < -_NEGATIVE * float(np.abs(terms).sum())
