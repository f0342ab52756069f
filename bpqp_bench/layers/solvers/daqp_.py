"""DAQP: dual active set (Arnström, Bemporad, Axehill, IEEE TAC 67 (2022)); dense data only."""

from __future__ import annotations

from ctypes import c_int

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, dense, failed, stack_dense

_EQUALITY = 5
_STATUS = {
    2: "solved",  # with soft constraints, of which there are none
    1: "solved",
    -1: "infeasible",
    -2: "failed (DAQP: cycling)",
    -3: "unbounded",
    -4: "iteration limit",
    -5: "not convex",
    -6: "failed (DAQP: dependent or contradictory equalities)",
    -7: "time limit",
}


def solve(qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock) -> QPSolution:
    """Solve a QP by DAQP; its set-up cannot be told from its iterations and counts as solve."""
    import daqp  # noqa: PLC0415

    neq = qp.neq
    settings: dict[str, object] = {}
    if tolerances.eps_abs:
        settings["primal_tol"] = settings["dual_tol"] = tolerances.eps_abs
    if tolerances.max_iter:
        settings["iter_limit"] = tolerances.max_iter
    if tolerances.time_limit:
        settings["time_limit"] = tolerances.time_limit
    with clock("prepare"):
        P, C = np.ascontiguousarray(dense(qp.P)), stack_dense(qp.A, qp.G)
        upper = np.concatenate([qp.b, qp.h])
        lower = np.concatenate([qp.b, np.full(qp.nineq, -1e30)])
        sense = np.zeros(len(upper), dtype=c_int)
        sense[:neq] = _EQUALITY
    with clock("solve"):
        z, _, code, info = daqp.solve(P, qp.q, C, upper, lower, sense, **settings)
    with clock("extract"):
        status = _STATUS.get(code, f"failed (DAQP: exit flag {code})")
        if code < 0:
            return failed(qp, status, int(info["iterations"]))
        lam = np.asarray(info["lam"])
        return answer(qp, status, int(info["iterations"]), z, lam[:neq], lam[neq:])
