"""Second-order cone programs: active constraints, Newton's method in double-double, gradients.

Away from its tip a cone is the smooth constraint ρᵢ(z) − cᵢᵀz − dᵢ ≤ 0 with ρᵢ = ‖Fᵢz + gᵢ‖. On the
active rows and cones the KKT conditions are then smooth equations,

    Pz + q + Aᵀν + G₊ᵀλ₊ + Σ μᵢ (Fᵢᵀuᵢ − cᵢ) = 0,  Az = b,  G₊z = h₊,  ρᵢ = cᵢᵀz + dᵢ

with uᵢ = (Fᵢz + gᵢ)/ρᵢ, and their Jacobian is the K of the backward QP with
H = P + Σ (μᵢ/ρᵢ) Fᵢᵀ(I − uᵢuᵢᵀ)Fᵢ. Residuals and
products with K are in double-double, the factorization is of K rounded to float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.extended import DD, ExactProduct, concatenate
from bpqp_bench.reference.kkt import KKTSystem, null_directions, rank_deficiency
from bpqp_bench.reference.point import Mask, Point
from bpqp_bench.reference.qp_interior_point import Quadratic
from bpqp_bench.reference.socp_interior_point import (
    ConeGroup,
    ConicIterate,
    interior_point_conic,
)
from bpqp_bench.reference.solution import not_certified

Index = NDArray[np.intp]

_CONVERGED = 1e-5  # gap from which guesses are tried: a wrong one costs little and is seen
_AT_TIP = 1e-8  # gap at which an interior point is returned as the tip that it tends to
_CORRECTIONS = 6
_NEWTON_STEPS = 40
_TARGET = 1e-25  # relative Newton step at which iteration ends
_FRESH = 1e-6  # above this relative step the Jacobian is factorized anew
_ACCEPTED = 1e-18  # residual relative to its terms
_ACCEPTED_SINGULAR = 1e-13  # a singular system is consistent only up to rounding of its data
_FEASIBLE = 1e-14  # relative violation or negative multiplier; such a margin is degenerate anyway
_TIP = 1e-7  # ρ relative to g and d below which a cone is taken to be at its tip
_SINGULAR = 1e14


def solve_conic(qp: Quadratic, cones: Sequence[ConeGroup]) -> Point:
    """Solve to double-double accuracy.

    Raises
    ------
    NoReferenceError
        If the problem is infeasible or unbounded, or no active set could be certified.
    """
    last: ConicIterate | None = None
    for iterate in interior_point_conic(qp, cones):
        stable = (
            last is not None
            and bool((last.active == iterate.active).all())
            and bool((last.active_cones == iterate.active_cones).all())
        )
        last = iterate
        if stable and max(iterate.gap, iterate.residual) < _CONVERGED:
            found = _correct(qp, cones, iterate)
            if found is not None:
                return found
    if last is not None and last.gap < 1e-6:
        found = _correct(qp, cones, last) or _at_tip(qp, cones, last)
        if found is not None:
            return found
    gap = last.gap if last else float("nan")
    raise not_certified(qp.name, f"the interior-point method stopped at a gap of {gap:.1e}")


class _Cone:
    """Active members of one group at a point: r, ρ, u and what is built from them."""

    def __init__(self, group: ConeGroup, members: Index) -> None:
        self.F = group.F.toarray() if sp.issparse(group.F) else group.F
        self.rho, self.u, self.bound = DD.of(0.0), DD.of(0.0), DD.of(0.0)
        self.g, self.c, self.d = group.g[members], group.c[members], group.d[members]
        self.product, self.adjoint = ExactProduct(self.F), ExactProduct(self.F.T)
        self.linear, self.linear_T = ExactProduct(self.c), ExactProduct(self.c.T)

    def move(self, z: DD) -> None:
        """Evaluate at z."""
        image = self.product @ z
        r = DD(image.hi[None], image.lo[None]) + self.g
        self.rho = r.dot(r).sqrt()
        self.u = r / DD(self.rho.hi[:, None], self.rho.lo[:, None])
        self.bound = self.linear @ z + self.d

    def gradients(self) -> Array:
        """Rows Fᵀuᵢ − cᵢ, float64."""
        return np.asarray(self.u.hi @ self.F - self.c)

    def hessian(self, mu: Array) -> Array:
        """Σ (μᵢ/ρᵢ) Fᵀ(I − uᵢuᵢᵀ)F, float64."""
        weight = mu / self.rho.hi
        rows = self.u.hi @ self.F
        return np.asarray(weight.sum() * (self.F.T @ self.F) - rows.T @ (weight[:, None] * rows))

    def force(self, mu: DD) -> DD:
        """Σ μᵢ (Fᵀuᵢ − cᵢ)."""
        weighted = self.u * DD(mu.hi[:, None], mu.lo[:, None])
        return self.adjoint @ weighted.T.sum() - self.linear_T @ mu

    def rates(self, w: DD) -> DD:
        """(Fᵀuᵢ − cᵢ)ᵀ w."""
        image = self.product @ w
        return self.u.dot(DD(image.hi[None], image.lo[None])) - self.linear @ w

    def curvature(self, w: DD, mu: DD) -> DD:
        """Product of `hessian` with w."""
        image = self.product @ w
        image = DD(image.hi[None], image.lo[None])
        along = self.u.dot(image)
        weight = mu / self.rho
        across = image - self.u * DD(along.hi[:, None], along.lo[:, None])
        return self.adjoint @ (across * DD(weight.hi[:, None], weight.lo[:, None])).T.sum()


class _Smooth:
    """The smooth KKT equations on given active rows and cones."""

    def __init__(self, qp: Quadratic, groups: Sequence[ConeGroup], at: ConicIterate) -> None:
        self.qp = qp
        self.rows = np.concatenate([qp.A, qp.G[at.active]])
        self.right = np.concatenate([qp.b, qp.h[at.active]])
        self._P, self._C = ExactProduct(qp.P), ExactProduct(self.rows)
        self._CT = ExactProduct(self.rows.T)
        self.cones: list[_Cone] = []
        order: list[Index] = []
        for group in groups:
            members = np.flatnonzero(at.active_cones[group.index])
            if members.size:
                self.cones.append(_Cone(group, members))
                order.append(group.index[members])
        self.order = np.concatenate(order) if order else np.zeros(0, dtype=np.intp)

    def split(self, x: DD) -> tuple[DD, DD, list[DD]]:
        """Return z, (ν, λ₊), and μ by group."""
        n, m = self.qp.q.size, self.right.size
        parts, start = [], n + m
        for cone in self.cones:
            parts.append(x[start : start + cone.d.size])
            start += cone.d.size
        return x[:n], x[n : n + m], parts

    def move(self, x: DD) -> DD:
        """Evaluate the cones at x and return minus the residual of the equations."""
        z, y, mus = self.split(x)
        stationarity = self._P @ z + self.qp.q + self._CT @ y
        parts = [self._C @ z - self.right]
        for cone, mu in zip(self.cones, mus, strict=True):
            cone.move(z)
            stationarity = stationarity + cone.force(mu)
            parts.append(cone.rho - cone.bound)
        return -concatenate(stationarity, *parts)

    def jacobian(self, x: DD) -> tuple[Array, Array]:
        """Return H and C at the point last moved to."""
        _, _, mus = self.split(x)
        H = self.qp.P.copy()
        for cone, mu in zip(self.cones, mus, strict=True):
            H += cone.hessian(mu.hi)
        return H, np.concatenate([self.rows, *(cone.gradients() for cone in self.cones)])

    def system(self, x: DD, shift: float = 0.0) -> KKTSystem:
        """Return K at the point last moved to, with products in double-double."""
        H, C = self.jacobian(x)
        _, _, mus = self.split(x)

        def apply(w: DD) -> DD:
            w_z, w_y, w_mus = self.split(w)
            top = self._P @ w_z + self._CT @ w_y
            parts = [self._C @ w_z]
            for cone, mu, w_mu in zip(self.cones, mus, w_mus, strict=True):
                top = top + cone.curvature(w_z, mu) + cone.force(w_mu)
                parts.append(cone.rates(w_z))
            return concatenate(top, *parts)

        return KKTSystem(0.5 * (H + H.T), C, shift=shift, apply=apply)


def _correct(qp: Quadratic, groups: Sequence[ConeGroup], iterate: ConicIterate) -> Point | None:
    """Try the guess of an interior point; rows that fail the test change sides."""
    for _ in range(_CORRECTIONS):
        tried = _attempt(qp, groups, iterate)
        if not isinstance(tried, _Judged):
            return tried
        iterate = replace(
            iterate,
            active=iterate.active ^ tried.wrong_rows,
            active_cones=iterate.active_cones ^ tried.wrong_cones,
        )
    return None


def _attempt(
    qp: Quadratic, groups: Sequence[ConeGroup], iterate: ConicIterate
) -> Point | _Judged | None:
    """Newton's method from an interior point, then the test of all KKT conditions.

    Returns the verdict if rows are on the wrong side, None if Newton's method failed.
    """
    if _tips(groups, iterate).any():
        return None
    smooth = _Smooth(qp, groups, iterate)
    n, neq = qp.q.size, qp.b.size
    x = DD.of(
        np.concatenate(
            [iterate.z, iterate.nu, iterate.lam[iterate.active], iterate.mu[smooth.order]]
        )
    )
    left = smooth.move(x)
    system: KKTSystem | None = None
    primal_null = dual_null = 0
    previous = error = np.inf
    with np.errstate(all="ignore"):
        for _ in range(_NEWTON_STEPS):
            if system is None or error > _FRESH:
                H, C = smooth.jacobian(x)
                system = smooth.system(x)
                if C.shape[0] > n or system.condition > _SINGULAR:
                    dual_null, primal_null = rank_deficiency(C), null_directions(H, C)
                    if dual_null or primal_null:
                        system = smooth.system(x, shift=1e-8)
            if not left.hi.any():
                error = 0.0
                break
            step = system.solve(left.hi)
            length = float(np.linalg.norm(step))
            if not length <= 0.5 * previous:
                break
            x = x + step
            left = smooth.move(x)
            previous, error = length, length / max(float(np.linalg.norm(x.hi)), 1e-300)
            if error <= _TARGET:
                break
    if not np.isfinite(x.hi).all() or not np.isfinite(left.hi).all():
        return None
    system = smooth.system(x, shift=1e-8 if primal_null or dual_null else 0.0)
    z, nu = x[:n], x[n : n + neq]
    m = smooth.right.size
    lam = DD(np.zeros(qp.h.size), np.zeros(qp.h.size))
    lam.hi[iterate.active], lam.lo[iterate.active] = x.hi[n + neq : n + m], x.lo[n + neq : n + m]
    mu = np.zeros(iterate.mu.size)
    mu[smooth.order] = x.hi[n + m :]
    judged = _judge(qp, groups, iterate, (z.hi, nu.hi, lam.hi, mu))
    residual = np.abs(left.hi)
    allowed = _ACCEPTED_SINGULAR if primal_null or dual_null else _ACCEPTED
    if residual.max() > allowed * judged.scale:
        return None
    if judged.wrong_rows.any() or judged.wrong_cones.any():
        return judged
    multipliers = np.abs(x.hi[n + neq :])
    return Point(
        z=z,
        nu=nu,
        lam=lam,
        mu=mu,
        active=iterate.active,
        active_cones=iterate.active_cones,
        system=system,
        margin=judged.margin,
        primal=float(residual[n:].max(initial=0.0)),
        dual=float(residual[:n].max()),
        complementarity=float((multipliers * residual[n + neq :]).max(initial=0.0)),
        error=float(error),
        primal_null=primal_null,
        dual_null=dual_null,
        method="interior point",
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    wrong_rows: Mask  # violated, or with a negative multiplier
    wrong_cones: Mask
    margin: float
    scale: float  # of the terms of the stationarity condition


def _judge(
    qp: Quadratic,
    groups: Sequence[ConeGroup],
    iterate: ConicIterate,
    point: tuple[Array, Array, Array, Array],
) -> _Judged:
    z, nu, lam, mu = point
    length = float(np.linalg.norm(z))
    row_largest = np.abs(qp.G).max(axis=1, initial=0.0)
    slack = qp.h - qp.G @ z
    slack_scale = np.abs(qp.h) + np.linalg.norm(qp.G, axis=1) * length + 1e-300
    row_slack = np.where(iterate.active, 0.0, slack / slack_scale)
    row_weight = lam * row_largest
    cone_slack, cone_weight = np.zeros(mu.size), np.zeros(mu.size)
    for group in groups:
        r = np.asarray(group.F @ z) + group.g
        rho = np.linalg.norm(r, axis=1)
        bound = group.c @ z + group.d
        u = r / np.maximum(rho, 1e-300)[:, None]
        gradient = np.asarray(u @ group.F) - group.c
        scale = rho + np.abs(group.c) @ np.abs(z) + np.abs(group.d) + 1e-300
        cone_slack[group.index] = (bound - rho) / scale
        cone_weight[group.index] = mu[group.index] * np.abs(gradient).max(axis=1)
    cone_slack[iterate.active_cones] = 0.0
    terms = (qp.q, qp.P @ z, qp.A.T @ nu, row_weight, cone_weight)
    scale_d = max(float(np.abs(t).max(initial=0.0)) for t in terms) + 1e-300
    slacks = np.concatenate([row_slack, cone_slack])
    weights = np.concatenate([row_weight, cone_weight]) / scale_d
    wrong = np.minimum(slacks, weights) < -_FEASIBLE
    return _Judged(
        wrong_rows=wrong[: lam.size],
        wrong_cones=wrong[lam.size :],
        margin=float(np.maximum(slacks, weights).min(initial=np.inf)),
        scale=scale_d + float(np.abs(qp.b).max(initial=0.0)) + length,
    )


def _tips(groups: Sequence[ConeGroup], iterate: ConicIterate) -> Mask:
    """Return which active cones are at their tip, where ‖Fz + g‖ is not differentiable."""
    tips = iterate.tips.copy()
    for group in groups:
        rho = np.linalg.norm(np.asarray(group.F @ iterate.z) + group.g, axis=1)
        scale = np.linalg.norm(group.g, axis=1) + np.abs(group.d)
        tips[group.index] |= iterate.active_cones[group.index] & (rho <= _TIP * scale)
    return tips


def _at_tip(qp: Quadratic, groups: Sequence[ConeGroup], iterate: ConicIterate) -> Point | None:
    """Return the unrefined interior point if it converged to the tip of a cone."""
    if not _tips(groups, iterate).any() or max(iterate.gap, iterate.residual) > _AT_TIP:
        return None
    return Point(
        z=DD.of(iterate.z),
        nu=DD.of(iterate.nu),
        lam=DD.of(iterate.lam),
        mu=iterate.mu,
        active=iterate.active,
        active_cones=iterate.active_cones,
        system=None,
        margin=0.0,
        primal=iterate.residual,
        dual=iterate.residual,
        complementarity=iterate.gap,
        error=float("inf"),
        primal_null=0,
        dual_null=0,
        method="interior point",
    )
