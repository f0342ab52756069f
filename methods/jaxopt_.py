"""JAXOpt: OSQP in JAX for QP and LP, projected gradient for a ball; implicit differentiation."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.problem.instance import Array

_OSQP_STATUS = ("iteration limit", "solved", "unbounded", "infeasible")


class JaxOpt(Method):
    """JAXOpt's solvers under `jax.jit`, compiled once per shape and process, in 64-bit JAX.

    The compiled forward function returns, beside the solution, the pull-back of `jax.vjp`; the
    backward pass calls it, compiled too. So it is exactly JAXOpt's own derivative, and the problem
    is not solved a second time. A batch goes through `jax.vmap`.

    ``implicit=default`` keeps the optimality conditions and the conjugate gradients on the normal
    equations that JAXOpt differentiates with. ``implicit=dense`` is `custom_root` on the plain KKT
    conditions with a dense LU solve: those of `BoxOSQP` split an equality's multiplier in two,
    which makes their Jacobian singular, so that no direct solver can take them.
    """

    name = "jaxopt"
    label = "JAXOpt"
    reference = "Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("jax", "jaxopt")
    group = "paper"
    tolerance = "tolerance"
    framework = "jax"
    devices = frozenset({"cpu", "cuda"})
    dtypes = frozenset({"float64", "float32"})
    batched = True
    phases_split = False
    parameters = MappingProxyType(
        {
            "tolerance": 1e-3,  # JAXOpt's default, absolute
            "max_iter": 0,  # 0: JAXOpt's default, 4000 for OSQP and 500 for projected gradient
            "linear": "cg",  # JAXOpt's default inside OSQP; or "lu"
            "implicit": "default",
        }
    )
    variants = MappingProxyType(
        {
            "jaxopt-accurate": Variant(
                "JAXOpt (accurate)",
                {"tolerance": 1e-9, "max_iter": 20_000, "linear": "lu", "implicit": "dense"},
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Take cones only where the feasible set is one ball; the derivative of q alone then."""
        reason = super().unsupported(instance)
        if reason is None and instance.is_sparse:
            return "JAXOpt's solvers here take dense data"
        if reason or instance.problem_class != "socp":
            if reason is None and instance.neq + instance.nineq == 0:
                return "JAXOpt's OSQP needs at least one constraint"
            return reason
        if not _is_ball(instance):
            return (
                "projected gradient needs a feasible set with a known projection: one ball "
                "‖z‖ ≤ d, no other constraint, linear objective"
            )
        return "with a ball there is no gradient of P" if "P" in self.wrt else None

    def build(self, template: Instance) -> None:
        """Trace and compile both passes for the template's shapes.

        Raises
        ------
        MethodError
            If JAX is not in 64-bit mode.
        SpecError
            If a parameter has an unknown value.
        """
        import jax

        if not jax.config.jax_enable_x64:
            raise MethodError("JAX computes in float32 here; set JAX_ENABLE_X64=1")
        if self.options["implicit"] not in ("default", "dense"):
            raise SpecError(f"implicit={self.options['implicit']} of jaxopt: default or dense")
        names = tuple(_names(template))
        wanted = tuple(name for name in self.wrt if name in names)
        options = tuple(sorted(self.options.items()))
        # Problems with cones come one at a time.
        together = self.batch > 1 and not template.cones
        self._passes = _compiled(options, names, wanted, together)
        # A run with these shapes compiles them, unless an earlier build has.
        data = make_data([template] * self.batch, self)[0]
        upstream = make_upstream([template] * self.batch, self)[0]
        self.forward(data, PhaseClock())
        self.backward(upstream, PhaseClock())

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve by the compiled function."""
        import jax

        if data.cones and data.cones[0].d < 0:
            raise MethodError(f"{data.name} is infeasible: its ball has a negative radius")
        self._data = data
        given = {name: data.cones[0].d if name == "d" else getattr(data, name)
                 for name in _names(data)}  # fmt: skip
        with clock("solve"):
            z, self._pull_back, self._facts = jax.block_until_ready(self._passes[0](given))
        return Solution(z)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Apply the pull-back."""
        import jax

        with clock("solve"):
            found = jax.block_until_ready(self._passes[1](self._pull_back, upstream))
        # Without rows of a kind there is nothing to differentiate.
        return {
            name: found[name] if name in found else 0.0 * getattr(self._data, name)
            for name in self.wrt
        }

    def describe(self, solution: Solution) -> Solution:
        """Add multipliers, status and iterations."""
        facts, tolerance = self._facts, float(self.options["tolerance"])
        iterations = int(np.max(facts["iterations"]))
        if self._data.cones:
            done = float(facts["error"]) <= tolerance
            # ∇(qᵀz) = −μ z/‖z‖ on the sphere.
            q, z = np.asarray(self._data.q), solution.z
            mu = np.array([max(float(-q @ z) / float(np.linalg.norm(z)), 0.0)])
            reached = "solved" if done else "iteration limit"
            return replace(solution, mu=mu, status=reached, iterations=iterations)
        codes = np.ravel(facts["status"])
        status = tuple(_OSQP_STATUS[int(code)] for code in codes)
        # The LP's quadratic term has 2e-6 on its diagonal: a coarser solver can't see it.
        blind = self._data.problem_class == "lp" and tolerance >= 1e-6
        return replace(
            solution,
            nu=facts["nu"],
            lam=facts["lam"],
            status=status if self._data.batch > 1 else status[0],
            iterations=iterations,
            info={"approximate": True} if blind else {},
        )


def _names(problem: Instance | Data) -> list[str]:
    """Names of what the solver is given: a ball's radius d, or the data that have rows."""
    if problem.cones:
        return ["q", "d"]
    return ["P", "q", *["A", "b"] * bool(problem.neq), *["G", "h"] * bool(problem.nineq)]


@functools.cache
def _compiled(
    options: tuple[tuple[str, Any], ...],
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    batch: bool,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Jitted forward and backward pass; one pair per setting, so that JAX finds it compiled."""
    import jax

    o = dict(options)
    solve = _ball_solver(o) if "d" in names else _qp_solver(o)
    solve = jax.vmap(solve) if batch else solve

    def forward(data: dict[str, Any]) -> Any:
        def of_wanted(chosen: dict[str, Any]) -> Any:
            return solve(data | chosen)

        return jax.vjp(of_wanted, {name: data[name] for name in wanted}, has_aux=True)

    def backward(pull_back: Any, upstream: Any) -> Any:
        return pull_back(upstream)[0]

    return jax.jit(forward), jax.jit(backward)


def _qp_solver(o: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import jax.numpy as jnp
    import jaxopt

    limit = {"maxiter": o["max_iter"]} if o["max_iter"] else {}
    osqp = jaxopt.OSQP(tol=o["tolerance"], eq_qp_solve=o["linear"], **limit)

    def run(d: dict[str, Any]) -> Any:
        eq = (d["A"], d["b"]) if "A" in d else None
        ineq = (d["G"], d["h"]) if "G" in d else None
        params, state = osqp.run(None, (d["P"], d["q"]), eq, ineq)
        empty = jnp.zeros(0)
        nu = empty if eq is None else params.dual_eq
        lam = empty if ineq is None else params.dual_ineq
        return (params.primal, nu, lam), state

    def conditions(point: Any, d: dict[str, Any]) -> Any:
        z, nu, lam = point
        stationarity, primal, complementarity = d["P"] @ z + d["q"], nu, lam
        if "A" in d:
            stationarity, primal = stationarity + d["A"].T @ nu, d["A"] @ z - d["b"]
        if "G" in d:
            stationarity = stationarity + d["G"].T @ lam
            complementarity = lam * (d["G"] @ z - d["h"])
        return stationarity, primal, complementarity

    root = _differentiated(o, run, conditions)

    def solve(d: dict[str, Any]) -> Any:
        (z, nu, lam), state = root(d)
        facts = {"nu": nu, "lam": lam, "iterations": state.iter_num, "status": state.status}
        return z, facts

    return solve


def _ball_solver(o: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import jax.numpy as jnp
    import jaxopt
    from jaxopt.projection import projection_l2_ball

    limit = {"maxiter": o["max_iter"]} if o["max_iter"] else {}
    descent = jaxopt.ProjectedGradient(
        lambda z, q: q @ z, projection_l2_ball, tol=o["tolerance"], **limit
    )

    def run(d: dict[str, Any]) -> Any:
        return descent.run(jnp.zeros_like(d["q"]), d["d"], d["q"])

    def conditions(z: Any, d: dict[str, Any]) -> Any:
        return projection_l2_ball(z - d["q"], d["d"]) - z

    root = _differentiated(o, run, conditions)

    def solve(d: dict[str, Any]) -> Any:
        z, state = root(d)
        return z, {"iterations": state.iter_num, "error": state.error}

    return solve


def _differentiated(o: dict[str, Any], run: Callable[..., Any], conditions: Any) -> Any:
    """Leave JAXOpt's own derivative in place, or replace it by a dense solve."""
    if o["implicit"] == "default":
        return run
    from jaxopt.implicit_diff import custom_root

    def solver(_start: Any, d: dict[str, Any]) -> Any:
        return run(d)

    root = custom_root(conditions, has_aux=True, solve=_dense_solve)(solver)
    return lambda d: root(None, d)


def _dense_solve(matvec: Callable[[Any], Any], right: Any) -> Any:
    """Solve by LU of the materialized matrix; the unknown may be any pytree."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    flat, restore = ravel_pytree(right)
    columns = jax.vmap(lambda e: ravel_pytree(matvec(restore(e)))[0])(jnp.eye(flat.size))
    return restore(jnp.linalg.solve(columns.T, flat))


def _is_ball(problem: Instance) -> bool:
    if len(problem.cones) != 1 or problem.neq or problem.nineq or np.any(_dense(problem.P)):
        return False
    cone = problem.cones[0]
    F = _dense(cone.F)
    identity = F.shape == (problem.n, problem.n) and np.array_equal(F, np.eye(problem.n))
    return identity and not cone.g.any() and not cone.c.any() and cone.d > 0


def _dense(matrix: Any) -> Array:
    array: Array = matrix.toarray() if sp.issparse(matrix) else matrix
    return array
