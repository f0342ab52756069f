"""Forward pass of problems with second-order cones, by Clarabel's own interface."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.contract import MethodError, Solution
from bpqp_bench.instance import Instance

__all__ = ["solve_socp"]


def solve_socp(
    problem: Instance, tolerance: float, phase: Callable[[str], AbstractContextManager[None]]
) -> Solution:
    """Solve with Clarabel: minimize ½zᵀPz + qᵀz subject to s = b̂ − Âz ∈ K.

    ‖Fz + g‖ ≤ cᵀz + d is the block (cᵀz + d, Fz + g) of s in a second-order cone; the first entry
    of its dual block is the multiplier μ of ‖Fz + g‖ − cᵀz − d ≤ 0.

    Parameters
    ----------
    problem
        Any instance; QP and LP are the case without cones.
    tolerance
        Feasibility and duality gap, absolute and relative.
    phase
        A `PhaseClock`.

    Raises
    ------
    MethodError
        If the problem is infeasible or unbounded, or the solver fails.
    """
    import clarabel  # noqa: PLC0415 - an optional path of the layer; slow to import

    with phase("prepare"):
        blocks = [sp.csc_matrix(problem.A), sp.csc_matrix(problem.G)]
        offsets = [problem.b, problem.h]
        cones: list[Any] = []
        if problem.neq:
            cones.append(clarabel.ZeroConeT(problem.neq))
        if problem.nineq:
            cones.append(clarabel.NonnegativeConeT(problem.nineq))
        starts = []
        row = problem.neq + problem.nineq
        for cone in problem.cones:
            blocks += [sp.csc_matrix(-cone.c[None, :]), sp.csc_matrix(-cone.F)]
            offsets += [np.array([cone.d]), cone.g]
            cones.append(clarabel.SecondOrderConeT(1 + cone.g.size))
            starts.append(row)
            row += 1 + cone.g.size
        rows = sp.vstack(blocks, format="csc")
        hessian = sp.triu(problem.P, format="csc")
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        for name in ("tol_feas", "tol_gap_abs", "tol_gap_rel"):
            setattr(settings, name, tolerance)
    with phase("setup"):
        solver = clarabel.DefaultSolver(
            hessian, problem.q, rows, np.concatenate(offsets), cones, settings
        )
    with phase("solve"):
        result = solver.solve()
    with phase("extract"):
        status = str(result.status)
        if "Infeasible" in status:
            meaning = "unbounded" if "Dual" in status else "infeasible"
            raise MethodError(f"{problem.name} is {meaning} (Clarabel: {status})")
        z, dual = np.array(result.x), np.array(result.z)
        if not np.isfinite(z).all():
            raise MethodError(f"Clarabel failed on {problem.name}: {status}")
        return Solution(
            z=z,
            nu=dual[: problem.neq],
            lam=dual[problem.neq : problem.neq + problem.nineq],
            mu=dual[starts] if starts else None,
            status="solved" if status == "Solved" else status,
            iterations=int(result.iterations),
        )
