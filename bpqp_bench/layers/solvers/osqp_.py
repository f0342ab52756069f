"""OSQP: operator splitting (Stellato et al., Math. Prog. Comp. 12 (2020))."""

from __future__ import annotations

from functools import partial

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc_upper, failed, quietly, stack_sparse

_STATUS = {
    "solved": "solved",
    "solved inaccurate": "inaccurate",
    "maximum iterations reached": "iteration limit",
    "run time limit reached": "time limit",
    "primal infeasible": "infeasible",
    "primal infeasible inaccurate": "infeasible",
    "dual infeasible": "unbounded",
    "dual infeasible inaccurate": "unbounded",
    "problem non convex": "not convex",
}
_INFINITY = 1e30  # OSQP's own


def solve(
    qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock, polish: bool = False
) -> QPSolution:
    """Solve a QP by OSQP; ``polish`` is the solver's own (a least-squares step at the end)."""
    import osqp  # noqa: PLC0415

    neq = qp.neq
    settings: dict[str, object] = {"verbose": False, "polishing": polish}
    if tolerances.eps_abs:
        settings["eps_abs"] = tolerances.eps_abs
    if tolerances.eps_rel:
        settings["eps_rel"] = tolerances.eps_rel
    if tolerances.max_iter:
        settings["max_iter"] = tolerances.max_iter
    if tolerances.time_limit:
        settings["time_limit"] = tolerances.time_limit
    with clock("prepare"):
        P, C = csc_upper(qp.P), stack_sparse(qp.A, qp.G)
        upper = np.concatenate([qp.b, qp.h])
        lower = np.concatenate([qp.b, np.full(qp.nineq, -_INFINITY)])
    with clock("setup"):
        solver = osqp.OSQP(algebra="builtin")
        try:
            solver.setup(P, qp.q, C, lower, upper, **settings)
        except (osqp.OSQPException, ValueError) as error:
            # Its set-up factorizes; a matrix that is not positive semidefinite shows there.
            nonconvex = error.args == (osqp.SolverError.OSQP_NONCVX_ERROR,)
            return failed(qp, "not convex" if nonconvex else f"failed (OSQP set-up: {error})")
    with clock("solve"):
        run = partial(solver.solve, raise_error=False)
        # Its polishing prints where no row binds.
        found = quietly(run) if polish else run()
    with clock("extract"):
        status = _STATUS.get(found.info.status, f"failed (OSQP: {found.info.status})")
        if status in {"infeasible", "unbounded", "not convex"}:
            return failed(qp, status, found.info.iter)
        return answer(
            qp, status, found.info.iter, found.x, found.y[:neq], found.y[neq : neq + qp.nineq]
        )
