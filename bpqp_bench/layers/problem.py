"""What the layers' solvers take and give: quadratic program, solution, tolerances."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance, Matrix, SecondOrderCone

__all__ = [
    "ConvexQP",
    "Phase",
    "QPSolution",
    "Tolerances",
    "no_clock",
    "residuals",
]

Phase = Callable[[str], AbstractContextManager[None]]


def no_clock(phase: str) -> AbstractContextManager[None]:
    """Clock that measures nothing."""
    del phase
    return nullcontext()


@dataclass(frozen=True)
class Tolerances:
    """Stopping rule of a solver; 0 leaves the solver's own default in force.

    Attributes
    ----------
    eps_abs, eps_rel
        Absolute and relative tolerance on primal and dual residuals.
    max_iter
        Iteration limit.
    """

    eps_abs: float = 0.0
    eps_rel: float = 0.0
    max_iter: int = 0


@dataclass(frozen=True, eq=False)
class ConvexQP:
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

    @property
    def n(self) -> int:
        """Number of variables."""
        return int(self.q.shape[0])

    @property
    def neq(self) -> int:
        """Number of equalities."""
        return int(self.b.shape[0])

    @property
    def nineq(self) -> int:
        """Number of linear inequalities."""
        return int(self.h.shape[0])

    @property
    def is_sparse(self) -> bool:
        """Whether any matrix is stored sparse."""
        return any(sp.issparse(M) for M in (self.P, self.A, self.G))


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
