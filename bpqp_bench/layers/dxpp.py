"""dXPP: any solver forward, a smoothed penalty problem backward (Linghu et al., arXiv 2602.14154).

The backward pass takes the solution for that of the penalty problem

    minimize ½zᵀPz + qᵀz + ρ Σᵢ p(gᵢᵀz − hᵢ) + ρ Σⱼ (p(aⱼᵀz − bⱼ) + p(bⱼ − aⱼᵀz)),

with the softplus p(t) = β log(1 + exp(t/β)) for max(t, 0) and the penalty ρ = ζ max(λ*, |ν*|).
At its minimum ρp′ takes the place of a multiplier, so that its curvature there is known from the
multipliers alone:

    wᵢ = ρp″ = λᵢ(1 − λᵢ/ρ)/β,  wⱼ = ρ(1 − (νⱼ/ρ)²)/(2β),

and differentiation needs one symmetric positive definite n×n system, with no active set:

    (P + Gᵀ diag(w)G + Aᵀ diag(w)A) z̃ = −v,  λ̃ = w∘(Gz̃),  ν̃ = w∘(Az̃).

The gradient tends to the QP's as β → 0, with an error that is linear in β, while the condition of
the system grows as 1/β.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.implicit import Adjoint, BatchQP, ImplicitLayer, Point, solve_each
from bpqp_bench.layers.problem import Tolerances


class DXPP(ImplicitLayer):
    """A black-box solver forward; backward the Hessian of a smoothed penalty problem.

    Parameters
    ----------
    solver
        One of `bpqp_bench.layers.qp_solvers.SOLVERS`.
    eps
        The solver's absolute tolerance; the published default is 1e-6 with a relative one of 0.
    beta
        Smoothing β; the published default is 1e-4.
    penalty
        ζ > 1, how far ρ lies above the largest multiplier; the published default is 10.

    Raises
    ------
    SpecError
        If ``beta`` is not positive or ``penalty`` not above 1.
    """

    def __init__(
        self,
        solver: str = "proxqp",
        eps: float = 1e-6,
        beta: float = 1e-4,
        penalty: float = 10.0,
    ) -> None:
        super().__init__()
        if beta <= 0 or penalty <= 1:
            raise SpecError("beta must be positive and penalty above 1")
        self.solver, self.beta, self.penalty = solver, beta, penalty
        self.tolerances = Tolerances(eps_abs=eps, eps_rel=0.0)

    def solve(self, qp: BatchQP) -> Point:
        """Solve one after the other."""
        return solve_each(qp, self.solver, self.tolerances)

    def adjoint(self, qp: BatchQP, point: Point, v: Tensor) -> Adjoint:
        """Factorize and solve the n×n systems of the whole batch."""
        lam, nu = point.lam.clamp(min=0.0), point.nu
        rho = self.penalty * torch.cat([lam, nu.abs()], 1).amax(1, keepdim=True)
        rho = torch.where(rho > 0, rho, 1.0)
        weight_lam = lam * (1 - lam / rho) / self.beta
        weight_nu = rho * (1 - (nu / rho) ** 2) / (2 * self.beta)
        C, weight = torch.cat([qp.A, qp.G], 1), torch.cat([weight_nu, weight_lam], 1)
        H = qp.P + C.mT @ (weight[..., None] * C)
        z = torch.cholesky_solve(-v[..., None], torch.linalg.cholesky(H))
        return Adjoint(z[..., 0], weight_nu * (qp.A @ z)[..., 0], weight_lam * (qp.G @ z)[..., 0])
