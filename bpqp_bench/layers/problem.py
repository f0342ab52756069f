"""What the layers' solvers take and give: quadratic program, solution, tolerances."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import (
    Array,
    Instance,
    Matrix,
    QuadraticData,
    SecondOrderCone,
)

_HUGE = 1e300
_ROUNDING = 64.0 * float(np.finfo(float).eps)

Phase = Callable[[str], AbstractContextManager[None]]


_NOTHING = nullcontext()


def no_clock(phase: str) -> AbstractContextManager[None]:
    """Clock that measures nothing."""
    del phase
    return _NOTHING


@dataclass(frozen=True)
class Tolerances:
    """Stopping rule of a solver; 0 leaves the solver's own default in force.

    Attributes
    ----------
    eps_abs, eps_rel
        Absolute and relative tolerance on primal and dual residuals.
    max_iter
        Iteration limit.
    time_limit
        Seconds, for the solvers that know of such a limit.
    """

    eps_abs: float = 0.0
    eps_rel: float = 0.0
    max_iter: int = 0
    time_limit: float = 0.0


@dataclass(frozen=True, eq=False)
class ConvexQP(QuadraticData):
    """Minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h, ‖Fᵢz + gᵢ‖₂ ≤ cᵢᵀz + dᵢ.

    P is symmetric. Matrices are dense float64 arrays or SciPy CSC; a missing kind of constraint
    has zero rows. Unlike `Instance` it has no identity and is not checked or hashed.
    """

    P: Matrix
    q: Array
    A: Matrix
    b: Array
    G: Matrix
    h: Array
    cones: tuple[SecondOrderCone, ...] = ()

    @classmethod
    def of(cls, instance: Instance | ConvexQP) -> ConvexQP:
        """Take the data of an instance, without a copy."""
        i = instance
        return cls(i.P, i.q, i.A, i.b, i.G, i.h, i.cones)


@dataclass(frozen=True, eq=False)
class QPSolution:
    """A solver's answer.

    Attributes
    ----------
    z, nu, lam, mu
        Solution and multipliers of Az = b, of Gz ≤ h (λ ≥ 0) and of each cone; the stationarity
        condition is Pz + q + Aᵀν + Gᵀλ + Σ μᵢ∇(‖Fᵢz + gᵢ‖ − cᵢᵀz) = 0.
    status
        "solved", "inaccurate", "iteration limit", "infeasible", "unbounded", "not convex" or
        "failed (…)" with the solver's own word.
    iterations
        Where the solver counts them.
    primal, dual
        Achieved residuals, ∞-norms, computed from the point: violation of the constraints, and
        gradient of the Lagrangian.
    """

    z: Array
    nu: Array
    lam: Array
    mu: Array
    status: str
    iterations: int | None
    primal: float
    dual: float


def residuals(qp: ConvexQP, z: Array, nu: Array, lam: Array, mu: Array) -> tuple[float, float]:
    """∞-norms of the constraints' violation and of the gradient of the Lagrangian."""
    primal, gradient = 0.0, qp.P @ z + qp.q
    if qp.neq:
        primal = float(np.abs(qp.A @ z - qp.b).max())
        gradient = gradient + qp.A.T @ nu
    if qp.nineq:
        primal = max(primal, float((qp.G @ z - qp.h).max()))
        gradient = gradient + qp.G.T @ lam
    for cone, weight in zip(qp.cones, mu, strict=True):
        primal = max(primal, cone.value(z))
        if weight > 0.0:
            slope = cone.gradient(z)
            if np.isfinite(slope).all():  # at the tip the multiplier is a vector, not a scalar
                gradient = gradient + weight * slope
    return primal, float(np.abs(gradient).max(initial=0.0))


def natural_scales(
    reach: float,
    force: float,
    curvature: float,
    distances: Array,
    achieved: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float]:
    """Length and force by which slacks and multipliers are judged; neither ever vanishes.

    The length is that of the solution, the force that of the objective. Where one of them is no
    more than the solver's error (a solution at the origin, an optimum without forces) the other
    gives its size, by the curvature, or else the distances of the constraints do.

    Parameters
    ----------
    reach
        |z|, largest entry.
    force
        Gradient of the objective: the larger of |q| and |Pz|.
    curvature
        |P|, largest entry.
    distances
        How far each constraint is from the origin, or from the solution.
    achieved
        Primal and dual residual.
    """
    near = distances[(distances > 0.0) & (distances < 1e15)]
    apart = float(np.median(near)) if len(near) else 0.0
    step = force / curvature if curvature > 0.0 else 0.0
    noise = 10.0 * (achieved[0] + (achieved[1] / curvature if curvature > 0.0 else 0.0))
    length = reach
    if reach <= max(1e-6 * (step or apart), min(noise, step or apart)):
        length = step or apart or 1.0
    pull = force
    if force <= max(1e-6 * curvature * length, 10.0 * achieved[1]):
        pull = max(force, curvature * length) or 1.0
    return length, pull


def row_lengths(M: Matrix) -> Array:
    """Euclidean length of every row, 1 for a row of zeros."""
    lengths = _norms(M)
    return np.where(lengths > 0.0, lengths, 1.0)


def _norms(M: Matrix) -> Array:
    if sp.issparse(M):
        return np.asarray(np.sqrt(M.multiply(M).sum(axis=1))).ravel()
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", M, M)))


def violations(qp: ConvexQP, z: Array, blurred: bool = True) -> Array:
    """|Az − b| and (Gz − h)₊, each over the size of its own terms, (neq + nineq,).

    What rounding leaves of a row that passes through a solution at the origin does not count, where
    ``blurred``.
    """
    curvature = float(abs(qp.P).max()) if qp.n else 0.0
    step = float(np.abs(qp.q).max(initial=0.0)) / curvature if curvature > 0.0 else 0.0
    reach = float(np.linalg.norm(z))
    found = []
    for M, side, equal in ((qp.A, qp.b, True), (qp.G, qp.h, False)):
        off = M @ z - side
        off = np.abs(off) if equal else np.maximum(off, 0.0)
        lengths = _norms(M)
        off = np.maximum(off - _ROUNDING * lengths * (max(reach, step) if blurred else reach), 0.0)
        terms = lengths * reach + np.abs(side)
        found.append(np.where(off > 0.0, off / np.where(terms > 0.0, terms, 1.0), 0.0))
    return np.concatenate(found)


def force_scale(qp: ConvexQP, z: Array, nu: Array, lam: Array) -> float:
    """Size of the forces that balance at z, by which the Lagrangian's gradient is judged.

    Never more than they are: a point that ran away along a flat direction has no large forces,
    however far it is. Without an objective, natural scales give the size.
    """
    forces = qp.q, qp.P @ z, qp.A.T @ nu + qp.G.T @ lam
    push = max(float(np.abs(part).max(initial=0.0)) for part in forces)
    if np.any(qp.q):
        return push
    sides = np.abs(np.concatenate([qp.b, qp.h]))
    size = float(np.abs(z).max(initial=0.0))
    return natural_scales(size, push, float(abs(qp.P).max()), sides)[1]


def relative_residual(qp: ConvexQP, found: QPSolution) -> float:
    """Largest of violation, gradient of the Lagrangian and complementarity, each over its scale."""
    if not np.isfinite(found.z).all():
        return float("inf")
    z, lam = found.z, found.lam
    dual = residuals(qp, z, found.nu, lam, found.mu)[1]
    push = force_scale(qp, z, found.nu, lam)
    size = natural_scales(
        float(np.abs(z).max()), push, float(abs(qp.P).max()), np.abs(np.concatenate([qp.b, qp.h]))
    )[0]
    slack = np.minimum(qp.h - qp.G @ z, _HUGE)
    gap = float(np.abs(lam * slack).max(initial=0.0))
    cones = max((cone.value(z) for cone in qp.cones), default=0.0)
    worst = max(float(violations(qp, z).max(initial=0.0)), cones / size)
    return max(worst, dual / push, gap / (push * size))


def componentwise_residual(qp: ConvexQP, found: QPSolution) -> float:
    """Largest residual of the KKT conditions, each over the size of its own terms.

    Stricter than `relative_residual`, where variables have different units or few of them large
    forces. Terms count as a billionth of the largest at least, and those of a row as a billionth of
    what they would be at a point all of whose entries are as large as the largest: rounding of
    variables that are zero is no violation.
    """
    if not np.isfinite(found.z).all():
        return float("inf")
    z, nu, lam, slack = found.z, found.nu, found.lam, np.minimum(qp.h - qp.G @ found.z, _HUGE)
    reach = np.abs(z)
    everywhere = np.full(qp.n, reach.max(initial=0.0))

    def over(off: Array, terms: Array, *possible: Array) -> float:
        floor = 1e-9 * max(float(part.max(initial=0.0)) for part in (terms, *possible)) or 1.0
        return float((np.abs(off) / np.maximum(terms, floor)).max(initial=0.0))

    size_a, size_g, most = abs(qp.A), abs(qp.G), float(lam.max(initial=0.0)) or 1.0
    forces = abs(qp.P) @ reach + np.abs(qp.q) + size_a.T @ np.abs(nu) + size_g.T @ lam
    rows = size_g @ reach + np.minimum(np.abs(qp.h), _HUGE)
    possible = size_g @ everywhere
    return max(
        over(qp.A @ z - qp.b, size_a @ reach + np.abs(qp.b), size_a @ everywhere),
        over(np.minimum(slack, 0.0), rows, possible),
        over(qp.P @ z + qp.q + qp.A.T @ nu + qp.G.T @ lam, forces),
        over(lam * slack, rows * most, possible * most),
    )


def no_solution(qp: ConvexQP, status: str, iterations: int | None = None) -> QPSolution:
    """Answer where there is no point."""
    return QPSolution(
        np.full(qp.n, np.nan),
        np.full(qp.neq, np.nan),
        np.full(qp.nineq, np.nan),
        np.full(len(qp.cones), np.nan),
        status,
        iterations,
        float("inf"),
        float("inf"),
    )
