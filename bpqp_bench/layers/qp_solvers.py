"""The QP solvers of the layers, by name.

Each is called through its own interface: set-up and iterations are then told apart by the clock,
and a failure keeps its cause (infeasible, unbounded, iteration limit), which a common wrapper
reduces to "not found".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.problem.instance import Array

SOLVERS = (
    "osqp",
    "proxqp",
    "proxqp-sparse",
    "piqp",
    "clarabel",
    "daqp",
    "quadprog",
    "highs",
    "scs",
    "scs-indirect",
)
CONE_SOLVERS = ("clarabel", "scs", "scs-indirect")
DENSE_ONLY = ("proxqp", "daqp", "quadprog")
SPARSE_CAPABLE = tuple(name for name in SOLVERS if name not in DENSE_ONLY)

_FAR = 1e6
_FLAT = 1e-6

Solver = Callable[[ConvexQP, Tolerances, Phase], QPSolution]


def qp_solver(name: str, polish: bool = False) -> Solver:
    """Return ``solve(qp, tolerances, clock)`` of a solver.

    Parameters
    ----------
    name
        One of `SOLVERS`.
    polish
        The solver's own polishing, which only OSQP has.

    Raises
    ------
    SpecError
        If there is no such solver, or it has no polishing of its own.
    """
    if name not in SOLVERS:
        raise SpecError(f"unknown QP solver {name!r}; solvers are {', '.join(SOLVERS)}")
    if polish and name != "osqp":
        raise SpecError(f"{name} has no polishing of its own; only osqp has")
    module = importlib.import_module(f"bpqp_bench.layers.solvers.{name.partition('-')[0]}_")
    if name == "osqp":
        return partial(module.solve, polish=polish)
    if name == "proxqp-sparse":
        return partial(module.solve, backend="sparse")
    if name == "scs-indirect":
        return partial(module.solve, indirect=True)
    found: Solver = module.solve
    return found


def solve_qp(
    qp: ConvexQP,
    solver: str = "osqp",
    tolerances: Tolerances | None = None,
    clock: Phase = no_clock,
    polish: bool = False,
) -> QPSolution:
    """Solve a QP (with `CONE_SOLVERS` also an SOCP).

    Parameters
    ----------
    qp
        The problem.
    solver
        One of `SOLVERS`.
    tolerances
        Stopping rule; the solver's own by default.
    clock
        Marks the phases prepare, setup, solve and extract.
    polish
        OSQP's own polishing.

    Returns
    -------
    QPSolution
        Also where the solver failed: the status says so and the point is NaN if it has none.

    Raises
    ------
    SpecError
        If there is no such solver, or it cannot take cones or sparse data.
    """
    call = qp_solver(solver, polish)
    if qp.cones and solver not in CONE_SOLVERS:
        raise SpecError(f"{solver} takes no second-order cones; {', '.join(CONE_SOLVERS)} do")
    if qp.is_sparse and solver in DENSE_ONLY:
        raise SpecError(
            f"{solver} takes dense matrices only; for sparse data choose one of "
            f"{', '.join(SPARSE_CAPABLE)}"
        )
    # Solvers read vectors by their address, some whatever the strides are.
    q, b, h = (np.ascontiguousarray(part) for part in (qp.q, qp.b, qp.h))
    found = call(replace(qp, q=q, b=b, h=h), tolerances or Tolerances(), clock)
    if found.status == "iteration limit" and _is_ray(qp, found.z):
        return replace(found, status="unbounded")
    return found


def _is_ray(qp: ConvexQP, z: Array) -> bool:
    """Whether z is, to within its length, a direction in which the objective falls without end.

    Some solvers have no certificate of unboundedness: their iterates run off along such a ray.
    """
    length = float(np.abs(z).max(initial=0.0))
    if qp.cones or not length > _FAR:
        return False
    d = z / length
    slope = float(qp.q @ d)
    return (
        slope < -_FLAT * float(np.abs(qp.q).max())
        and float(np.abs(qp.P @ d).max()) <= _FLAT * max(float(abs(qp.P).max()), -slope)
        and (qp.neq == 0 or float(np.abs(qp.A @ d).max()) <= _FLAT * float(abs(qp.A).max()))
        and (qp.nineq == 0 or float((qp.G @ d).max()) <= _FLAT * float(abs(qp.G).max()))
    )
