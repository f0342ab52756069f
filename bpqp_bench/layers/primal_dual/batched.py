"""The active-set method for a batch of dense problems, in torch, on any device.

The same steps as in `bpqp_bench.layers.primal_dual.compiled`, each for all instances at once; those
that have settled leave the loop. Rows that do not bind are replaced by rows of the identity, so
that shapes stay fixed. P, or A and G, given without a batch dimension are factorized once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    ROUGH_ADJOINT,
    SHORT,
    SUSPECT,
    WEAK,
)


def _times(M: Tensor, x: Tensor) -> Tensor:
    """Mx for vectors x (batch, n) and M (m, n) or (batch, m, n)."""
    if M.ndim == 2:
        return torch.matmul(x, M.mT)
    return torch.matmul(M, x.unsqueeze(-1)).squeeze(-1)


def _plus(c: Tensor, M: Tensor, x: Tensor) -> Tensor:
    """Add Mx to c, vectors (batch, m) or (m,), for x (batch, n) and M as in `_times`."""
    if M.ndim == 2:
        return torch.addmm(c, x, M.mT)
    return torch.baddbmm(c.unsqueeze(-1), M, x.unsqueeze(-1)).squeeze(-1)


def _times_transposed(M: Tensor, y: Tensor) -> Tensor:
    if M.ndim == 2:
        return torch.matmul(y, M)
    return torch.matmul(y.unsqueeze(-2), M).squeeze(-2)


def _balance(
    P: Tensor, x: Tensor, C: Tensor, y: Tensor, linear: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Px + linear + Cᵀy, and its largest entry over the size of its terms, as in `compiled`.

    Where all are below the limit with |Px| in the place of |P||x|, which is larger, that will do.
    """
    curve, push = _times(P, x), _times_transposed(C, y)
    left = curve + linear + push
    ratio = _largest_ratio(left, curve.abs() + linear.abs() + push.abs())
    if not (ratio <= limit).all():
        sizes = _times(P.abs(), x.abs()) + linear.abs() + _times_transposed(C.abs(), y.abs())
        ratio = _largest_ratio(left, sizes)
    return left, ratio


def _largest_ratio(x: Tensor, sizes: Tensor) -> Tensor:
    return (x.abs() / torch.where(sizes > 0.0, sizes, 1.0)).amax(-1)


def _triangular(L: Tensor, x: Tensor, transposed: bool = False) -> Tensor:
    """L⁻¹x or L⁻ᵀx for vectors x (batch, n)."""
    F = L.mT if transposed else L
    if L.ndim == 2:
        return _lower(F, x.mT, transposed).mT
    return _lower(F, x.unsqueeze(-1), transposed).squeeze(-1)


def _lower(L: Tensor, X: Tensor, upper: bool = False) -> Tensor:
    found: Tensor = torch.linalg.solve_triangular(L, X, upper=upper)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class BatchFactors:
    """Cholesky factors of P and of the dual matrix, with rows of the identity where none binds.

    ``L`` (n, n), ``C`` (m, n) and ``W`` = L⁻¹Cᵀ as (m, n), each with a batch dimension unless
    shared; ``T`` (batch, m, m); ``binding`` (batch, m), 1 for equalities and binding rows;
    ``widths`` the lengths of W's rows.
    """

    L: Tensor
    C: Tensor
    W: Tensor
    T: Tensor
    binding: Tensor
    widths: Tensor

    def solve(self, r: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Solve Px + Cᵀy = r, Cx = s (zero if None) on the binding rows.

        Returns x, y, the lengths of Lᵀx, and what they would be without rows.
        """
        t = _triangular(self.L, r)
        free = t.norm(dim=-1)
        y = self.binding
        if y.shape[-1]:
            right = _times(self.W, t)
            if s is not None:
                right = right - s
            right = (right * self.binding).unsqueeze(-1)
            y = torch.cholesky_solve(right, self.T).squeeze(-1)
            t = t - _times_transposed(self.W, y)
        return _triangular(self.L, t, transposed=True), y, t.norm(dim=-1), free


@dataclass(frozen=True, eq=False, slots=True)
class BatchFound:
    """Results of a batch, see `rules.Found`: ``primal``, ``dual`` (batch,), ``steps`` for all."""

    z: Tensor
    duals: Tensor
    active: Tensor
    weak: Tensor
    primal: Tensor
    dual: Tensor
    steps: int

    def solution(self, flat: bool) -> Tensor:
        """``z`` in memory of its own, see `rules.Found`."""
        return self.z[0].clone() if flat else self.z.clone()

    def summary(self) -> list[tuple[float, ...]]:
        """Facts about each instance, see `rules.Found`."""
        parts = (self.primal, self.dual, self.active, self.weak)
        rows = [part if part.ndim == 1 else part.sum(-1) for part in parts]
        return [(self.steps, *row) for row in zip(*(part.tolist() for part in rows), strict=True)]


@dataclass(frozen=True, eq=False, slots=True)
class BatchPoint:
    """Solutions of a batch, see `rules.Point`; what is not ``verified`` (batch,) is no solution."""

    found: BatchFound
    verified: Tensor
    factors: BatchFactors
    P: Tensor
    neq: int

    @property
    def left(self) -> list[int]:
        """Instances that are not solved."""
        found: list[int] = (~self.verified).nonzero().squeeze(-1).tolist()
        return found

    def pullback(
        self, upstream: Tensor, wanted: Sequence[bool], flat: bool
    ) -> tuple[list[Tensor | None], Tensor]:
        """Solve the backward QPs, see `rules.Point`."""
        factors, neq, z, duals = self.factors, self.neq, self.found.z, self.found.duals
        upstream = upstream.view(z.shape)
        x, y, length, free = factors.solve(-upstream)
        reach = torch.maximum(length, SHORT * free).unsqueeze(-1) * factors.widths
        reach = torch.where(reach > 0.0, reach, 1.0)
        for attempt in range(MOST_REFINEMENTS + 1):
            left, residual = _balance(
                self.P, x, factors.C, y * factors.binding, upstream, ROUGH_ADJOINT
            )
            off = _times(factors.C, x) * factors.binding
            if off.shape[-1]:
                residual = torch.maximum(residual, (off.abs() / reach).amax(-1))
            if (
                attempt == MOST_REFINEMENTS
                or not ((residual > ROUGH_ADJOINT) & self.verified).any()
            ):
                break
            dx, dy, _, _ = factors.solve(-left, -off)
            x, y = x + dx, y + dy
        found: list[Tensor | None] = [None, x, None, None, None, None]
        for k, u, w in (
            (0, 0.5 * x, 0.5 * z),
            (2, y[:, :neq], duals[:, :neq]),
            (4, y[:, neq:], duals[:, neq:]),
        ):
            if wanted[k]:
                outer = u.unsqueeze(-1) * z.unsqueeze(-2)
                found[k] = outer.addcmul_(w.unsqueeze(-1), x.unsqueeze(-2))
            if k and wanted[k + 1]:
                found[k + 1] = -u
        if flat:
            found = [part if part is None else part.squeeze(0) for part in found]
        return found, torch.cat([y.flatten(), residual])


@dataclass(frozen=True, eq=False, slots=True)
class _Dual:
    """The dual after elimination of the equalities: s = s0 + Sy on the inequalities."""

    L: Tensor
    C: Tensor
    W: Tensor  # all rows, (…, m, n)
    T: Tensor | None
    V: Tensor | None
    S: Tensor
    s0: Tensor
    widths: Tensor  # |Wᵢ| of all rows
    force: Tensor  # |L⁻¹q|, (batch,)
    sound: Tensor  # P and the equalities' block are safely positive definite


def solve(
    P: Tensor,
    q: Tensor,
    A: Tensor,
    b: Tensor,
    G: Tensor,
    h: Tensor,
    start: Tensor | None = None,
    active_tol: float = 0.0,
) -> BatchPoint:
    """Solve a batch; instances where the plain method does not end well are not ``verified``.

    Parameters
    ----------
    P, A, G
        (n, n), (neq, n), (nineq, n), with a batch dimension or shared. Only the symmetric part of
        P counts.
    q, b, h
        (batch, n), (batch, neq), (batch, nineq).
    start
        Masks (batch, nineq) of the rows that are thought to bind.
    active_tol
        Relative slack and multiplier of a weakly active row, 0 for the kernel's own.
    """
    P = (P + P.mT) * 0.5
    dual = _dual(P, q, A, b, G, h)
    neq = b.shape[-1]
    active = dual.s0 < 0.0 if start is None else start
    active, factor, settled, steps = _settle(dual, active, dual.widths[..., neq:])
    point, wrong = _refined(P, q, b, h, dual, active, factor, settled, steps, active_tol)
    # Signs that refinement corrected, mostly none.
    for _ in range(MOST_REFINEMENTS):
        wrong &= settled.unsqueeze(-1)
        if not wrong.any():
            break
        steps += 1
        active = active ^ wrong
        factor, good = _factorize(dual, active)
        settled = settled & good
        point, wrong = _refined(P, q, b, h, dual, active, factor, settled, steps, active_tol)
    return point


def _dual(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> _Dual:
    count, neq = q.shape[0], b.shape[-1]
    L, failed = torch.linalg.cholesky_ex(P)
    sound = (failed == 0) & ~_near_singular(L, P.diagonal(dim1=-2, dim2=-1))
    if A.ndim != G.ndim:
        A, G = A.expand(count, -1, -1), G.expand(count, -1, -1)
    C = torch.cat([A, G], dim=-2)
    W = _rows_triangular(L, C)
    t = _triangular(L, q)
    gram = W @ W.mT
    widths = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    Wt = _times(W, t)
    s0 = h + Wt[:, neq:]
    force = t.norm(dim=-1)
    if not neq:
        return _Dual(L, C, W, None, None, gram, s0, widths, force, sound.expand(count))
    T, failed = torch.linalg.cholesky_ex(gram[..., :neq, :neq])
    sound = sound & (failed == 0) & _safe(T, widths[..., :neq] ** 2)
    V = _lower(T, gram[..., :neq, neq:])
    a = _triangular(T, Wt[:, :neq] + b)
    s0 = s0 - _times_transposed(V, a)
    S = gram[..., neq:, neq:] - V.mT @ V
    return _Dual(L, C, W, T, V, S, s0, widths, force, sound.expand(count))


def _rows_triangular(L: Tensor, C: Tensor) -> Tensor:
    """(L⁻¹Cᵀ)ᵀ with L and C batched or not."""
    if L.ndim == 2 and C.ndim == 3:
        return _lower(L, C.flatten(0, 1).mT).mT.reshape(C.shape)
    return _lower(L, C.mT).mT


def _safe(factor: Tensor, diagonal: Tensor) -> Tensor:
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    safe: Tensor = (pivots * pivots > PIVOT * diagonal).all(-1)
    return safe


def _near_singular(factor: Tensor, diagonal: Tensor) -> Tensor:
    """Whether matrices are singular to within rounding, as in `compiled.near_singular`."""
    pivots = (factor.diagonal(dim1=-2, dim2=-1) ** 2 / diagonal).amin(-1)
    singular: Tensor = ~(pivots > PIVOT)
    if not ((pivots <= SUSPECT) & ~singular).any():
        return singular
    sizes = diagonal.sqrt()
    k = sizes.shape[-1]
    x = torch.arange(k, dtype=sizes.dtype, device=sizes.device).square().cos().expand_as(sizes)
    for _ in range(3):
        x = sizes * x / x.norm(dim=-1, keepdim=True)
        x = sizes * torch.cholesky_solve(x.unsqueeze(-1), factor).squeeze(-1)
    singular |= (pivots <= SUSPECT) & ~(x.norm(dim=-1) * PIVOT < 1.0)
    return singular


def _settle(dual: _Dual, active: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Change sets until no row has the wrong sign; sets, factors, who got there, and steps.

    Every step takes all instances along: on a GPU, picking those that are left costs more than
    their arithmetic.
    """
    count, nineq = active.shape
    settled = dual.sound
    if not nineq:
        return active, dual.S.new_zeros(count, 0, 0), settled, 0
    rough, squares, right = widths * (-ROUGH * dual.force).unsqueeze(-1), widths * widths, -dual.s0
    fewest = torch.full((count,), nineq + 1, device=active.device)
    patience = torch.full_like(fewest, PATIENCE)
    step = 0
    while True:
        step += 1
        factor, good = _factorize(dual, active)
        settled = settled & good
        y = torch.cholesky_solve(torch.where(active, right, 0.0).unsqueeze(-1), factor).squeeze(-1)
        slack = _plus(dual.s0, dual.S, y)
        wrong = torch.where(active, y * squares, slack) < rough
        wrong &= settled.unsqueeze(-1)
        if not wrong.any():
            return active, factor, settled, step
        if step == MOST_STEPS:
            return active, factor, settled & ~wrong.any(-1), step
        if step >= PLAIN_STEPS:
            patience = _choose_one(wrong, fewest, patience)
        active = active ^ wrong


def _choose_one(wrong: Tensor, fewest: Tensor, patience: Tensor) -> Tensor:
    """Leave in ``wrong`` only the last row where the number of wrong rows does not fall.

    Block pivoting (Júdice and Pires, Comput. Oper. Res. 21 (1994)), which always ends. Updates
    ``fewest`` and returns how much patience is left.
    """
    number = wrong.sum(-1)
    patience = torch.where(number < fewest, PATIENCE, patience - 1)
    torch.minimum(number, fewest, out=fewest)
    places = torch.arange(1, wrong.shape[-1] + 1, device=wrong.device)
    last = (wrong * places).amax(-1, keepdim=True)
    wrong &= (patience >= 0).unsqueeze(-1) | (places == last)
    return patience


def _factorize(dual: _Dual, active: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of S on the binding rows, and which there are."""
    both = active.unsqueeze(-1) & active.unsqueeze(-2)
    eye = torch.eye(active.shape[-1], dtype=dual.S.dtype, device=active.device)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(torch.where(both, dual.S, eye))
    return factor, failed == 0


def _refined(
    P: Tensor,
    q: Tensor,
    b: Tensor,
    h: Tensor,
    dual: _Dual,
    active: Tensor,
    factor: Tensor,
    settled: Tensor,
    steps: int,
    active_tol: float,
) -> tuple[BatchPoint, Tensor]:
    """Solve on the active sets to rounding, and say which rows have the wrong sign there."""
    neq = b.shape[-1]
    factors = _factors(dual, active, factor)
    C, on = dual.C, factors.binding
    if on.shape[-1]:
        widths = torch.where(on > 0.0, dual.widths**2, 1.0)
        settled = settled & ~_near_singular(factors.T, widths)
    d = torch.cat([b, h], dim=-1)
    x, y, length, _ = factors.solve(-q, d)
    for _ in range(MOST_REFINEMENTS):
        gradient = _times(P, x) + q + _times_transposed(C, y)
        dx, dy, correction, _ = factors.solve(-gradient, d - _times(C, x))
        x, y = x + dx, y + dy
        if not ((correction > ENOUGH * length) & settled).any():
            break
    gradient, ratio = _balance(P, x, C, y, q, RESIDUAL)
    slack = d - _times(C, x)
    far, reach = length.unsqueeze(-1), dual.force.unsqueeze(-1)
    near = dual.widths * (correction.unsqueeze(-1) + FINE * far) + FINE * d.abs()
    wide = dual.widths[..., neq:]
    error_y, lam = dy[:, neq:].abs(), y[:, neq:]
    light = error_y + FINE * reach / torch.where(wide > 0.0, wide, 1.0)
    wrong = torch.where(active, lam < -light, slack[:, neq:] < -near[:, neq:])
    # Positive assertions, so that whatever is not finite fails them.
    off = slack.abs() * on
    allowed = dual.widths * (RESIDUAL * far + EPS * reach) + EPS * d.abs()
    steep = gradient.abs().amax(-1)
    verified = (
        settled
        & ((off <= allowed) | (on == 0.0)).all(-1)
        & (ratio <= RESIDUAL)
        & slack.isfinite().all(-1)
        & ~wrong.any(-1)
    )
    tolerance = active_tol or WEAK
    # A solution at the origin is noise of the size of the forces.
    blurred = near[:, neq:] + wide * (tolerance * far + FINE * reach)
    weak = (torch.where(active, 0.0, slack[:, neq:]).abs() <= blurred) & (
        lam * wide <= error_y * wide + tolerance * reach
    )
    violation = torch.cat([off[:, :neq], -slack[:, neq:]], dim=-1)
    primal = violation.amax(-1).clamp(min=0.0) if violation.shape[-1] else torch.zeros_like(steep)
    duals = torch.cat([y[:, :neq], lam.clamp(min=0.0)], dim=-1)
    found = BatchFound(x, duals, active, weak, primal, steep, steps)
    return BatchPoint(found, verified, factors, P, neq), wrong


def _factors(dual: _Dual, active: Tensor, factor: Tensor) -> BatchFactors:
    count = len(active)
    on = active.to(dual.S.dtype)
    if dual.T is None or dual.V is None:
        return BatchFactors(dual.L, dual.C, dual.W, factor, on, dual.widths)
    neq, nineq = dual.V.shape[-2:]
    T = factor.new_zeros(count, neq + nineq, neq + nineq)
    T[:, :neq, :neq] = dual.T
    T[:, neq:, :neq] = dual.V.mT * on.unsqueeze(-1)
    T[:, neq:, neq:] = factor
    binding = torch.cat([on.new_ones(count, neq), on], dim=-1)
    return BatchFactors(dual.L, dual.C, dual.W, T, binding, dual.widths)
