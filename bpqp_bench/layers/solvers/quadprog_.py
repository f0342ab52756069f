"""quadprog: dual active set of Goldfarb and Idnani (Math. Prog. 27 (1983)); dense, P ≻ 0."""

from __future__ import annotations

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, dense, failed, stack_dense


def solve(qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock) -> QPSolution:
    """Solve a QP by quadprog, which has no tolerances to set."""
    import quadprog  # noqa: PLC0415

    del tolerances
    neq = qp.neq
    with clock("prepare"):
        P = np.array(dense(qp.P))  # overwritten by the solver
        # In its form C'z ≥ d the first neq columns are equalities.
        C = -stack_dense(qp.A, qp.G).T if neq + qp.nineq else None
        d = -np.concatenate([qp.b, qp.h]) if neq + qp.nineq else None
    with clock("solve"):
        try:
            if C is None:
                z, _, _, iterations = quadprog.solve_qp(P, -qp.q)[:4]
                multipliers = np.zeros(0)
            else:
                z, _, _, iterations, multipliers, _ = quadprog.solve_qp(P, -qp.q, C, d, neq)
        except ValueError as error:
            text = str(error)
            if "inconsistent" in text:
                return failed(qp, "infeasible")
            if "positive definite" in text:
                return failed(qp, "failed (quadprog: P is not positive definite)")
            raise
    with clock("extract"):
        nu, lam = multipliers[:neq], multipliers[neq:]
        return answer(qp, "solved", int(iterations[0]), z, nu, lam)
