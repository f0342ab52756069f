"""Symmetric indefinite KKT systems: scaled Bunch–Kaufman factorization, refined to the last digit.

    K = [H Cᵀ; C 0],  H (n, n) positive semidefinite, C (m, n) the active constraint rows

Source: Bunch and Kaufman, Math. Comp. 31 (1977), through LAPACK sytrf/sytrs/sycon; Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 11 and 12 (refinement).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.extended import DD, ExactProduct

_STEPS = 60
_TARGET = 1e-24  # relative correction at which refinement ends
_RANK = 1e-12  # relative singular value below which rows count as dependent


@dataclass(frozen=True, eq=False)
class Refined:
    """Solution of a refined system.

    ``error`` is the last correction relative to the solution (scaled norm), ``residual`` the
    ∞-norm of what is left, ``backward`` the same in the scaled system relative to its data.
    """

    x: DD
    error: float
    residual: float
    backward: float


class KKTSystem:
    """Factorized K with its exact products.

    Parameters
    ----------
    H, C
        Shapes (n, n) and (m, n), float64, H symmetric.
    shift
        If positive, K + shift·diag(I, −I) is factorized in the scaled variables while residuals
        remain those of K: a proximal point iteration, which converges to a solution near its
        start when K is singular but consistent.
    apply
        Product with the exact K where H is only its rounded value.

    Attributes
    ----------
    condition
        1-norm condition estimate of the scaled matrix.
    negative
        Number of negative eigenvalues of K (Sylvester: those of the block-diagonal factor); m if
        H is positive definite on the null space of C and C has full rank.
    """

    def __init__(
        self, H: Array, C: Array, shift: float = 0.0, apply: Callable[[DD], DD] | None = None
    ) -> None:
        n, m = H.shape[0], C.shape[0]
        self.n, self.m = n, m
        self._scale = _scaling(H, C)
        K = np.zeros((n + m, n + m))
        K[:n, :n] = H
        K[n:, :n] = C
        K[:n, n:] = C.T
        self._apply = ExactProduct(K).__matmul__ if apply is None else apply
        scaled = K * self._scale
        scaled *= self._scale[:, None]
        if shift > 0.0:
            at = np.arange(n + m)
            scaled[at, at] += np.where(at < n, shift, -shift)
        # A symmetric matrix in C order is itself in Fortran order; no copy is made.
        self._norm = float(lapack.dlange("1", scaled.T))
        work = lapack.dsytrf_lwork(n + m, lower=1)[0]
        self._factor, self._pivots, info = lapack.dsytrf(
            scaled.T, lower=1, lwork=int(work), overwrite_a=1
        )
        rcond = 0.0
        if info == 0:
            rcond = float(lapack.dsycon(self._factor, self._pivots, self._norm, lower=1)[0])
        self.condition = 1.0 / rcond if rcond > 0.0 else float("inf")
        self.negative = _negative_eigenvalues(self._factor, self._pivots)

    def apply(self, x: DD) -> DD:
        """Return K x."""
        return self._apply(x)

    def solve(self, rhs: Array) -> Array:
        """Solve in float64, once."""
        x = lapack.dsytrs(self._factor, self._pivots, self._scale * rhs, lower=1)[0]
        return np.asarray(self._scale * x)

    def refine(self, rhs: DD, start: DD | None = None) -> Refined:
        """Solve K x = rhs by iterative refinement with double-double residuals and solution."""
        x = DD.of(np.zeros(rhs.size)) if start is None else start
        residual = rhs if start is None else rhs - self._apply(x)
        previous = error = np.inf
        with np.errstate(all="ignore"):
            for _ in range(_STEPS):
                if not residual.hi.any():
                    error = 0.0
                    break
                step = self.solve(residual.hi)
                length = float(np.abs(step / self._scale).max())
                # Not "length > …": a NaN must end the loop too.
                if not length <= 0.5 * previous:
                    break
                x = x + step
                residual = rhs - self._apply(x)
                previous = length
                error = length / max(float(np.abs(x.hi / self._scale).max()), 1e-300)
                if error <= _TARGET:
                    break
        size = float(np.abs(x.hi / self._scale).max(initial=0.0))
        data = float(np.abs(self._scale * rhs.hi).max(initial=0.0)) + self._norm * size
        left = float(np.abs(self._scale * residual.hi).max(initial=0.0))
        return Refined(
            x=x,
            error=float(error),
            residual=float(np.abs(residual.hi).max(initial=0.0)),
            backward=left / data if data > 0.0 else 0.0,
        )


def rank_deficiency(C: Array) -> int:
    """Return how many rows of C depend on the others (relative singular values, unit rows)."""
    if C.shape[0] == 0:
        return 0
    norms = np.linalg.norm(C, axis=1)
    values = scipy.linalg.svdvals(C / np.where(norms > 0.0, norms, 1.0)[:, None])
    return int(C.shape[0] - np.sum(values > _RANK * values[0]))


def null_directions(H: Array, C: Array) -> int:
    """Return the number of dimensions of the null space of C along which H has no curvature."""
    n = H.shape[0]
    root = _scaling(H, np.zeros((0, n)))
    scaled_C = C * root
    norms = np.linalg.norm(scaled_C, axis=1)
    scaled_C /= np.where(norms > 0.0, norms, 1.0)[:, None]
    basis = scipy.linalg.null_space(scaled_C, rcond=_RANK) if C.shape[0] else np.eye(n)
    if basis.shape[1] == 0:
        return 0
    scaled_H = H * root * root[:, None]
    values = scipy.linalg.eigvalsh(basis.T @ scaled_H @ basis)
    largest = float(np.abs(scaled_H).max(initial=0.0))
    return int(np.sum(values <= 1e-15 * n * max(largest, 1e-300)))


def _scaling(H: Array, C: Array) -> Array:
    """Powers of two that bring diag(H) and the row norms of C near one.

    For H = 2εI this turns a condition number of 1/ε² into that of C Cᵀ.
    """
    diagonal = np.abs(np.diagonal(H)).copy()
    largest = float(diagonal.max(initial=0.0))
    if largest == 0.0:
        diagonal[:] = 1.0
    else:
        diagonal = np.maximum(diagonal, 1e-8 * largest)
    primal = _power_of_two(1.0 / np.sqrt(diagonal))
    norms = np.sqrt(np.einsum("ij,ij,j->i", C, C, primal**2))
    dual = _power_of_two(1.0 / np.where(norms > 0.0, norms, 1.0))
    return np.concatenate([primal, dual])


def _power_of_two(values: Array) -> Array:
    return np.asarray(2.0 ** np.round(np.log2(values)))


def _negative_eigenvalues(factor: Array, pivots: Array) -> int:
    diagonal = np.diagonal(factor)
    # Pivots of a 2×2 block are negative and come in pairs; such a block has one eigenvalue < 0.
    blocks = int(np.sum(pivots < 0)) // 2
    return int(np.sum(diagonal[pivots > 0] < 0.0)) + blocks
