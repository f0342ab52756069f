"""SCQPTH: batched ADMM, differentiated at its fixed point (Butler 2023, arXiv 2308.08232).

With C = [A; G], bounds l ≤ Cz ≤ u (l = u = b in equalities, l = −∞ and u = h in inequalities) and
the projection Π onto [l, u], one iteration is

    z = M⁻¹(−q + ρCᵀ(2Π(s) − s)),  s⁺ = Cz + s − Π(s),  M = P + ρCᵀC,

written in s = Cz + y alone, y the scaled multiplier: at the fixed point Π(s) = Cz* and
ρ(s − Π(s)) = (ν*, λ*). With D = Π′(s), which is 0 in binding rows and 1 in the others, implicit
differentiation of s = F(s) gives one m×m system for the adjoint a of s,

    (I − ∂F/∂sᵀ)a = ρ(2D − I)CM⁻¹v,  ∂F/∂sᵀ = ρ(2D − I)CM⁻¹Cᵀ + I − D,

after which z̃ = −M⁻¹(v + Cᵀa), and (ν̃, λ̃) = a in the binding rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.implicit import Adjoint, BatchQP, ImplicitLayer, Point

_RELAXATION, _RELAX_AFTER = 1.2, 100
_CHECK, _ADAPT, _ADAPT_UNTIL, _ADAPT_RATIO = 25, 50, 1000, 10.0
_RHO_MIN, _RHO_MAX = 1e-6, 1e6


@dataclass(frozen=True, eq=False)
class Fixed:
    """A fixed point in scaled data: DPD and ECD for P and C, with D (B, n) and E (B, m).

    ``free`` is the diagonal of Π′(s); ``factor`` the Cholesky factor of M.
    """

    C: Tensor
    rho: Tensor
    factor: Tensor
    free: Tensor
    D: Tensor
    E: Tensor
    iterations: int

    def inverse(self, right: Tensor) -> Tensor:
        """Return M⁻¹ times vectors (B, n)."""
        return torch.cholesky_solve(right[..., None], self.factor)[..., 0]

    def rows(self, z: Tensor) -> Tensor:
        """Return Cz, shape (B, m)."""
        return (self.C @ z[..., None])[..., 0]

    def columns(self, y: Tensor) -> Tensor:
        """Return Cᵀy, shape (B, n)."""
        return (self.C.mT @ y[..., None])[..., 0]

    def unscaled(self, v: Tensor, a: Tensor, equalities: int) -> Adjoint:
        """Return the adjoint that belongs to a solution a, in the data's own scale."""
        z = -self.inverse(self.D * v + self.columns(a))
        y = self.E * torch.where(self.free, 0.0, a)
        return Adjoint(self.D * z, y[:, :equalities], y[:, equalities:])


class SCQPTH(ImplicitLayer):
    """Batched ADMM forward, one m×m solve backward.

    Scaling, initial ρ, its adaptation and the relaxation are the published ones. The published
    code recovers ∂A and the gradients of bounds from a regularized least-squares problem; here they
    come from the adjoint itself, which is exact.

    Parameters
    ----------
    eps
        Absolute and relative tolerance of the residuals; the published default is 1e-3.
    max_iter
        Limit of the iteration; a problem that meets it has the status "iteration limit".
    """

    def __init__(self, eps: float = 1e-3, max_iter: int = 10_000) -> None:
        super().__init__()
        if eps <= 0 or max_iter < 1:
            raise SpecError("eps must be positive and max_iter at least 1")
        self.eps, self.max_iter = eps, max_iter

    def solve(self, qp: BatchQP) -> Point:
        """Run ADMM on the whole batch until all are solved or stop moving."""
        C, q = torch.cat([qp.A, qp.G], 1), qp.q
        D = _inverse_root(torch.linalg.vector_norm(qp.P, torch.inf, dim=1))
        E = 1.0 / _positive(torch.linalg.vector_norm(C * D[:, None], torch.inf, dim=2))
        P, C, q = D[:, :, None] * qp.P * D[:, None], E[:, :, None] * C * D[:, None], D * q
        upper = E * torch.cat([qp.b, qp.h], 1)
        lower = torch.cat([upper[:, : qp.b.shape[1]], torch.full_like(qp.h, -torch.inf)], 1)
        gram = C.mT @ C
        norms = torch.linalg.matrix_norm(P) / _positive(torch.linalg.matrix_norm(gram))
        rho = (norms * (C.shape[1] / C.shape[2]) ** 0.5).clamp(_RHO_MIN, _RHO_MAX)[:, None]
        factor = torch.linalg.cholesky(P + rho[..., None] * gram)
        s, z, k = torch.zeros_like(upper), torch.zeros_like(q), 0
        solved = torch.zeros(len(q), dtype=torch.bool)
        for k in range(self.max_iter):
            clipped = torch.minimum(torch.maximum(s, lower), upper)
            right = rho * (C.mT @ (2 * clipped - s)[..., None])[..., 0] - q
            step = torch.cholesky_solve(right[..., None], factor)[..., 0]
            z = step if k < _RELAX_AFTER else _RELAXATION * step + (1 - _RELAXATION) * z
            Cz = (C @ z[..., None])[..., 0]
            s = Cz + s - clipped
            if (k + 1) % _CHECK and k + 1 < self.max_iter:
                continue
            clipped = torch.minimum(torch.maximum(s, lower), upper)
            y = rho * (s - clipped)
            Pz, Cy = (P @ z[..., None])[..., 0], (C.mT @ y[..., None])[..., 0]
            primal = _ratio((Cz - clipped) / E, Cz / E, clipped / E)
            dual = _ratio((Pz + q + Cy) / D, Pz / D, Cy / D, q / D)
            good = [worst <= self.eps + self.eps * size for worst, size in (primal, dual)]
            solved = good[0] & good[1]
            if bool(solved.all()):
                break
            if (k + 1) % _ADAPT == 0 and k + 1 < _ADAPT_UNTIL:
                ratio = primal[0] / _positive(primal[1]) / _positive(dual[0] / _positive(dual[1]))
                change = torch.where(solved, 1.0, ratio.sqrt())[:, None]
                if bool(((change > _ADAPT_RATIO) | (change < 1 / _ADAPT_RATIO)).any()):
                    new = (rho * change).clamp(_RHO_MIN, _RHO_MAX)
                    s = clipped + (s - clipped) * rho / new  # keeps ρy
                    rho, factor = new, torch.linalg.cholesky(P + new[..., None] * gram)
        clipped = torch.minimum(torch.maximum(s, lower), upper)
        y = E * rho * (s - clipped)
        free = (s > lower) & (s < upper)
        neq = qp.b.shape[1]
        status = tuple("solved" if done else "iteration limit" for done in solved.tolist())
        kept = Fixed(C, rho, factor, free, D, E, k + 1)
        return Point(D * z, y[:, :neq], y[:, neq:], status, kept)

    def adjoint(self, qp: BatchQP, point: Point, v: Tensor) -> Adjoint:
        """Solve the m×m system of the fixed point."""
        fixed: Fixed = point.kept
        sign = torch.where(fixed.free, fixed.rho, -fixed.rho)  # ρ(2D − I)
        schur = fixed.C @ torch.cholesky_solve(fixed.C.mT, fixed.factor)
        matrix = torch.diag_embed(fixed.free.to(v)) - sign[..., None] * schur
        right = sign * fixed.rows(fixed.inverse(fixed.D * v))
        a = torch.linalg.solve(matrix, right)
        return fixed.unscaled(v, a, qp.b.shape[1])


def _positive(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, 1.0)


def _inverse_root(norm: Tensor) -> Tensor:
    # columns of zeros take the mean, as published
    mean = norm.mean(1, keepdim=True).clamp(min=1e-6)
    return torch.where(norm > 0, norm, mean).rsqrt()


def _ratio(residual: Tensor, *terms: Tensor) -> tuple[Tensor, Tensor]:
    sizes = [torch.linalg.vector_norm(t, torch.inf, dim=1) for t in (residual, *terms)]
    return sizes[0], torch.stack(sizes[1:]).amax(0)
