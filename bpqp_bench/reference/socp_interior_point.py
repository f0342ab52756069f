"""Primal-dual interior-point method for second-order cone programs with quadratic objective.

    minimize ½zᵀPz + qᵀz  s.t.  Az = b,  Gz ≤ h,  (cᵢᵀz + dᵢ, Fᵢz + gᵢ) in the second-order cone

Sources: Nesterov and Todd, SIAM J. Optim. 8 (1998); Vandenberghe, "The CVXOPT linear and quadratic
cone program solvers" (2010), sections 5 to 7; Mehrotra's predictor-corrector as in
`qp_interior_point`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack

from bpqp_bench.problem.instance import Array, Matrix, SecondOrderCone
from bpqp_bench.reference.qp_interior_point import Quadratic
from bpqp_bench.reference.solution import NoReferenceError, unbounded

_ITERATIONS = 100
_SMALLEST_GAP = 1e-14
_FARKAS = 1e-10
_INSIDE = 1e-3


@dataclass(frozen=True, eq=False)
class ConeGroup:
    """Cones ‖Fz + gᵢ‖ ≤ cᵢᵀz + dᵢ, i = 1..p, that share F (k, n); g (p, k), c (p, n), d (p,).

    ``index`` holds their places in the instance. A robust LP has one group for all its cones,
    whose work is then that of one.
    """

    F: Matrix
    g: Array
    c: Array
    d: Array
    index: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ConicIterate:
    """Interior point; ``active``, ``active_cones`` and ``tips`` (at their tip) are guesses."""

    z: Array
    nu: Array
    lam: Array
    mu: Array
    active: NDArray[np.bool_]
    active_cones: NDArray[np.bool_]
    tips: NDArray[np.bool_]
    gap: float
    residual: float


def group_cones(cones: Sequence[SecondOrderCone]) -> list[ConeGroup]:
    """Collect cones with equal F."""
    shared: list[tuple[Matrix, list[int]]] = []
    for i, cone in enumerate(cones):
        for F, members in shared:
            if _same(F, cone.F):
                members.append(i)
                break
        else:
            shared.append((cone.F, [i]))
    return [
        ConeGroup(
            F=F.tocsr() if sp.issparse(F) else np.asarray(F),
            g=np.array([cones[i].g for i in members]),
            c=np.array([cones[i].c for i in members]),
            d=np.array([cones[i].d for i in members]),
            index=np.array(members),
        )
        for F, members in shared
    ]


def _same(F: Matrix, other: Matrix) -> bool:
    if F is other:
        return True
    if F.shape != other.shape or sp.issparse(F) != sp.issparse(other):
        return False
    return abs(F - other).nnz == 0 if sp.issparse(F) else bool(np.array_equal(F, other))


@dataclass(frozen=True, eq=False)
class _Block:
    """Vectors of one group of cones, or of the half-line cones of Gz ≤ h (k = 0)."""

    head: Array  # (p,)
    tail: Array  # (p, k)

    def __add__(self, other: _Block) -> _Block:
        return _Block(self.head + other.head, self.tail + other.tail)

    def __neg__(self) -> _Block:
        return _Block(-self.head, -self.tail)

    def __sub__(self, other: _Block) -> _Block:
        return self + (-other)

    def times(self, factor: Array | float) -> _Block:
        """Multiply the vector of every cone by its factor."""
        scale = np.broadcast_to(np.asarray(factor), self.head.shape)
        return _Block(scale * self.head, scale[:, None] * self.tail)

    def inner(self, other: _Block) -> Array:
        """Inner product cone by cone, (p,)."""
        return np.asarray(self.head * other.head + np.einsum("ij,ij->i", self.tail, other.tail))

    def determinant(self) -> Array:
        """Head² − ‖tail‖², (p,)."""
        length = np.linalg.norm(self.tail, axis=1)
        return np.asarray((self.head - length) * (self.head + length))

    def reflect(self) -> _Block:
        """Multiply by J = diag(1, −I)."""
        return _Block(self.head, -self.tail)

    def product(self, other: _Block) -> _Block:
        """Jordan product."""
        tail = self.head[:, None] * other.tail + other.head[:, None] * self.tail
        return _Block(self.inner(other), tail)

    def divide(self, other: _Block) -> _Block:
        """Return x with self ∘ x = other."""
        head = self.reflect().inner(other) / self.determinant()
        return _Block(head, (other.tail - head[:, None] * self.tail) / self.head[:, None])

    def longest(self, step: _Block) -> float:
        """Largest t ≤ 1 with self + t·step in the cone."""
        a = step.determinant()
        b = self.reflect().inner(step)
        c = self.determinant()
        discriminant = b * b - a * c
        # Zero for a half-line, where rounding must not turn it into "never leaves".
        tiny = np.abs(discriminant) <= 1e-12 * b * b
        with np.errstate(invalid="ignore", divide="ignore"):
            speed = (-b + np.sqrt(np.where(tiny, 0.0, discriminant))) / c
        speed = np.where(np.isfinite(speed), speed, 0.0)
        return float(1.0 / max(1.0, speed.max(initial=0.0)))

    def shifted(self) -> _Block:
        """Move into the interior along the identity."""
        outside = float((np.linalg.norm(self.tail, axis=1) - self.head).max(initial=-np.inf))
        if outside < -1e-8:
            return self
        return _Block(self.head + 1.0 + outside, self.tail)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """Nesterov–Todd scaling W with W y = W⁻¹ s."""

    eta: Array
    w: _Block

    @classmethod
    def of(cls, s: _Block, y: _Block) -> _Scaling:
        det_s, det_y = s.determinant(), y.determinant()
        s_unit, y_unit = s.times(det_s**-0.5), y.times(det_y**-0.5)
        gamma = np.sqrt(0.5 * (1.0 + s_unit.inner(y_unit)))
        w = (s_unit + y_unit.reflect()).times(0.5 / gamma)
        return cls((det_s / det_y) ** 0.25, w)

    def apply(self, x: _Block) -> _Block:
        """Return W x."""
        return _hyperbolic(self.w, x).times(self.eta)

    def inverse(self, x: _Block) -> _Block:
        """Return W⁻¹ x."""
        return _hyperbolic(self.w.reflect(), x).times(1.0 / self.eta)


def _hyperbolic(w: _Block, x: _Block) -> _Block:
    inner = np.einsum("ij,ij->i", w.tail, x.tail)
    factor = x.head + inner / (1.0 + w.head)
    return _Block(w.head * x.head + inner, x.tail + factor[:, None] * w.tail)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Conic constraints 𝒢z + s = 𝒽 of one block."""

    c: Array  # (p, n)
    F: Matrix  # (k, n)
    gram: Array | None  # FᵀF
    right: _Block

    def apply(self, z: Array) -> _Block:
        """Return 𝒢z."""
        tail = -np.asarray(self.F @ z)
        return _Block(-(self.c @ z), np.broadcast_to(tail, self.right.tail.shape))

    def adjoint(self, y: _Block) -> Array:
        """Return 𝒢ᵀy."""
        return np.asarray(-(self.c.T @ y.head) - self.F.T @ y.tail.sum(axis=0))

    def normal(self, scaling: _Scaling) -> Array:
        """Return 𝒢ᵀW⁻²𝒢 with W⁻² = η⁻²(2 Jw wᵀJ − J)."""
        weight = scaling.eta**-2.0
        if self.gram is None:  # half-lines: W⁻² = η⁻²
            return np.asarray(self.c.T @ (weight[:, None] * self.c))
        reflected = scaling.w.reflect()
        rows = -(reflected.head[:, None] * self.c) - reflected.tail @ self.F
        result = rows.T @ ((2.0 * weight)[:, None] * rows) + weight.sum() * self.gram
        return np.asarray(result - self.c.T @ (weight[:, None] * self.c))


@dataclass(frozen=True, eq=False)
class _Newton:
    """Factorized Newton system of one iterate."""

    A: Array
    blocks: list[_Rows]
    scalings: list[_Scaling]
    H: Array
    factor: Array
    pivots: Array

    def direction(
        self, dual: Array, eq: Array, ineq: list[_Block], target: list[_Block]
    ) -> tuple[Array, Array, list[_Block], list[_Block]]:
        """Solve for dz, dν, dy, ds given residuals and t = W dy + W⁻¹ ds."""
        shifted = [r + w.apply(t) for r, w, t in zip(ineq, self.scalings, target, strict=True)]
        right = -dual
        for rows, w, r in zip(self.blocks, self.scalings, shifted, strict=True):
            right = right - rows.adjoint(w.inverse(w.inverse(r)))
        n = right.size
        rhs = np.concatenate([right, -eq])
        x = lapack.dsytrs(self.factor, self.pivots, rhs, lower=1)[0]
        for _ in range(2):
            left = rhs - np.concatenate([self.H @ x[:n] + self.A.T @ x[n:], self.A @ x[:n]])
            x = x + lapack.dsytrs(self.factor, self.pivots, left, lower=1)[0]
        dz = x[:n]
        dy = [
            w.inverse(w.inverse(rows.apply(dz) + r))
            for rows, w, r in zip(self.blocks, self.scalings, shifted, strict=True)
        ]
        ds = [w.apply(t - w.apply(d)) for w, t, d in zip(self.scalings, target, dy, strict=True)]
        return dz, x[n:], dy, ds


def interior_point_conic(qp: Quadratic, groups: Sequence[ConeGroup]) -> Iterator[ConicIterate]:
    """Yield the iterates; ends when no further progress is possible in float64.

    Raises
    ------
    NoReferenceError
        If the iterates prove infeasibility or unboundedness.
    """
    n = qp.q.size
    blocks = _blocks(qp, groups)
    degree = sum(rows.right.head.size for rows in blocks)
    identity = [_Scaling(np.ones(r.right.head.size), _unit(r.right)) for r in blocks]
    first = _newton(qp, blocks, identity)
    zero = [rows.right.times(0.0) for rows in blocks]
    z, nu, y, _ = first.direction(qp.q, -qp.b, [-rows.right for rows in blocks], zero)
    s = [(-v).shifted() for v in y]
    y = [v.shifted() for v in y]
    scale_p = 1.0 + max(
        np.abs(qp.b).max(initial=0.0), *(np.abs(r.right.head).max(initial=0.0) for r in blocks)
    )
    scale_d = 1.0 + np.abs(qp.q).max()
    for _ in range(_ITERATIONS):
        forces = sum((rows.adjoint(v) for rows, v in zip(blocks, y, strict=True)), np.zeros(n))
        dual = qp.P @ z + qp.q + qp.A.T @ nu + forces
        eq = qp.A @ z - qp.b
        ineq = [rows.apply(z) + v - rows.right for rows, v in zip(blocks, s, strict=True)]
        _check_certificates(qp, blocks, z, (nu, y))
        mu = _gap(s, y) / degree
        scalings = [_Scaling.of(a, b) for a, b in zip(s, y, strict=True)]
        newton = _newton(qp, blocks, scalings)
        lam = [w.apply(v) for w, v in zip(scalings, y, strict=True)]
        _, _, dy, ds = newton.direction(dual, eq, ineq, [-v for v in lam])
        step = _longest(s, ds, y, dy)
        centering = (1.0 - step) ** 3
        target = []
        for v, w, a, b in zip(lam, scalings, ds, dy, strict=True):
            correction = w.inverse(a).product(w.apply(b))
            wanted = _unit(v).times(centering * mu) - v.product(v) - correction
            target.append(v.divide(wanted))
        dz, dnu, dy, ds = newton.direction(dual, eq, ineq, target)
        step = min(1.0, 0.99 * _longest(s, ds, y, dy))
        if not (np.isfinite(step) and np.isfinite(dz).all() and np.isfinite(dnu).all()):
            return
        new_s = [a + d.times(step) for a, d in zip(s, ds, strict=True)]
        new_y = [a + d.times(step) for a, d in zip(y, dy, strict=True)]
        if min(float(v.determinant().min(initial=1.0)) for v in (*new_s, *new_y)) <= 0.0:
            return
        residual = max(
            float(np.abs(dual).max()) / scale_d,
            float(np.abs(eq).max(initial=0.0)) / scale_p,
            *(float(np.abs(r.head).max(initial=0.0)) / scale_p for r in ineq),
        )
        z, nu, s, y = z + step * dz, nu + step * dnu, new_s, new_y
        gap = _gap(s, y) / (1.0 + abs(float(qp.q @ z)))
        yield _iterate(qp, groups, (z, nu, s, y), (gap, (1.0 - step) * residual))
        if gap < _SMALLEST_GAP or step < 1e-8:
            return


def _blocks(qp: Quadratic, groups: Sequence[ConeGroup]) -> list[_Rows]:
    n = qp.q.size
    lines = _Rows(-qp.G, np.zeros((0, n)), None, _Block(qp.h, np.zeros((qp.h.size, 0))))
    result = [lines] if qp.h.size else []
    for group in groups:
        gram = group.F.T @ group.F
        gram = gram.toarray() if sp.issparse(gram) else np.asarray(gram)
        result.append(_Rows(group.c, group.F, gram, _Block(group.d, group.g)))
    return result


def _iterate(
    qp: Quadratic,
    groups: Sequence[ConeGroup],
    point: tuple[Array, Array, list[_Block], list[_Block]],
    quality: tuple[float, float],
) -> ConicIterate:
    z, nu, s, y = point
    rights = ([qp.h] if qp.h.size else []) + [group.d for group in groups]
    # Slacks and multipliers are scaled separately: their units are unrelated.
    unit_s = max(float(np.maximum(a.head, np.abs(r)).max()) for a, r in zip(s, rights, strict=True))
    unit_y = max(float(np.abs(qp.q).max()), *(float(v.head.max()) for v in y))
    guesses = [b.head * unit_s > _slack(a) * unit_y for a, b in zip(s, y, strict=True)]
    lines = 1 if qp.h.size else 0
    total = sum(group.index.size for group in groups)
    mu, active_cones, tips = np.zeros(total), np.zeros(total, bool), np.zeros(total, bool)
    for group, v, guess in zip(groups, y[lines:], guesses[lines:], strict=True):
        mu[group.index], active_cones[group.index] = v.head, guess
        # At a tip y lies inside its cone, elsewhere it tends to the boundary with s.
        tips[group.index] = guess & (_slack(v) > _INSIDE * v.head)
    return ConicIterate(
        z=z,
        nu=nu,
        lam=y[0].head if lines else np.zeros(0),
        mu=mu,
        active=guesses[0] if lines else np.zeros(0, dtype=bool),
        active_cones=active_cones,
        tips=tips,
        gap=quality[0],
        residual=quality[1],
    )


def _newton(qp: Quadratic, blocks: list[_Rows], scalings: list[_Scaling]) -> _Newton:
    H = qp.P.copy()
    for rows, w in zip(blocks, scalings, strict=True):
        H += rows.normal(w)
    n, neq = H.shape[0], qp.A.shape[0]
    K = np.zeros((n + neq, n + neq))
    K[:n, :n] = H
    K[n:, :n] = qp.A
    K[:n, n:] = qp.A.T
    diagonal = np.arange(n)
    K[diagonal, diagonal] += 1e-15 * np.abs(np.diagonal(H)).max()
    work = int(lapack.dsytrf_lwork(n + neq, lower=1)[0])
    factor, pivots, _ = lapack.dsytrf(K.T, lower=1, lwork=work, overwrite_a=1)
    return _Newton(qp.A, blocks, scalings, H, factor, pivots)


def _unit(like: _Block) -> _Block:
    return _Block(np.ones_like(like.head), np.zeros_like(like.tail))


def _gap(s: list[_Block], y: list[_Block]) -> float:
    return float(sum(a.inner(b).sum() for a, b in zip(s, y, strict=True)))


def _slack(s: _Block) -> Array:
    return np.asarray(s.head - np.linalg.norm(s.tail, axis=1))


def _longest(s: list[_Block], ds: list[_Block], y: list[_Block], dy: list[_Block]) -> float:
    return min(a.longest(d) for a, d in zip((*s, *y), (*ds, *dy), strict=True))


def _check_certificates(
    qp: Quadratic, blocks: list[_Rows], z: Array, dual: tuple[Array, list[_Block]]
) -> None:
    nu, y = dual
    forces = qp.A.T @ nu
    value = -float(qp.b @ nu)
    for rows, v in zip(blocks, y, strict=True):
        forces = forces + rows.adjoint(v)
        value -= float(rows.right.inner(v).sum())
    if value > 0.0 and np.abs(forces).max() <= _FARKAS * value:
        raise NoReferenceError(
            f"{qp.name} is infeasible: its constraints contradict each other (conic Farkas "
            "multipliers found); check A, b, G, h and the cones",
            "infeasible",
        )
    length = float(np.abs(z).max())
    if length > 1e8:
        d = z / length
        slope = float(qp.q @ d)
        inside = min(float(_slack(-rows.apply(d)).min(initial=0.0)) for rows in blocks)
        flat = np.abs(qp.P @ d).max() <= _FARKAS * abs(slope)
        level = np.abs(qp.A @ d).max(initial=0.0) <= 1e-7 * (1.0 + np.abs(qp.A).max(initial=0.0))
        if slope < 0.0 and flat and level and inside >= -1e-7:
            raise unbounded(qp.name)
