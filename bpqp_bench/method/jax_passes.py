"""What the adapters of JAX libraries share: compiled passes, and JAXOpt's solvers as functions.

Adapters import this file in `build`: it needs JAX and JAXOpt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import jaxopt
from jax.flatten_util import ravel_pytree
from jaxopt.implicit_diff import custom_root
from jaxopt.projection import projection_l2_ball

from bpqp_bench.errors import MethodError
from bpqp_bench.method.contract import Data, Method
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Instance

# Arrays by name: P, q, A, b, G, h, or q and the radius d of a ball.
Named: TypeAlias = dict[str, Any]
Solve: TypeAlias = Callable[[Named], Any]


@functools.cache
def compiled_passes(
    make: Callable[[Mapping[str, Any]], Solve],
    options: tuple[tuple[str, Any], ...],
    wanted: tuple[str, ...],
    aux: bool = False,
) -> tuple[Callable[[Named], Any], Callable[[Any, Any], Named]]:
    """Return a forward and a backward pass under `jax.jit`; one pair a setting and process.

    The forward pass returns the pull-back of `jax.vjp` beside the solution, so that the derivative
    is the library's own and nothing is solved twice. A batch goes through `jax.vmap`. Both return
    when JAX's queue is empty.

    Parameters
    ----------
    make
        Returns what maps the arrays by name to z; with ``aux`` to z and further facts.
    options
        Name and value of each parameter of the method, which ``make`` is given.
    wanted
        Names that the backward pass returns the gradients of.
    """
    solve = make(dict(options))

    def forward(data: Named) -> Any:
        mapped = jax.vmap(solve) if data["q"].ndim == 2 else solve

        def of_wanted(chosen: Named) -> Any:
            return mapped(data | chosen)

        return jax.vjp(of_wanted, {name: data[name] for name in wanted}, has_aux=aux)

    first, second = jax.jit(forward), jax.jit(lambda pull_back, upstream: pull_back(upstream)[0])
    return (
        lambda data: jax.block_until_ready(first(data)),
        lambda pull_back, upstream: jax.block_until_ready(second(pull_back, upstream)),
    )


def warm_up(method: Method, template: Instance) -> None:
    """Run both passes once for the template's shapes, which compiles them unless that is done.

    Raises
    ------
    MethodError
        If JAX is not in 64-bit mode.
    """
    if not jax.config.jax_enable_x64:
        raise MethodError("JAX computes in float32 here; set JAX_ENABLE_X64=1")
    problems = [template] * method.batch
    method.forward(make_data(problems, method)[0], PhaseClock())
    method.backward(make_upstream(problems, method)[0], PhaseClock())


def named(problem: Instance | Data) -> Named:
    """Return what a solver is given, by name: a ball's radius d, or the data that have rows."""
    if problem.cones:
        return {"q": problem.q, "d": problem.cones[0].d}
    names = ["P", "q", *["A", "b"] * bool(problem.neq), *["G", "h"] * bool(problem.nineq)]
    return {name: getattr(problem, name) for name in names}


def run_qp(solver: Any, d: Named) -> Any:
    """Run a QP solver of JAXOpt, which wants None for a kind of constraint that has no rows."""
    equality = (d["A"], d["b"]) if "A" in d else None
    inequality = (d["G"], d["h"]) if "G" in d else None
    return solver.run(None, (d["P"], d["q"]), equality, inequality)


def osqp(options: Mapping[str, Any]) -> Solve:
    """Return JAXOpt's OSQP as a function of the data: z, and multipliers, iterations, status."""
    solver = jaxopt.OSQP(
        tol=options["tolerance"], eq_qp_solve=options["linear"], **_limit(options["max_iter"])
    )

    def run(d: Named) -> Any:
        found, state = run_qp(solver, d)
        none = jnp.zeros(0)
        nu = found.dual_eq if "A" in d else none
        lam = found.dual_ineq if "G" in d else none
        return (found.primal, nu, lam), state

    def conditions(point: Any, d: Named) -> Any:
        z, nu, lam = point
        stationarity, primal, complementarity = d["P"] @ z + d["q"], nu, lam
        if "A" in d:
            stationarity, primal = stationarity + d["A"].T @ nu, d["A"] @ z - d["b"]
        if "G" in d:
            stationarity = stationarity + d["G"].T @ lam
            complementarity = lam * (d["G"] @ z - d["h"])
        return stationarity, primal, complementarity

    root = _differentiated(run, conditions, options["implicit"])

    def solve(d: Named) -> Any:
        (z, nu, lam), state = root(d)
        return z, {"nu": nu, "lam": lam, "iterations": state.iter_num, "status": state.status}

    return solve


def projected_gradient(options: Mapping[str, Any]) -> Solve:
    """Return JAXOpt's projected gradient for min qᵀz, ‖z‖ ≤ d: z, and iterations, error."""
    descent = jaxopt.ProjectedGradient(
        lambda z, q: q @ z,
        projection_l2_ball,
        tol=options["tolerance"],
        **_limit(options["max_iter"]),
    )

    def run(d: Named) -> Any:
        return descent.run(jnp.zeros_like(d["q"]), d["d"], d["q"])

    def conditions(z: Any, d: Named) -> Any:
        return projection_l2_ball(z - d["q"], d["d"]) - z

    root = _differentiated(run, conditions, options["implicit"])

    def solve(d: Named) -> Any:
        z, state = root(d)
        return z, {"iterations": state.iter_num, "error": state.error}

    return solve


def dense_solve(matvec: Callable[[Any], Any], right: Any, **_: Any) -> Any:
    """Solve by LU of the materialized matrix; the unknown may be any pytree."""
    flat, restore = ravel_pytree(right)
    columns = jax.vmap(lambda e: ravel_pytree(matvec(restore(e)))[0])(jnp.eye(flat.size))
    return restore(jnp.linalg.solve(columns.T, flat))


def _limit(iterations: int) -> dict[str, int]:
    return {"maxiter": iterations} if iterations else {}


def _differentiated(run: Solve, conditions: Callable[..., Any], implicit: str) -> Solve:
    """Leave JAXOpt's own derivative in place, or replace it by a dense solve."""
    if implicit == "default":
        return run
    root = custom_root(conditions, has_aux=True, solve=dense_solve)(lambda _start, d: run(d))
    return lambda d: root(None, d)
