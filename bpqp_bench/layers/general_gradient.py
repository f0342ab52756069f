"""General gradients: the derivative at a point that is not optimal, keeping the KKT residual.

A solver stops at some w = (z, ν, λ) with a residual r = F(w; y) ≠ 0 of the KKT conditions

    F(w; y) = ( ∇_z Lagrangian,  h(z; y),  λ ∘ g(z; y) ),      s = −g.

The derivative of the solution map does not belong to that point. What does is the derivative of
the map y ↦ w(y) that keeps F(w(y); y) = r, and with it the KKT norm: by the implicit function
theorem K dw = −∂F/∂y dy with the Jacobian K of F at w itself, for whatever r (Pan et al., NeurIPS
2024, "general gradients"; at a solution it is the gradient of the solution). With v = ∂L/∂z the
adjoint system is

    H z̃ + Aᵀν̃ + Dᵀλ̃ = −v,    A z̃ = 0,    λ ∘ (D z̃) = s ∘ λ̃,

H the Hessian of the Lagrangian, A and D the Jacobians of h and g. Gradients have the same form as
at a solution, with all rows of D and not the binding ones alone. Eliminating λ̃ = (λ/s) ∘ Dz̃ shows
a QP again: the binding rows of Theorem 1 become the quadratic penalty ½ Σ (λᵢ/sᵢ)(Dᵢz̃)², which is
convex wherever λ ≥ 0 and s > 0.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray
from scipy.linalg import lapack

from bpqp_bench.layers.problem import Phase, no_clock
from bpqp_bench.problem.instance import Array, Matrix


def general_adjoint(
    H: Matrix,
    A: Matrix,
    D: Matrix,
    lam: Array,
    slack: Array,
    upstream: Array,
    clock: Phase = no_clock,
) -> tuple[Array, Array, Array, bool]:
    """Solve the adjoint system at a point that need not be optimal.

    Parameters
    ----------
    H
        Hessian of the Lagrangian (n, n), symmetric.
    A, D
        Jacobians of the equalities (p, n) and of all inequalities (m, n).
    lam, slack
        λ and s = −g (m,), of either sign.
    upstream
        v (n,).
    clock
        Marks setup and solve.

    Returns
    -------
    z, nu, lam, singular
        z̃, ν̃, λ̃; and whether the system is singular, the answer then being the least-squares one.
    """
    n, p = H.shape[0], A.shape[0]
    with clock("setup"):
        # Rows with |s| ≥ |λ| go into H as a penalty, the others stay as rows with −s/λ in the
        # corner: every number that is divided by is the larger of the two.
        as_row = np.abs(lam) > np.abs(slack)
        safe = np.where(slack == 0.0, 1.0, slack)
        penalty = np.where(as_row, 0.0, lam / safe)
        corner = slack[as_row] / lam[as_row]
        rows = np.flatnonzero(as_row)
        K, right = _system(H, A, D, penalty, rows, corner), np.zeros(n + p + len(rows))
        right[:n] = -upstream
    with clock("solve"):
        w, singular = _solve(K, right)
    z, nu = w[:n], w[n : n + p]
    multipliers = penalty * (D @ z)
    multipliers[rows] = w[n + p :]
    return z, nu, multipliers, singular


def _system(
    H: Matrix, A: Matrix, D: Matrix, penalty: Array, rows: NDArray[np.int64], corner: Array
) -> Matrix:
    if sp.issparse(H) or sp.issparse(A) or sp.issparse(D):
        D = sp.csr_matrix(D)
        top = H + D.T @ sp.diags(penalty) @ D
        C = sp.vstack([sp.csr_matrix(A), D[rows]])
        low = sp.diags(np.concatenate([np.zeros(A.shape[0]), -corner]))
        return sp.csc_matrix(sp.bmat([[top, C.T], [C, low]]))
    n, C = H.shape[0], np.concatenate([A, D[rows]])
    K = np.zeros((n + len(C), n + len(C)))
    K[:n, :n] = H + D.T @ (penalty[:, None] * D)
    K[n:, :n], K[:n, n:] = C, C.T
    inside = np.arange(n + A.shape[0], n + len(C))
    K[inside, inside] = -corner
    return K


def _solve(K: Matrix, right: Array) -> tuple[Array, bool]:
    if sp.issparse(K):
        try:
            lu = spla.splu(K)
        except RuntimeError:  # exactly singular
            return np.asarray(spla.lsqr(K, right, atol=1e-14, btol=1e-14)[0]), True
        w = lu.solve(right)
        w = w + lu.solve(right - K @ w)
        if np.isfinite(w).all():
            return np.asarray(w), False
        return np.asarray(spla.lsqr(K, right, atol=1e-14, btol=1e-14)[0]), True
    # LAPACK itself and not scipy.linalg.lu_factor, which warns of singular matrices.
    lu, pivots, failed = lapack.dgetrf(K)
    if failed or not lapack.dgecon(lu, np.abs(K).sum(axis=0).max())[0] > np.finfo(float).eps:
        return np.asarray(np.linalg.lstsq(K, right, rcond=None)[0], dtype=np.float64), True
    w = lapack.dgetrs(lu, pivots, right)[0]
    return np.asarray(w + lapack.dgetrs(lu, pivots, right - K @ w)[0]), False
