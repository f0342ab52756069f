"""Direct solution of the equality-constrained KKT system, dense and sparse.

The backward QP of BPQP, minimize ½ z̃ᵀPz̃ + vᵀz̃ subject to Cz̃ = 0, is the linear system

    ⎡ P  Cᵀ ⎤ ⎡ x ⎤   ⎡ r ⎤
    ⎣ C  0  ⎦ ⎣ y ⎦ = ⎣ s ⎦        r = −v, s = 0,

which is factorized here once and solved with iterative refinement; with another right-hand side it
is one step of a primal-dual active-set method, which `bpqp_bench.layers.active_set` uses to polish.

Dense data go the first way that holds:

1. Cholesky of P and of the Schur complement CP⁻¹Cᵀ, where both are positive definite and far enough
   from singular;
2. Bunch–Kaufman factorization of the whole matrix (LAPACK sytrf);
3. for a singular matrix, least squares: x of least norm among the solutions, y of least norm, the
   constraints' rows taken with unit length. The answer says so.

Sparse data are factorized as LDLᵀ with ±δ on the diagonal, which makes any ordering stable
(Vanderbei, SIAM J. Optim. 5 (1995)), and the refinement takes δ out again; on a singular consistent
system it converges to a least-squares solution (it is the proximal method of multipliers). Where
it does not converge, since the objective is flatter than δ, a small system is solved as dense.

Where the pattern is so irregular that any factorization fills up, ``iterative=True`` solves by
MINRES (Paige and Saunders, SIAM J. Numer. Anal. 12 (1975)) with a diagonal preconditioner of P and
of CP⁻¹Cᵀ, restarted on the residual until that is at rounding level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.linalg import lapack

from bpqp_bench.layers.problem import Phase, no_clock
from bpqp_bench.problem.instance import Array, Matrix

_EPS = float(np.finfo(float).eps)
_FAR_FROM_SINGULAR = 1e-14  # reciprocal condition numbers for Cholesky
_DOUBTFUL = 1e-12  # and for the whole matrix; below it, ranks are revealed
_BACKWARD_STABLE = 1e-12  # residual, relative to the data, that a factorization must reach
_DELTAS = (1e-9, 1e-7, 1e-5)
_INVERSE_ITERATIONS = 3
_DENSE_REFINEMENTS = 6
_SINGULAR = 0.3  # of what an exactly singular matrix shows, see `_near_singular`
_FRAGILE = 1e-6  # part of a row beyond the others, whose square rounding blurs in multipliers
_UNCLEAR = 1e-3  # from here on a small matrix is looked at as a dense one
_DENSE = 3000  # order up to which a sparse system that resists is solved as a dense one
_SMALL = 500  # and up to which one that seems singular is, where least squares take a second
_SPARSE_REFINEMENTS = 200
_MINRES_ENOUGH = 1e-14
_MINRES_STUCK = 1e-9
_MINRES_TOLERANCE = 1e-10

Apply = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class KKTSolution:
    """Solution of one system.

    Attributes
    ----------
    x, y
        Primal part (n,) and multipliers (p,).
    residual
        Normwise backward error: residual over the size of the data times the solution.
    least_squares
        Whether the matrix is singular, so that x or y is one of many (of least norm), or solves
        the system in the least-squares sense only; or so nearly that rounding decides.
    """

    x: Array
    y: Array
    residual: float
    least_squares: bool


@dataclass(frozen=True, eq=False)
class KKTFactor:
    """Factorized system; rows of C are scaled to unit length and P to unit size inside.

    Attributes
    ----------
    how
        "cholesky", "symmetric indefinite", "sparse", "minres" or "least squares".
    work
        Multiplications of a sparse factorization.
    """

    P: Matrix
    C: Matrix
    how: str
    singular: bool
    scale: float
    weights: Array
    apply: Apply
    norms: tuple[float, float]
    work: float = 0.0

    def solve(self, r: Array, s: Array | None = None, clock: Phase = no_clock) -> KKTSolution:
        """Solve for right-hand sides r (n,) and s (p,), zero if not given."""
        s = np.zeros(self.C.shape[0]) if s is None else s
        with clock("solve"):
            found = self._refined(r, s)
        # Negated, so that a residual that is not a number goes on, too; least squares is the last.
        if (
            not found.residual <= _BACKWARD_STABLE
            and not self.singular
            and self.how not in ("least squares", "minres")
            and not (sp.issparse(self.P) and len(r) + len(s) > _DENSE)
        ):
            with clock("setup"):
                other = _next_dense(self)
            return other.solve(r, s, clock)
        return found

    @np.errstate(over="ignore", invalid="ignore")  # subnormal data: the residual tells
    def _refined(self, r: Array, s: Array) -> KKTSolution:
        r_scaled, s_scaled = r / self.scale, s * self.weights
        x, y = self.apply(r_scaled, s_scaled)
        best, left = self._residual(x, y, r_scaled, s_scaled)
        sparse = sp.issparse(self.P)
        enough = _MINRES_ENOUGH if self.how == "minres" else _EPS
        for _ in range(_SPARSE_REFINEMENTS if sparse else _DENSE_REFINEMENTS):
            if best <= enough or self.how == "least squares":
                break
            dx, dy = self.apply(*left)
            error, next_left = self._residual(x + dx, y + dy, r_scaled, s_scaled)
            if not error < 0.9 * best:
                break
            x, y, best, left = x + dx, y + dy, error, next_left
        # Minres does not say whether a matrix is singular, but then it does not get there either;
        # least squares that do not solve the system have dropped rows that nearly repeat others.
        stuck = (self.how == "minres" and best > _MINRES_STUCK) or (
            self.how == "least squares" and best > _BACKWARD_STABLE
        )
        return KKTSolution(x, y * self.scale * self.weights, best, self.singular or stuck)

    def _residual(
        self, x: Array, y: Array, r: Array, s: Array
    ) -> tuple[float, tuple[Array, Array]]:
        top = r - (self.P @ x) / self.scale - self.C.T @ (self.weights * y)
        bottom = s - self.weights * (self.C @ x)
        norm_p, norm_c = self.norms
        size_x, size_y = np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)
        above = norm_p * size_x + norm_c * size_y + np.abs(r).max(initial=0.0)
        # x itself may vanish (a vertex): it is then small against the solution without rows.
        free = np.abs(r).max(initial=0.0) / (norm_p if norm_p > 0.0 else 1.0)
        below = norm_c * (size_x + free) + np.abs(s).max(initial=0.0)
        error = max(
            float(np.abs(top).max(initial=0.0) / above) if above else 0.0,
            float(np.abs(bottom).max(initial=0.0) / below) if below else 0.0,
        )
        return (error if np.isfinite(error) else float("inf")), (top, bottom)


def factorize_kkt(
    P: Matrix, C: Matrix, clock: Phase = no_clock, *, iterative: bool = False
) -> KKTFactor:
    """Factorize the KKT matrix of a symmetric positive semidefinite P (n, n) and rows C (p, n).

    Never raises for a singular matrix: see `KKTSolution.least_squares`.
    """
    with clock("setup"):
        if iterative:
            return _minres(sp.csc_matrix(P), sp.csc_matrix(C))
        if sp.issparse(P) or sp.issparse(C):
            return _sparse(sp.csc_matrix(P), sp.csc_matrix(C))
        scale, weights, norms = _scaling(P, C)
        apply = _cholesky(P, C, scale, weights)
        if apply is not None:
            return KKTFactor(P, C, "cholesky", False, scale, weights, apply, norms)
        return _indefinite(P, C, scale, weights, norms)


def _next_dense(factor: KKTFactor) -> KKTFactor:
    P, C = (M.toarray() if sp.issparse(M) else M for M in (factor.P, factor.C))
    parts = (P, C, factor.scale, factor.weights, factor.norms)
    first = factor.how in ("cholesky", "sparse")
    return _indefinite(*parts) if first else _least_squares(*parts)


def _scaling(P: Matrix, C: Matrix) -> tuple[float, Array, tuple[float, float]]:
    size = float(abs(P).max()) if P.shape[0] else 0.0
    scale = size if size > 0.0 else 1.0
    if sp.issparse(C):
        lengths = np.sqrt(np.asarray(C.multiply(C).sum(axis=1)).ravel())
    else:
        lengths = np.sqrt(np.einsum("ij,ij->i", C, C))
    weights = np.where(lengths > 0.0, 1.0 / np.where(lengths > 0.0, lengths, 1.0), 1.0)
    # Norms up to a modest factor: they only scale the residual that is judged.
    norm_p = float(np.asarray(abs(P).sum(axis=0)).max(initial=0.0)) / scale
    return scale, weights, (norm_p, 1.0)


def _cholesky(P: Array, C: Array, scale: float, weights: Array) -> Apply | None:
    """P = LLᵀ and S = (L⁻¹Cᵀ)ᵀ(L⁻¹Cᵀ) = MMᵀ, or None where they do not exist safely."""
    p = C.shape[0]
    L, failed = lapack.dpotrf(P.T / scale, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    size = float(np.abs(P).sum(axis=0).max()) / scale
    if lapack.dpocon(L, size, uplo="L")[0] < _FAR_FROM_SINGULAR:
        return None
    if p == 0:
        return lambda r, s: (lapack.dpotrs(L, r, lower=1)[0], s)
    W = lapack.dtrtrs(L, (C * weights[:, None]).T, lower=1)[0]
    S = sla.blas.dsyrk(1.0, W, trans=1, lower=1)
    full_size = float((np.abs(S).sum(axis=0) + np.abs(S).sum(axis=1)).max())
    M, failed = lapack.dpotrf(S, lower=1, clean=0, overwrite_a=1)
    if failed or lapack.dpocon(M, full_size, uplo="L")[0] < _FAR_FROM_SINGULAR:
        return None

    def apply(r: Array, s: Array) -> tuple[Array, Array]:
        t = lapack.dtrtrs(L, r, lower=1)[0]
        y = lapack.dpotrs(M, W.T @ t - s, lower=1)[0]
        return lapack.dtrtrs(L, t - W @ y, lower=1, trans=1)[0], y

    return apply


def _indefinite(
    P: Array, C: Array, scale: float, weights: Array, norms: tuple[float, float]
) -> KKTFactor:
    n, p = P.shape[0], C.shape[0]
    K = np.zeros((n + p, n + p), order="F")
    K[:n, :n] = P.T / scale
    K[n:, :n] = C * weights[:, None]  # the lower triangle is all that is read
    size = float(np.abs(K).sum(axis=1).max(initial=1.0))
    work = int(lapack.dsytrf_lwork(n + p, lower=1)[0])
    ldl, pivots, failed = lapack.dsytrf(K, lower=1, lwork=work, overwrite_a=1)
    if failed or lapack.dsycon(ldl, pivots, size, lower=1)[0] < _DOUBTFUL:
        return _least_squares(P, C, scale, weights, norms)

    def apply(r: Array, s: Array) -> tuple[Array, Array]:
        both = lapack.dsytrs(ldl, pivots, np.concatenate([r, s]), lower=1)[0]
        return both[:n], both[n:]

    return KKTFactor(P, C, "symmetric indefinite", False, scale, weights, apply, norms)


def _least_squares(
    P: Array, C: Array, scale: float, weights: Array, norms: tuple[float, float]
) -> KKTFactor:
    """Null-space method with ranks revealed: x of least norm on {Cx = s}, then y of least norm."""
    n, p = P.shape[0], C.shape[0]
    rows = C * weights[:, None]
    Q, R, order, rank = _pivoted(rows)
    pivots = np.abs(np.diag(R))[:rank]
    fragile = rank > 0 and bool(pivots.min() < _FRAGILE * pivots.max())
    range_of, null = Q[:, :rank], Q[:, rank:]
    eigenvalues, V = np.linalg.eigh(null.T @ (P / scale) @ null)
    floor = max(n, 1) * _EPS * max(float(np.abs(eigenvalues).max(initial=0.0)), norms[0] * 1e-3)
    kept = np.abs(eigenvalues) > floor
    basis = null @ V[:, kept]
    singular = rank < p or fragile or not kept.all()

    def apply(r: Array, s: Array) -> tuple[Array, Array]:
        x = np.zeros(n)
        if rank:
            x = range_of @ sla.solve_triangular(R[:rank, :rank], s[order[:rank]], trans="T")
        x = x + basis @ ((basis.T @ (r - (P @ x) / scale)) / eigenvalues[kept])
        y = np.zeros(p)
        if p:
            y = np.linalg.lstsq(rows.T, r - (P @ x) / scale, rcond=max(n, p) * 10 * _EPS)[0]
        return x, y

    return KKTFactor(P, C, "least squares", singular, scale, weights, apply, norms)


def _pivoted(rows: Array) -> tuple[Array, Array, Array, int]:
    p, n = rows.shape
    if p == 0:
        return np.eye(n), np.zeros((n, 0)), np.zeros(0, dtype=np.int64), 0
    Q, R, order = sla.qr(rows.T, pivoting=True)
    pivots = np.abs(np.diag(R))
    rank = int((pivots > max(n, p) * 10 * _EPS * pivots.max(initial=0.0)).sum())
    return Q, R, order, rank


def independent_rows(C: Array) -> Array:
    """Find a largest set of independent rows of C (p, n); return their indices."""
    lengths = np.sqrt(np.einsum("ij,ij->i", C, C))
    _, _, order, rank = _pivoted(C / np.where(lengths > 0.0, lengths, 1.0)[:, None])
    return np.sort(order[:rank])


def _sparse(P: sp.csc_matrix, C: sp.csc_matrix) -> KKTFactor:
    import qdldl  # noqa: PLC0415

    n, p = P.shape[0], C.shape[0]
    scale, weights, norms = _scaling(P, C)
    top, scaled = sp.triu(P / scale, format="csc"), sp.diags(weights) @ C
    for delta in _DELTAS:
        upper = top + delta * sp.eye(n, format="csc")
        corner = -delta * sp.eye(p, format="csc")
        K = sp.bmat([[upper, scaled.T], [None, corner]], format="csc") if p else upper
        try:
            solver = qdldl.Solver(sp.csc_matrix(K), upper=True)
        except RuntimeError:  # rounding of what 1/δ makes large was more than δ
            continue
        near = _near_singular(delta, solver, n + p)
        if near > _UNCLEAR and n + p <= (_DENSE if near <= _SINGULAR else _SMALL):
            return _indefinite(P.toarray(), C.toarray(), scale, weights, norms)

        def apply(r: Array, s: Array, solver: Any = solver) -> tuple[Array, Array]:
            both = np.asarray(solver.solve(np.concatenate([r, s])))
            return both[:n], both[n:]

        work = float((np.diff(solver.factors()[0].indptr).astype(float) ** 2).sum())
        return KKTFactor(P, C, "sparse", near > _SINGULAR, scale, weights, apply, norms, work)
    # No factorization: zeros solve nothing, and the residual says so.
    return KKTFactor(
        P, C, "sparse", True, scale, weights, lambda r, s: (np.zeros(n), np.zeros(p)), norms
    )


def _minres(P: sp.csc_matrix, C: sp.csc_matrix) -> KKTFactor:
    n, p = P.shape[0], C.shape[0]
    scale, weights, norms = _scaling(P, C)
    top, rows = P / scale, sp.csc_matrix(sp.diags(weights) @ C)
    K = sp.csr_matrix(sp.bmat([[top, rows.T], [rows, None]])) if p else sp.csr_matrix(top)
    curvature = np.maximum(top.diagonal(), 1e-8)
    schur = np.asarray(rows.multiply(rows) @ (1.0 / curvature)).ravel()
    preconditioner = sp.diags(1.0 / np.concatenate([curvature, np.where(schur > 0.0, schur, 1.0)]))

    def apply(r: Array, s: Array) -> tuple[Array, Array]:
        both = spla.minres(
            K, np.concatenate([r, s]), M=preconditioner, rtol=_MINRES_TOLERANCE, maxiter=5 * (n + p)
        )[0]
        return both[:n], both[n:]

    return KKTFactor(P, C, "minres", False, scale, weights, apply, norms)


def _near_singular(delta: float, solver: Any, size: int) -> float:
    """Return δ over the eigenvalue nearest to zero: 1 where the unregularized matrix is singular.

    A null vector is an eigenvector of the regularized matrix to the eigenvalue ±δ (dependent rows:
    −δ; no curvature: +δ); inverse iteration from any vector finds it and grows by 1/δ a step.
    Pivots would not do: a row eliminated first has the pivot −δ whatever the rank. Without
    curvature, pivots of δ make factors so large that rounding takes the answer down to a tenth.
    """
    vector = np.random.default_rng(0).standard_normal(size)
    growth = 0.0
    for _ in range(_INVERSE_ITERATIONS):
        vector /= np.linalg.norm(vector)
        vector = np.asarray(solver.solve(vector))
        growth = float(np.linalg.norm(vector))
    return growth * delta
