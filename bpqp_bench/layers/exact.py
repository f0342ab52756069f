"""Exact differentiation of the optimality conditions, the textbook way (OptNet, equation 6).

With F(z, ν, λ) = (∇ₓLagrangian, Az − b, λ∘g(z)) = 0 at the solution, the implicit function theorem
needs the Jacobian of F in (z, ν, λ) with *all* inequalities in it::

        ⎡ H         Aᵀ   Dᵀ      ⎤      H    Hessian of the Lagrangian
    K = ⎢ A         0    0       ⎥      D    gradients of the inequalities g(z) ≤ 0, row by row
        ⎣ diag(λ)D  0    diag(g) ⎦      g    their values, λ ≥ 0 their multipliers

and the gradients of L follow from w = K⁻ᵀ(v, 0, 0). `kkt_adjoint_inverse` forms K and inverts it,
as the BPQP paper does for its baseline "Exact". `kkt_adjoint_solve` solves the same equations after
they are made symmetric, by one LDLᵀ factorization. Both return z̃ = −w_z, ν̃ = −w_ν and
λ̃ = −λ∘w_λ, which solve

    H z̃ + Aᵀν̃ + Dᵀλ̃ = −v,   A z̃ = 0,   λ∘(D z̃) + g∘λ̃ = 0,

so that the gradients have the form of the design's notation: ∇q = z̃, ∇b = −ν̃, ∇h = −λ̃,
∇P = ½(z̃zᵀ + zz̃ᵀ), ∇A = ν̃zᵀ + νz̃ᵀ, ∇G = λ̃zᵀ + λz̃ᵀ.

References
----------
Amos and Kolter, OptNet, ICML 2017, equations 6 to 8. Pan et al., NeurIPS 2024, section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from bpqp_bench.errors import MethodError
from bpqp_bench.layers.backward import adjoint_residual
from bpqp_bench.layers.cones import cone_terms
from bpqp_bench.layers.problem import ConvexQP, Phase, no_clock
from bpqp_bench.problem.instance import Array, Instance, Matrix

Mode = Literal["inverse", "solve"]


@dataclass(frozen=True, eq=False)
class KKTPoint:
    """A solution with everything that its optimality conditions are made of, all dense.

    Attributes
    ----------
    H
        Hessian of the Lagrangian at (z, ν, λ), shape (n, n); P where all constraints are affine.
    A, D
        Gradients of the equalities (neq, n) and of the inequalities (nineq + cones, n).
    g
        Values of the inequalities, ≤ 0, shape (nineq + cones,).
    z, nu, lam
        Solution and multipliers; lam covers the rows of D.
    nineq
        How many rows of D are rows of G; the rest are cones.
    """

    H: Array
    A: Array
    D: Array
    g: Array
    z: Array
    nu: Array
    lam: Array
    nineq: int


@dataclass(frozen=True, eq=False)
class Adjoint:
    """z̃ (n,), ν̃ (neq,) and λ̃ (inequalities and cones,) of the backward system.

    ``condition`` estimates the condition number of its matrix.
    """

    z: Array
    nu: Array
    lam: Array
    condition: float


def kkt_point(
    problem: ConvexQP | Instance,
    z: Array,
    nu: Array | None,
    lam: Array | None,
    mu: Array | None = None,
) -> KKTPoint:
    """Evaluate the optimality conditions' ingredients at a solution.

    Cones enter as the inequalities ‖Fz + g‖ − cᵀz − d ≤ 0 with their curvature in H.

    Raises
    ------
    MethodError
        If the solution lies at the tip of a cone, where its gradient does not exist.
    """
    nu = np.zeros(0) if nu is None else nu
    lam = np.zeros(0) if lam is None else lam
    H, A, G = _dense(problem.P), _dense(problem.A), _dense(problem.G)
    g = G @ z - problem.h
    if not problem.cones:
        return KKTPoint(H, A, G, g, z, nu, lam, problem.nineq)
    mu = np.zeros(len(problem.cones)) if mu is None else mu
    # A solver may leave a multiplier a rounding error below zero.
    mu = np.maximum(mu, 0.0)
    everyone = np.ones(len(problem.cones), dtype=bool)
    terms = cone_terms(ConvexQP.of(problem), z, mu, everyone)
    if terms.tip:
        raise MethodError(
            "the solution lies at the tip of a cone, where the constraint has no gradient"
        )
    return KKTPoint(
        _dense(terms.hessian),
        A,
        np.vstack([G, terms.rows]),
        np.concatenate([g, [cone.value(z) for cone in problem.cones]]),
        z,
        nu,
        np.concatenate([lam, mu]),
        problem.nineq,
    )


def full_kkt_matrix(point: KKTPoint) -> Array:
    """K of the module's docstring, shape (n + neq + inequalities, same)."""
    n, neq = point.z.size, point.nu.size
    total = n + neq + point.lam.size
    K = np.zeros((total, total))
    K[:n, :n] = point.H
    K[:n, n : n + neq] = point.A.T
    K[:n, n + neq :] = point.D.T
    K[n : n + neq, :n] = point.A
    K[n + neq :, :n] = point.lam[:, None] * point.D
    np.fill_diagonal(K[n + neq :, n + neq :], point.g)
    return K


def kkt_adjoint_inverse(point: KKTPoint, upstream: Array, phase: Phase) -> Adjoint:
    """Invert the full KKT matrix with `numpy.linalg.inv`; phase "solve" is the inversion alone.

    Raises
    ------
    MethodError
        If the matrix is singular, as it is when λᵢ = 0 and gᵢ(z) = 0 for one i.
    """
    n, neq = point.z.size, point.nu.size
    with phase("setup"):
        K = full_kkt_matrix(point)
    with phase("solve"):
        try:
            inverse = np.linalg.inv(K)
        except np.linalg.LinAlgError:
            raise MethodError(_singular(point, "the full KKT matrix")) from None
    with phase("extract"):
        w = inverse[:n].T @ upstream
        condition = float(np.linalg.norm(K) * np.linalg.norm(inverse))
        return Adjoint(-w[:n], -w[n : n + neq], -point.lam * w[n + neq :], condition)


def kkt_adjoint_solve(point: KKTPoint, upstream: Array, phase: Phase) -> Adjoint:
    """Solve the same conditions by a symmetric factorization (LAPACK ``dsysv``, Bunch–Kaufman).

    Row i of λ∘(Dz̃) + g∘λ̃ = 0 is divided by λᵢ where λᵢ ≥ |gᵢ|, which makes the system symmetric;
    elsewhere it is divided by gᵢ and eliminated, which adds (λᵢ/|gᵢ|)dᵢdᵢᵀ to H. Both are exact:
    no threshold decides which constraints are active.

    Raises
    ------
    MethodError
        If the system is singular, as it is when λᵢ = 0 and gᵢ(z) = 0 for one i.
    """
    n, neq = point.z.size, point.nu.size
    with phase("setup"):
        lam, g, D = point.lam, point.g, point.D
        if np.any((lam == 0) & (g == 0)):
            raise MethodError(_singular(point, "the KKT system"))
        kept = np.flatnonzero(np.abs(lam) >= np.abs(g))
        folded = np.flatnonzero((np.abs(lam) < np.abs(g)) & (lam != 0))
        total = n + neq + kept.size
        # Fortran order and the upper triangle alone: what LAPACK reads, without a copy.
        K = np.zeros((total, total), order="F")
        K[:n, :n] = point.H
        if folded.size:
            K[:n, :n] -= D[folded].T @ ((lam[folded] / g[folded])[:, None] * D[folded])
        K[:n, n : n + neq] = point.A.T
        K[:n, n + neq :] = D[kept].T
        np.fill_diagonal(K[n + neq :, n + neq :], g[kept] / lam[kept])
        rhs = np.zeros(total)
        rhs[:n] = -upstream
        work = int(lapack.dsysv_lwork(total)[0])
        norm = float(np.linalg.norm(K))  # makes no copy, and is the matrix's own to √2
    with phase("solve"):
        factors, pivots, solution, info = lapack.dsysv(
            K, rhs, lwork=work, overwrite_a=1, overwrite_b=1
        )
    with phase("extract"):
        if info != 0 or not np.isfinite(solution).all():
            raise MethodError(_singular(point, "the KKT system"))
        adjoint = np.zeros(lam.size)
        adjoint[kept] = solution[n + neq :]
        adjoint[folded] = -(lam[folded] / g[folded]) * (D[folded] @ solution[:n])
        reciprocal = float(lapack.dsycon(factors, pivots, norm)[0])
        condition = 1.0 / reciprocal if reciprocal > 0.0 else np.inf
        return Adjoint(solution[:n], solution[n : n + neq], adjoint, condition)


def kkt_adjoint_residual(point: KKTPoint, adjoint: Adjoint, upstream: Array) -> float:
    """Residual of the adjoint equations on the binding constraints, relative."""
    binding = point.lam > -point.g
    C = np.concatenate([point.A, point.D[binding]])
    y = np.concatenate([adjoint.nu, adjoint.lam[binding]])
    return adjoint_residual(point.H, C, upstream, adjoint.z, y)


def exact_adjoint(point: KKTPoint, upstream: Array, mode: Mode, phase: Phase = no_clock) -> Adjoint:
    """Backward system by "inverse" or "solve"; ``phase`` is a `PhaseClock`, or nothing."""
    compute = kkt_adjoint_inverse if mode == "inverse" else kkt_adjoint_solve
    return compute(point, upstream, phase)


def gradients(point: KKTPoint, adjoint: Adjoint, wrt: Sequence[str]) -> dict[str, Array]:
    """Gradients of L by parameter name, shaped like the parameters.

    ∇P is the symmetric one: P and Pᵀ are the same problem.
    """
    z, m = point.z, point.nineq
    lam, lam_tilde = point.lam[:m], adjoint.lam[:m]
    formulas: dict[str, Callable[[], Array]] = {
        "P": lambda: 0.5 * (np.outer(adjoint.z, z) + np.outer(z, adjoint.z)),
        "q": lambda: adjoint.z,
        "A": lambda: np.outer(adjoint.nu, z) + np.outer(point.nu, adjoint.z),
        "b": lambda: -adjoint.nu,
        "G": lambda: np.outer(lam_tilde, z) + np.outer(lam, adjoint.z),
        "h": lambda: -lam_tilde,
    }
    return {name: formulas[name]() for name in wrt}


def _singular(point: KKTPoint, what: str) -> str:
    weak = int(np.sum((point.lam == 0) & (point.g == 0)))
    why = (
        f"{weak} inequalities have both zero slack and zero multiplier"
        if weak
        else "its active constraints are linearly dependent or the Hessian is singular on them"
    )
    return f"{what} of size {point.z.size + point.nu.size + point.lam.size} is singular: {why}"


def _dense(matrix: Matrix) -> Array:
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix)
