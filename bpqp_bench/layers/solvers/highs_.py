"""HiGHS: active set for convex QP, simplex for LP (Huangfu and Hall, Math. Prog. Comp. 10)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc, failed, quietly, stack_sparse


def solve(qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock) -> QPSolution:
    """Solve a QP by HiGHS."""
    import highspy  # noqa: PLC0415

    with clock("prepare"):
        lower_triangle = sp.tril(csc(qp.P), format="csc")
        C = stack_sparse(qp.A, qp.G)
        model = highspy.HighsModel()
        lp, hessian = model.lp_, model.hessian_
        lp.num_col_, lp.num_row_ = qp.n, C.shape[0]
        lp.col_cost_ = qp.q
        lp.col_lower_ = np.full(qp.n, -highspy.kHighsInf)
        lp.col_upper_ = np.full(qp.n, highspy.kHighsInf)
        lp.row_upper_ = np.concatenate([qp.b, qp.h])
        lp.row_lower_ = np.concatenate([qp.b, np.full(qp.nineq, -highspy.kHighsInf)])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_ = C.indptr, C.indices
        lp.a_matrix_.value_ = C.data
        lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = qp.n, C.shape[0]
        if lower_triangle.nnz:
            hessian.dim_ = qp.n
            hessian.start_, hessian.index_ = lower_triangle.indptr, lower_triangle.indices
            hessian.value_ = lower_triangle.data
    with clock("setup"):
        solver = quietly(highspy.Highs)  # its banner comes before it can be told to be silent
        solver.silent()
        solver.setOptionValue("threads", 1)
        if tolerances.eps_abs:
            # Tighter than 1e-10 it does not take.
            eps = max(tolerances.eps_abs, 1e-10)
            solver.setOptionValue("primal_feasibility_tolerance", eps)
            solver.setOptionValue("dual_feasibility_tolerance", eps)
        if tolerances.max_iter:
            solver.setOptionValue("qp_iteration_limit", tolerances.max_iter)
        if tolerances.time_limit:
            solver.setOptionValue("time_limit", tolerances.time_limit)
        solver.passModel(model)
    with clock("solve"):
        solver.run()
    with clock("extract"):
        kind, code = highspy.HighsModelStatus, solver.getModelStatus()
        status = {
            kind.kOptimal: "solved",
            kind.kInfeasible: "infeasible",
            kind.kUnbounded: "unbounded",
            kind.kUnboundedOrInfeasible: "infeasible",
            kind.kIterationLimit: "iteration limit",
            kind.kTimeLimit: "time limit",
        }.get(code, f"failed (HiGHS: {solver.modelStatusToString(code)})")
        iterations = int(solver.getInfo().qp_iteration_count)
        if status != "solved":
            return failed(qp, status, iterations)
        found = solver.getSolution()
        dual = -np.asarray(found.row_dual)
        z = np.asarray(found.col_value)
        return answer(qp, status, iterations, z, dual[: qp.neq], dual[qp.neq :])
