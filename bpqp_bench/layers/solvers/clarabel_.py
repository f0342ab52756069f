"""Clarabel: interior point for quadratic cones (Goulart and Chen, 2024)."""

from __future__ import annotations

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc_upper, failed
from bpqp_bench.layers.solvers._conic import cone_multipliers, conic_rows

_STATUS = {
    "Solved": "solved",
    "AlmostSolved": "inaccurate",
    "MaxIterations": "iteration limit",
    "MaxTime": "time limit",
    "PrimalInfeasible": "infeasible",
    "AlmostPrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "AlmostDualInfeasible": "unbounded",
}
_MOST_ITERATIONS = 1000  # an interior-point method that needs more will not end
_WITH_POINT = {"solved", "inaccurate", "iteration limit", "failed (Clarabel: InsufficientProgress)"}


def solve(qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock) -> QPSolution:
    """Solve a QP or SOCP by Clarabel."""
    import clarabel  # noqa: PLC0415

    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    if tolerances.eps_abs:
        settings.tol_feas = settings.tol_gap_abs = tolerances.eps_abs
    if tolerances.eps_rel:
        settings.tol_gap_rel = tolerances.eps_rel
    if tolerances.max_iter:
        settings.max_iter = min(tolerances.max_iter, _MOST_ITERATIONS)
    if tolerances.time_limit:
        settings.time_limit = tolerances.time_limit
    with clock("prepare"):
        P = csc_upper(qp.P)
        rows, right, sizes = conic_rows(qp)
        cones = [
            clarabel.ZeroConeT(qp.neq),
            clarabel.NonnegativeConeT(qp.nineq),
            *(clarabel.SecondOrderConeT(len(cone.g) + 1) for cone in qp.cones),
        ]
        del sizes
    with clock("setup"):
        solver = clarabel.DefaultSolver(P, qp.q, rows, right, cones, settings)
    with clock("solve"):
        found = solver.solve()
    with clock("extract"):
        name = str(found.status)
        status = _STATUS.get(name, f"failed (Clarabel: {name})")
        if status not in _WITH_POINT:
            return failed(qp, status, int(found.iterations))
        y = np.asarray(found.z)
        nu, lam = y[: qp.neq], y[qp.neq : qp.neq + qp.nineq]
        mu = cone_multipliers(qp, y)
        return answer(qp, status, int(found.iterations), np.asarray(found.x), nu, lam, mu)
