"""PIQP: proximal interior point (Schwan et al., CDC 2023)."""

from __future__ import annotations

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc, failed

_FAR = 1e29  # PIQP takes 1e30 for infinity, and prints that it does
_MOST_ITERATIONS = 1000  # an interior-point method that needs more will not end


def solve(qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock) -> QPSolution:
    """Solve a QP by PIQP, its sparse solver for sparse data and its dense one otherwise."""
    import piqp  # noqa: PLC0415

    with clock("prepare"):
        sparse = qp.is_sparse
        convert = csc if sparse else np.asfortranarray
        P = convert(qp.P)
        A = convert(qp.A) if qp.neq else None
        G = convert(qp.G) if qp.nineq else None
        b = qp.b if qp.neq else None
        h = np.minimum(qp.h, _FAR) if qp.nineq else None
    with clock("setup"):
        solver = piqp.SparseSolver() if sparse else piqp.DenseSolver()
        if tolerances.eps_abs:
            solver.settings.eps_abs = tolerances.eps_abs
            solver.settings.eps_duality_gap_abs = tolerances.eps_abs
        if tolerances.eps_rel:
            solver.settings.eps_rel = tolerances.eps_rel
            solver.settings.eps_duality_gap_rel = tolerances.eps_rel
        if tolerances.max_iter:
            solver.settings.max_iter = min(tolerances.max_iter, _MOST_ITERATIONS)
        solver.setup(P, qp.q, A, b, G, None, h)
    with clock("solve"):
        code = solver.solve()
    with clock("extract"):
        iterations, found = int(solver.result.info.iter), solver.result
        status = {
            piqp.PIQP_SOLVED: "solved",
            piqp.PIQP_MAX_ITER_REACHED: "iteration limit",
            piqp.PIQP_PRIMAL_INFEASIBLE: "infeasible",
            piqp.PIQP_DUAL_INFEASIBLE: "unbounded",
        }.get(code, f"failed (PIQP: {code})")
        if status in {"infeasible", "unbounded"}:
            return failed(qp, status, iterations)
        return answer(qp, status, iterations, found.x, found.y, found.z_u)
