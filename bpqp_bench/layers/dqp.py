"""dQP: any solver forward, one reduced KKT system backward (Magoon et al. 2024, arXiv 2410.06324).

Where the binding rows J are known and strictly complementary, the QP is locally the equality
constrained one on them, and the adjoint solves

    [P  Cᵀ] [z̃ ]   [−v]
    [C  0 ] [ỹ ] = [ 0],  C = [A; G_J].

That is the optimality system of BPQP's backward QP (Pan et al., Theorem 1) and of
``BPQP(backward="direct")``: the two methods solve the same equations. What differs is how J is
found: dQP takes the rows whose slack is below a threshold, BPQP decides by slack and multiplier.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.implicit import Adjoint, BatchQP, ImplicitLayer, Point, solve_each
from bpqp_bench.layers.problem import Tolerances


class DQP(ImplicitLayer):
    """A black-box solver forward; backward an LU solve of the reduced KKT system.

    Parameters
    ----------
    solver
        One of `bpqp_bench.layers.qp_solvers.SOLVERS`.
    eps
        The solver's absolute and relative tolerance.
    active_tol
        A row binds where h − Gz is at most this (the published default is 1e-5).

    Raises
    ------
    SpecError
        If ``active_tol`` is negative.
    """

    def __init__(self, solver: str = "proxqp", eps: float = 1e-6, active_tol: float = 1e-5) -> None:
        super().__init__()
        if active_tol < 0:
            raise SpecError(f"active_tol={active_tol} must not be negative")
        self.solver, self.active_tol = solver, active_tol
        self.tolerances = Tolerances(eps_abs=eps, eps_rel=eps)

    def solve(self, qp: BatchQP) -> Point:
        """Solve one after the other."""
        return solve_each(qp, self.solver, self.tolerances)

    def adjoint(self, qp: BatchQP, point: Point, v: Tensor) -> Adjoint:
        """Solve the reduced KKT system of each problem; their sizes differ."""
        slack = qp.h - (qp.G @ point.z[..., None])[..., 0]
        active = slack <= self.active_tol
        n, neq = qp.q.shape[1], qp.b.shape[1]
        lam = torch.zeros_like(point.lam)
        z, nu = torch.empty_like(point.z), torch.empty_like(point.nu)
        for i in range(len(v)):
            C = torch.cat([qp.A[i], qp.G[i, active[i]]])
            K = torch.cat([
                torch.cat([qp.P[i], C.T], 1),
                torch.cat([C, C.new_zeros(len(C), len(C))], 1),
            ])  # fmt: skip
            w = torch.linalg.solve(K, torch.cat([-v[i], v.new_zeros(len(C))]))
            z[i], nu[i], lam[i, active[i]] = w[:n], w[n : n + neq], w[n + neq :]
        return Adjoint(z, nu, lam)
