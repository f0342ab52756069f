"""Primal-dual interior-point method for dense convex QP: the start of the reference.

Source: Mehrotra, "On the implementation of a primal-dual interior point method", SIAM J. Optim. 2
(1992); active set by the indicators of El-Bakry, Tapia and Zhang, SIAM Review 36 (1994): the ratio
of successive slacks tends to 0 for an active row and to 1 for an inactive one, the ratio of
successive multipliers the other way round. Unlike λ > s it does not depend on scaling, which
matters for the smoothed LP, where some multipliers are O(ε).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import lapack

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.solution import NoReferenceError, unbounded

_ITERATIONS = 100
_SMALLEST_GAP = 1e-20
_ABSENT = 1e40
_FARKAS = 1e-10
_WELL_CONDITIONED = 1e-8


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Dense data of min ½zᵀPz + qᵀz s.t. Az = b, Gz ≤ h, with P symmetric."""

    P: Array
    q: Array
    A: Array
    b: Array
    G: Array
    h: Array
    name: str = "problem"


@dataclass(frozen=True, eq=False)
class Iterate:
    """Interior point with its guess of the active rows.

    ``gap`` is the complementarity λᵀs relative to the first one's; ``residual`` the largest
    relative infeasibility, primal or dual.
    """

    z: Array
    nu: Array
    lam: Array
    active: NDArray[np.bool_]
    gap: float
    residual: float


class _Factor(Protocol):
    def solve(self, primal: Array, dual: Array) -> tuple[Array, Array]: ...


# From the weights s/λ of the rows (zero for equalities) to a factorization.
Factorize: TypeAlias = "Callable[[Array], _Factor]"


def interior_point(qp: Quadratic, factorize: Factorize | None = None) -> Iterator[Iterate]:
    """Yield the iterates of Mehrotra's predictor-corrector method.

    Ends when no further progress is possible in float64.

    Parameters
    ----------
    qp
        Problem with at least one inequality.
    factorize
        What `range_space` has returned; by default LDLᵀ of the whole system.

    Raises
    ------
    NoReferenceError
        If the iterates prove infeasibility (Farkas) or unboundedness.
    """
    neq, p = qp.b.size, qp.h.size
    C = np.concatenate([qp.A, qp.G])
    make = factorize or _augmented(qp, C)
    rhs = np.concatenate([qp.b, qp.h])
    weights = np.concatenate([np.zeros(neq), np.ones(p)])
    z, y = _System(qp.P, C, weights, make(weights)).solve(-qp.q, rhs)
    nu, lam = y[:neq], y[neq:]
    s, lam = _interior(-lam), _interior(lam)
    first_gap = float(s @ lam)
    data_p = 1.0 + np.abs(rhs).max(initial=0.0)
    data_d = 1.0 + np.abs(qp.q).max(initial=0.0)
    for _ in range(_ITERATIONS):
        _check_certificates(qp, C, z, nu, lam)
        mu = float(s @ lam) / p
        weights = np.concatenate([np.zeros(neq), s / lam])
        newton = _Newton(
            system=_System(qp.P, C, weights, make(weights)),
            dual=qp.P @ z + qp.q + C.T @ np.concatenate([nu, lam]),
            eq=qp.A @ z - qp.b,
            ineq=qp.G @ z + s - qp.h,
            s=s,
            lam=lam,
        )
        _, _, dlam, ds = newton.direction(np.zeros(p))
        step = min(_longest(s, ds), _longest(lam, dlam))
        predicted = float((s + step * ds) @ (lam + step * dlam)) / p
        dz, dnu, dlam, ds = newton.direction((predicted / mu) ** 3 * mu - ds * dlam)
        fraction = max(0.99, 1.0 - mu / max(first_gap, 1e-300))
        step = min(1.0, fraction * min(_longest(s, ds), _longest(lam, dlam)))
        new_s, new_lam = s + step * ds, lam + step * dlam
        finite = all(np.isfinite(v).all() for v in (new_s, new_lam, dz, dnu))
        if not finite or min(new_s.min(), new_lam.min()) <= 0.0:
            return
        active = new_lam / lam > new_s / s
        residual = max(
            np.abs(newton.dual).max() / (data_d + np.abs(qp.P @ z).max()),
            np.abs(newton.eq).max(initial=0.0) / data_p,
            np.abs(newton.ineq).max(initial=0.0) / data_p,
        )
        z, nu, s, lam = z + step * dz, nu + step * dnu, new_s, new_lam
        gap = float(s @ lam) / (1.0 + abs(float(qp.q @ z)))
        # The constraints are linear: a step leaves the fraction 1 − step of every residual.
        yield Iterate(z, nu, lam, active, gap, (1.0 - step) * float(residual))
        if gap < _SMALLEST_GAP or step < 1e-10:
            return


def solve_on_rows(
    qp: Quadratic, active: NDArray[np.bool_], factorize: Factorize
) -> tuple[Array, Array]:
    """Return z and λ of the QP with the active rows as equalities, in float64 and cheaply."""
    C, neq = np.concatenate([qp.A, qp.G]), qp.b.size
    # A weight far above every entry of C P⁻¹ Cᵀ takes a row out.
    weights = np.concatenate([np.zeros(neq), np.where(active, 0.0, _ABSENT)])
    rhs = np.concatenate([qp.b, np.where(active, qp.h, 0.0)])
    z, y = _System(qp.P, C, weights, factorize(weights)).solve(-qp.q, rhs)
    return z, np.where(active, y[neq:], 0.0)


@dataclass(frozen=True, eq=False)
class _System:
    """[P Cᵀ; C −W] with its factorization."""

    P: Array
    C: Array
    weights: Array
    factor: _Factor

    def solve(self, primal: Array, dual: Array) -> tuple[Array, Array]:
        """Solve with up to three steps of refinement."""
        z, y = self.factor.solve(primal, dual)
        previous = np.inf
        for _ in range(3):
            r1 = primal - self.P @ z - self.C.T @ y
            r2 = dual - self.C @ z + self.weights * y
            size = float(np.abs(r1).max() / (np.abs(primal).max() + 1e-300))
            size = max(size, float(np.abs(r2).max(initial=0.0)))
            if not 1e-13 < size < 0.5 * previous:
                break
            previous = size
            dz, dy = self.factor.solve(r1, r2)
            z, y = z + dz, y + dy
        return z, y


@dataclass(frozen=True, eq=False)
class _Newton:
    """Newton system of the perturbed KKT conditions at one iterate."""

    system: _System
    dual: Array
    eq: Array
    ineq: Array
    s: Array
    lam: Array

    def direction(self, target: Array) -> tuple[Array, Array, Array, Array]:
        """Return dz, dν, dλ, ds with s∘λ + s∘dλ + λ∘ds = target."""
        neq = self.eq.size
        right = np.concatenate([-self.eq, -self.ineq + self.s - target / self.lam])
        dz, dy = self.system.solve(-self.dual, right)
        ds = (target - self.s * dy[neq:]) / self.lam - self.s
        return dz, dy[:neq], dy[neq:], ds


def _interior(v: Array) -> Array:
    shift = max(-1.5 * v.min(), 0.0)
    v = v + shift
    return np.asarray(v + max(1e-3, 0.1 * np.abs(v).mean()))


def _longest(v: Array, dv: Array) -> float:
    falling = dv < 0.0
    return float(min(1.0, (-v[falling] / dv[falling]).min(initial=1.0)))


class _RangeSpace:
    """Cholesky of C P⁻¹ Cᵀ + W."""

    def __init__(
        self, solve_p: Callable[[Array], Array], C: Array, product: Array, weights: Array
    ) -> None:
        self.solve_p, self.C = solve_p, C
        at = np.arange(weights.size)
        diagonal = product[at, at] + weights
        for shift in (0.0, 1e-14, 1e-11, 1e-8):
            S = product.copy()
            S[at, at] = diagonal * (1.0 + shift)
            self.factor, info = lapack.dpotrf(S.T, lower=1, overwrite_a=1, clean=0)
            if info == 0:
                return
        raise np.linalg.LinAlgError

    def solve(self, primal: Array, dual: Array) -> tuple[Array, Array]:
        y = lapack.dpotrs(self.factor, self.C @ self.solve_p(primal) - dual, lower=1)[0]
        return self.solve_p(primal - self.C.T @ y), y


class _Augmented:
    """Bunch–Kaufman of [P Cᵀ; C −W]."""

    def __init__(self, K: Array, n: int, weights: Array) -> None:
        self.n = n
        K = K.copy()
        at = np.arange(n, K.shape[0])
        K[at, at] = -weights - 1e-14
        primal = np.arange(n)
        K[primal, primal] += 1e-14
        # Rows of a large weight would spoil the pivoting: scale them to a unit diagonal.
        self.scale = np.concatenate([np.ones(n), 1.0 / np.sqrt(np.maximum(weights, 1.0))])
        K *= self.scale
        K *= self.scale[:, None]
        work = int(lapack.dsytrf_lwork(K.shape[0], lower=1)[0])
        self.factor, self.pivots, _ = lapack.dsytrf(K.T, lower=1, lwork=work, overwrite_a=1)

    def solve(self, primal: Array, dual: Array) -> tuple[Array, Array]:
        rhs = self.scale * np.concatenate([primal, dual])
        x = self.scale * lapack.dsytrs(self.factor, self.pivots, rhs, lower=1)[0]
        return x[: self.n], x[self.n :]


def range_space(qp: Quadratic) -> Factorize | None:
    """Return the cheap factorization, of the size of the constraints alone.

    None if P is not positive definite or so ill conditioned that P⁻¹ would lose digits.
    """
    C = np.concatenate([qp.A, qp.G])
    diagonal = np.diagonal(qp.P)
    if C.shape[0] > 2 * qp.q.size or not (diagonal > 0.0).all():
        return None
    if np.count_nonzero(qp.P) == diagonal.size:

        def solve_p(r: Array) -> Array:
            return np.asarray(r / diagonal)

        half = C / np.sqrt(diagonal)
    else:
        factor, info = lapack.dpotrf(qp.P.T, lower=1)
        norm = float(lapack.dlange("1", qp.P.T))
        if info != 0 or lapack.dpocon(factor, norm, uplo="L")[0] < _WELL_CONDITIONED:
            return None

        def solve_p(r: Array) -> Array:
            return np.asarray(lapack.dpotrs(factor, r, lower=1)[0])

        half = scipy.linalg.solve_triangular(factor, C.T, lower=True, check_finite=False).T
    product = half @ half.T
    return lambda weights: _RangeSpace(solve_p, C, product, weights)


def _augmented(qp: Quadratic, C: Array) -> Factorize:
    n, m = qp.q.size, C.shape[0]
    K = np.zeros((n + m, n + m))
    K[:n, :n] = qp.P
    K[n:, :n] = C
    K[:n, n:] = C.T
    return lambda weights: _Augmented(K, n, weights)


def _check_certificates(qp: Quadratic, C: Array, z: Array, nu: Array, lam: Array) -> None:
    y = np.concatenate([nu, lam])
    value = -(qp.b @ nu + qp.h @ lam)
    if value > 0.0 and np.abs(C.T @ y).max() <= _FARKAS * value:
        raise NoReferenceError(
            f"{qp.name} is infeasible: its constraints contradict each other (Farkas multipliers "
            "found); check A, b, G, h",
            "infeasible",
        )
    length = float(np.abs(z).max())
    if length > 1e8:
        d = z / length
        slope = float(qp.q @ d)
        rows = np.abs(C).max(axis=1, initial=0.0) * 1e-7
        neq = nu.size
        if (
            slope < 0.0
            and np.abs(qp.P @ d).max() <= _FARKAS * -slope
            and (np.abs(qp.A @ d) <= rows[:neq]).all()
            and (qp.G @ d <= rows[neq:]).all()
        ):
            raise unbounded(qp.name)
