"""SCS: splitting conic solver for quadratic cones (O'Donoghue, SIAM J. Optim. 31 (2021))."""

from __future__ import annotations

import numpy as np

from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.solvers._common import answer, csc_upper, failed
from bpqp_bench.layers.solvers._conic import cone_multipliers, conic_rows

_STATUS = {
    1: "solved",
    2: "inaccurate",
    -1: "unbounded",
    -6: "unbounded",
    -2: "infeasible",
    -7: "infeasible",
}


def solve(
    qp: ConvexQP, tolerances: Tolerances, clock: Phase = no_clock, indirect: bool = False
) -> QPSolution:
    """Solve a QP or SOCP by SCS; ``indirect`` by conjugate gradients, without a factorization."""
    import scs  # noqa: PLC0415

    settings: dict[str, object] = {"verbose": False}
    if indirect:
        settings["linear_solver"] = scs.LinearSolver.CPU_INDIRECT
    if tolerances.eps_abs:
        settings["eps_abs"] = tolerances.eps_abs
    if tolerances.eps_rel:
        settings["eps_rel"] = tolerances.eps_rel
    if tolerances.max_iter:
        settings["max_iters"] = tolerances.max_iter
    if tolerances.time_limit:
        settings["time_limit_secs"] = tolerances.time_limit
    with clock("prepare"):
        rows, right, sizes = conic_rows(qp)
        data = {"P": csc_upper(qp.P), "c": qp.q, "A": rows, "b": right}
        if not len(right):
            # It insists on a constraint: one that always holds.
            data |= {"A": csc_row_of_zeros(qp.n), "b": np.ones(1)}
            sizes = {"l": 1}
    with clock("setup"):
        try:
            solver = scs.SCS(data, sizes, **settings)
        except ValueError as error:
            # Its set-up factorizes; a matrix that is not positive semidefinite shows there.
            return failed(qp, f"failed (SCS set-up: {error})")
    with clock("solve"):
        found = solver.solve()
    with clock("extract"):
        info = found["info"]
        status = _STATUS.get(info["status_val"], f"failed (SCS: {info['status']})")
        if status == "inaccurate" and info["iter"] >= (tolerances.max_iter or 100_000):
            status = "iteration limit"
        if "time_limit" in str(info["status"]):
            status = "time limit"
        if status in {"infeasible", "unbounded"} or status.startswith("failed"):
            return failed(qp, status, int(info["iter"]))
        y = found["y"]
        nu, lam = y[: qp.neq], y[qp.neq : qp.neq + qp.nineq]
        mu = cone_multipliers(qp, y)
        return answer(qp, status, int(info["iter"]), found["x"], nu, lam, mu)


def csc_row_of_zeros(n: int) -> object:
    """0ᵀz ≤ 1."""
    import scipy.sparse as sp  # noqa: PLC0415

    return sp.csc_matrix((1, n))
