"""What a reference is: solution, gradients and the certificate that vouches for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bpqp_bench.errors import BenchError
from bpqp_bench.problem.instance import Array, Matrix

Cause = Literal["infeasible", "unbounded", "not-convex", "not-converged", "too-large", "input"]


class NoReferenceError(BenchError):
    """The instance has no solution, or none could be certified; ``cause`` says which."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause: Cause = cause


def unbounded(name: str) -> NoReferenceError:
    """Return the error for a problem whose objective has no minimum."""
    return NoReferenceError(
        f"{name} is unbounded: its objective falls without end along a feasible direction; "
        "add bounds or curvature",
        "unbounded",
    )


def not_certified(name: str, why: str) -> NoReferenceError:
    """Return the error for a problem whose active set was not found."""
    return NoReferenceError(
        f"no active set of {name} could be certified: {why}; the problem is infeasible, "
        "unbounded or too badly scaled",
        "not-converged",
    )


@dataclass(frozen=True)
class Reference:
    """What the certificate of the reference says, as far as tables need it."""

    degenerate: bool
    why: str
    n_active: int
    margin: float
    condition: float
    residual: float


@dataclass(frozen=True)
class Certificate:
    """Evidence for a reference, all of it evaluated in double-double arithmetic.

    Attributes
    ----------
    primal, dual, complementarity
        KKT residuals of the refined solution, ∞-norm, absolute (see `Residuals`). The arrays of
        the `ReferenceSolution` are that solution rounded to float64.
    margin
        Strict-complementarity margin: the least, over all inequalities and cones, of
        max(relative slack, relative multiplier); infinite without inequalities. The slack is
        relative to |hᵢ| + ‖Gᵢ‖₂‖z‖₂, λᵢ‖Gᵢ‖∞ relative to the largest term of the stationarity
        condition, ∞-norm.
    condition
        1-norm condition estimate (LAPACK sycon) of the KKT matrix of the gradient after diagonal
        scaling.
    residual
        Residual of the gradient's system relative to the upstream gradient, ∞-norm.
    error
        Last correction of iterative refinement relative to the gradient system's solution, in the
        scaled norm; the larger of that and the same of the solution's own refinement.
    n_active, n_active_cones
        Number of active rows of G, and of active cones.
    degenerate
        Whether the gradient does not exist or is not unique.
    why
        Reason for ``degenerate``; empty otherwise.
    method
        How the solution was found, in a word or two.
    """

    primal: float
    dual: float
    complementarity: float
    margin: float
    condition: float
    residual: float
    error: float
    n_active: int
    n_active_cones: int
    degenerate: bool
    why: str
    method: str


@dataclass(frozen=True, eq=False)
class ReferenceSolution:
    """Solution and gradients of one instance for one upstream gradient.

    Attributes
    ----------
    z, nu, lam, mu
        Primal solution (n,), multipliers of Az = b (neq,), Gz ≤ h (nineq,) and the cones.
    objective
        Optimal value ½zᵀPz + qᵀz.
    gradients
        By name; dense, or CSC on the stored entries of the data where the data are sparse. NaN
        where the solution is not unique and no gradient exists.
    certificate
        Evidence.
    """

    z: Array
    nu: Array
    lam: Array
    mu: Array
    objective: float
    gradients: Mapping[str, Matrix]
    certificate: Certificate

    def summary(self) -> Reference:
        """Return the part of the certificate that every measurement carries."""
        c = self.certificate
        return Reference(
            degenerate=c.degenerate,
            why=c.why,
            n_active=c.n_active + c.n_active_cones,
            margin=c.margin,
            condition=c.condition,
            residual=c.residual,
        )
