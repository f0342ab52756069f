"""The active-set method for one dense problem, on LAPACK and NumPy views.

The mathematics is that of `bpqp_bench.layers.primal_dual`; for one small problem the overhead of
torch's operators would be most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from bpqp_bench.layers.primal_dual.rules import (
    ENOUGH,
    EPS,
    FINE,
    MOST_REFINEMENTS,
    MOST_STEPS,
    PATIENCE,
    PIVOT,
    PLAIN_STEPS,
    RESIDUAL,
    ROUGH,
    SHORT,
    WEAK,
)

__all__ = ["Factors", "Point", "adjoint", "solve"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Factors:
    """Cholesky factors of P and of the dual matrix on the rows that bind.

    ``L`` is that of P, ``W`` = L⁻¹Cᵀ and ``T`` the factor of WᵀW, C the equalities and the
    binding inequalities; ``widths`` are the lengths of W's columns.
    """

    L: Array
    W: Array
    T: Array
    C: Array
    widths: Array

    def solve(self, r: Array, s: Array | None = None) -> tuple[Array, Array, float, float]:
        """Solve Px + Cᵀy = r, Cx = s (zero if None).

        Returns x, y, the length of Lᵀx, and what it would be without rows.
        """
        t = blas.dtrsv(self.L, r, lower=1)
        free = blas.dnrm2(t)
        y = t @ self.W
        if y.shape[0]:
            if s is not None:
                y -= s
            y = lapack.dpotrs(self.T, y, lower=1, overwrite_b=1)[0]
            t -= self.W @ y
        return blas.dtrsv(self.L, t, lower=1, trans=1), y, blas.dnrm2(t), free


@dataclass(frozen=True, eq=False, slots=True)
class Point:
    """A solution that passed every test.

    Attributes
    ----------
    z, nu, lam
        Solution (n,), multipliers (neq,) and (nineq,), zero where a row does not bind.
    active, weak
        Masks (nineq,) of the rows that bind, and of those with neither slack nor multiplier.
    primal, dual
        Largest violation of a constraint and largest entry of the Lagrangian's gradient.
    steps
        Factorizations on an active set.
    """

    z: Array
    nu: Array
    lam: Array
    active: Mask
    weak: Mask
    primal: float
    dual: float
    steps: int
    factors: Factors
    P: Array


@dataclass(frozen=True, eq=False, slots=True)
class _Dual:
    """The dual after elimination of the equalities: s = s0 + Sy on the inequalities."""

    L: Array
    W: Array  # all rows, (n, neq + nineq)
    T: Array | None  # factor of the equalities' block
    V: Array | None  # T⁻¹ times the block beside it
    S: Array
    s0: Array
    widths: Array  # |Wᵢ| of all rows
    force: float  # |L⁻¹q|


# Data that are not finite, or nearly dependent, fail the tests below; NumPy need not warn of them.
@np.errstate(all="ignore")
def solve(
    P: Array,
    q: Array,
    A: Array,
    b: Array,
    G: Array,
    h: Array,
    start: Mask | None = None,
    active_tol: float = 0.0,
) -> Point | None:
    """Solve one problem; None where the plain method does not end at a verified solution.

    Parameters
    ----------
    P, q, A, b, G, h
        Float64 arrays, P symmetric.
    start
        Mask (nineq,) of the rows that are thought to bind.
    active_tol
        Relative slack and multiplier of a weakly active row, 0 for the kernel's own.
    """
    dual = _dual(P, q, A, b, G, h)
    if dual is None:
        return None
    neq = b.shape[0]
    widths = dual.widths[neq:]
    rough_y = ROUGH * dual.force  # a force: multiplier times width
    active, settled = (dual.s0 < 0.0 if start is None else start.copy()), False
    fewest, patience = h.shape[0] + 1, PATIENCE
    for step in range(1, MOST_STEPS + 1):
        rows = active.nonzero()[0]
        block = dual.S[rows[:, None], rows]
        F, failed = lapack.dpotrf(block, lower=1, clean=0) if len(rows) else (block, 0)
        if failed:
            return None
        if not settled:
            slack = dual.s0
            if len(rows):
                y = -lapack.dpotrs(F, slack[rows], lower=1)[0]
                slack = slack + y @ dual.S[rows]
                slack[rows] = np.where(y * widths[rows] < -rough_y, -np.inf, 0.0)
            wrong = slack < -ROUGH * widths * dual.force
            count = np.count_nonzero(wrong)
            if count:
                if count < fewest:
                    fewest, patience = count, PATIENCE
                elif step > PLAIN_STEPS:
                    # Block pivoting: the last wrong row alone, until their number falls
                    # (Júdice and Pires, Comput. Oper. Res. 21 (1994)); it always ends.
                    patience -= 1
                    if patience < 0:
                        wrong[: wrong.nonzero()[0][-1]] = False
                active = active ^ wrong
                continue
            settled = True
        if not (F.diagonal() ** 2 > PIVOT * widths[rows] ** 2).all():
            return None
        point, wrong = _refined(P, q, A, b, G, h, dual, rows, F, active, step, active_tol)
        if point is None or not wrong.any():
            return point
        active = active ^ wrong
    return None


def _dual(P: Array, q: Array, A: Array, b: Array, G: Array, h: Array) -> _Dual | None:
    n, neq, m = q.shape[0], b.shape[0], b.shape[0] + h.shape[0]
    L, failed = lapack.dpotrf(P.T, lower=1, clean=0)
    if failed or not (L.diagonal() ** 2 > PIVOT * P.diagonal()).all():
        return None
    right = np.empty((m + 1, n))
    right[:neq], right[neq:m], right[m] = A, G, q
    W = blas.dtrsm(1.0, L, right.T, lower=1, overwrite_b=1)
    gram = W.T @ W
    lengths = gram.diagonal()
    force, widths = float(np.sqrt(lengths[m])), np.sqrt(lengths[:m])
    s0 = h + gram[neq:m, m]
    if not neq:
        return _Dual(L, W, None, None, gram[:m, :m], s0, widths, force)
    T, failed = lapack.dpotrf(gram[:neq, :neq], lower=1)
    if failed or not (T.diagonal() ** 2 > PIVOT * lengths[:neq]).all():
        return None
    V = gram[neq:, :neq].copy()
    V[-1] += b
    V = blas.dtrsm(1.0, T, V.T, lower=1, overwrite_b=1)
    beside = V[:, :-1]
    s0 -= V[:, -1] @ beside
    return _Dual(L, W, T, beside, gram[neq:m, neq:m] - beside.T @ beside, s0, widths, force)


def _refined(
    P: Array,
    q: Array,
    A: Array,
    b: Array,
    G: Array,
    h: Array,
    dual: _Dual,
    rows: NDArray[np.intp],
    F: Array,
    active: Mask,
    step: int,
    active_tol: float,
) -> tuple[Point | None, Mask]:
    """Solve on the given rows to rounding, and say which of them have the wrong sign there."""
    neq, k = b.shape[0], len(rows)
    C, d = (np.concatenate([A, G[rows]]), np.concatenate([b, h[rows]])) if k else (A, b)
    factors = _factors(dual, C, neq, rows, F)
    x, y, length, _ = factors.solve(-q, d)
    for _ in range(MOST_REFINEMENTS):
        gradient = P @ x + q + y @ C
        dx, dy, correction, _ = factors.solve(-gradient, d - C @ x)
        x, y = x + dx, y + dy
        if correction <= ENOUGH * length:
            break
    Px = P @ x
    gradient = Px + q + y @ C
    slack = h - G @ x
    widths = dual.widths[neq:]
    lam = np.zeros(h.shape[0])
    lam[rows] = y[neq:]
    error_y = np.zeros(h.shape[0])
    error_y[rows] = np.abs(dy[neq:])
    near = widths * (correction + FINE * length) + FINE * np.abs(h)
    light = error_y + FINE * dual.force / np.where(widths > 0.0, widths, 1.0)
    wrong = np.where(active, lam < -light, slack < -near)
    # Positive assertions, so that whatever is not finite fails them.
    off = np.abs(C @ x - d)
    allowed = (RESIDUAL * length + EPS * dual.force) * factors.widths + EPS * np.abs(d)
    size = max(float(np.abs(q).max()), float(np.abs(Px).max()))
    steep = float(np.abs(gradient).max())
    if not ((off <= allowed).all() and steep <= RESIDUAL * size and np.isfinite(slack).all()):
        return None, wrong
    tolerance = active_tol or WEAK
    weak = (np.abs(np.where(active, 0.0, slack)) <= near + tolerance * widths * length) & (
        lam * widths <= error_y * widths + tolerance * dual.force
    )
    lam = np.maximum(lam, 0.0)
    primal = max(float(off.max(initial=0.0)), float(-slack.min(initial=0.0)))
    return (
        Point(x, y[:neq], lam, active, weak, primal, steep, step, factors, P),
        wrong,
    )


def _factors(dual: _Dual, C: Array, neq: int, rows: NDArray[np.intp], F: Array) -> Factors:
    k, all_widths = len(rows), dual.widths
    if not k:
        T = dual.T if dual.T is not None else F
        return Factors(dual.L, dual.W[:, :neq], T, C, all_widths[:neq])
    if dual.T is None or dual.V is None:
        return Factors(dual.L, np.asfortranarray(dual.W[:, rows]), F, C, all_widths[rows])
    T = np.zeros((neq + k, neq + k), order="F")
    T[:neq, :neq] = dual.T
    T[neq:, :neq] = dual.V[:, rows].T
    T[neq:, neq:] = F
    W = np.empty((neq + k, dual.L.shape[0]))
    W[:neq], W[neq:] = dual.W[:, :neq].T, dual.W.T[neq + rows]
    widths = np.concatenate([all_widths[:neq], all_widths[neq + rows]])
    return Factors(dual.L, W.T, T, C, widths)


def adjoint(point: Point, upstream: Array) -> tuple[Array, Array, Array, float]:
    """Solve the backward QP for v (n,): z̃, ν̃, λ̃ (nineq,) and the relative residual.

    The residual is that of the adjoint equations, relative to v and to the rows; a first answer
    that is worse than 1e-11 is refined.
    """
    factors, neq = point.factors, point.nu.shape[0]
    x, y, length, free = factors.solve(-upstream)
    size = float(np.abs(upstream).max())
    scale = max(length, SHORT * free)
    for attempt in range(MOST_REFINEMENTS + 1):
        left = point.P @ x + upstream + y @ factors.C
        residual = float(np.abs(left).max()) / size if size else 0.0
        off = factors.C @ x
        if off.shape[0] and scale:
            residual = max(residual, float((np.abs(off) / factors.widths).max()) / scale)
        if residual <= RESIDUAL or attempt == MOST_REFINEMENTS:
            break
        dx, dy, _, _ = factors.solve(-left, -off)
        x, y = x + dx, y + dy
    lam = np.zeros(point.lam.shape[0])
    lam[point.active] = y[neq:]
    return x, y[:neq], lam, residual
