"""ProxQP, dense and sparse: primal-dual augmented Lagrangian (Bambade et al., RSS 2022)."""

from __future__ import annotations

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc, dense, failed

_INFINITY = 1e20  # ProxQP's own
# Its default of 1e-4 takes the smoothed LP of the paper (P = 2e-6 I) for unbounded.
_CERTIFICATE = 1e-10
# Its time grows with their square; what it solves at all, it solves in some tens.
_MOST_ITERATIONS = 1000


def solve(
    qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock, backend: str = "dense"
) -> QPSolution:
    """Solve a QP by ProxQP with the ``backend`` "dense" or "sparse"."""
    from proxsuite import proxqp  # noqa: PLC0415

    with clock("prepare"):
        convert = csc if backend == "sparse" else dense
        P = convert(qp.P)
        A = convert(qp.A) if qp.neq else None
        G = convert(qp.G) if qp.nineq else None
        b = qp.b if qp.neq else None
        h = qp.h if qp.nineq else None
        lower = np.full(qp.nineq, -_INFINITY) if qp.nineq else None
    with clock("setup"):
        kind = proxqp.sparse if backend == "sparse" else proxqp.dense
        solver = kind.QP(qp.n, qp.neq, qp.nineq)
        # Without the gap it stops at any feasible point with a small dual residual, λᵢsᵢ ≠ 0.
        solver.settings.check_duality_gap = True
        if tolerances.eps_abs:
            solver.settings.eps_abs = solver.settings.eps_duality_gap_abs = tolerances.eps_abs
        if tolerances.eps_rel:
            solver.settings.eps_rel = solver.settings.eps_duality_gap_rel = tolerances.eps_rel
        limit = tolerances.max_iter or _MOST_ITERATIONS
        solver.settings.max_iter = min(limit, _MOST_ITERATIONS)
        solver.settings.eps_primal_inf = solver.settings.eps_dual_inf = _CERTIFICATE
        solver.init(P, qp.q, A, b, G, lower, h)
    with clock("solve"):
        solver.solve()
    with clock("extract"):
        info, found = solver.results.info, solver.results
        output = proxqp.QPSolverOutput
        status = {
            output.PROXQP_SOLVED: "solved",
            output.PROXQP_MAX_ITER_REACHED: "iteration limit",
            output.PROXQP_PRIMAL_INFEASIBLE: "infeasible",
            output.PROXQP_SOLVED_CLOSEST_PRIMAL_FEASIBLE: "infeasible",
            output.PROXQP_DUAL_INFEASIBLE: "unbounded",
        }.get(info.status, f"failed (ProxQP: {info.status})")
        if status in {"infeasible", "unbounded"}:
            return failed(qp, status, int(info.iter))
        return answer(qp, status, int(info.iter), found.x, found.y, found.z)
