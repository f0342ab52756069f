"""JAXOpt: OSQP in JAX for QP and LP, projected gradient for a ball; implicit differentiation."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.problem.solution import Solution

_OSQP_STATUS = ("iteration limit", "solved", "unbounded", "infeasible")


class JaxOpt(Method):
    """JAXOpt's solvers, compiled once per shape in `build`, in 64-bit JAX.

    The compiled forward function returns, beside the solution, the pull-back of `jax.vjp`; the
    backward pass calls it, compiled too. So it is exactly JAXOpt's own derivative, and the problem
    is not solved a second time.

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
        self._device = jax.devices("gpu" if self.device.startswith("cuda") else self.device)[0]
        ball = template.problem_class == "socp"
        data = self._data(template)
        solve = self._ball_solver() if ball else self._qp_solver(template)
        wanted = [name for name in self.wrt if name in data]

        def forward(data: dict[str, Any]) -> Any:
            def of_wanted(chosen: dict[str, Any]) -> Any:
                return solve(data | chosen)

            return jax.vjp(of_wanted, {name: data[name] for name in wanted}, has_aux=True)

        def backward(pull_back: Any, upstream: Any) -> Any:
            return pull_back(upstream)[0]

        self._forward = jax.jit(forward).lower(data).compile()
        z, pull_back, _ = self._forward(data)
        self._backward = jax.jit(backward).lower(pull_back, z).compile()

    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """Solve by the compiled function."""
        import jax

        with clock("prepare"):
            if problem.cones and problem.cones[0].d < 0:
                raise MethodError(f"{problem.name} is infeasible: its ball has a negative radius")
            data = self._data(problem)
            self._shapes = {name: getattr(problem, name).shape for name in self.wrt}
        with clock("solve"):
            found = jax.block_until_ready(self._forward(data))
        with clock("extract"):
            z, self._pull_back, facts = found
            z = np.array(z)
            if not np.isfinite(z).all():
                raise MethodError(
                    f"JAXOpt returned a solution of {problem.name} that is not finite"
                )
            iterations = int(facts["iterations"])
            if problem.cones:
                done = float(facts["error"]) <= float(self.options["tolerance"])
                # ∇(qᵀz) = −μ z/‖z‖ on the sphere.
                mu = np.array([max(float(-problem.q @ z) / float(np.linalg.norm(z)), 0.0)])
                status = "solved" if done else "iteration limit"
                return Solution(z, None, None, mu, status, iterations)
            status = _OSQP_STATUS[int(facts["status"])]
            nu, lam = np.array(facts["nu"]), np.array(facts["lam"])
            # The LP's quadratic term has 2e-6 on its diagonal: a coarser solver can't see it.
            blind = problem.problem_class == "lp" and float(self.options["tolerance"]) >= 1e-6
            info = {"approximate": True} if blind else {}
            return Solution(z, nu, lam, None, status, iterations, info)

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array]:
        """Apply the pull-back."""
        import jax

        with clock("prepare"):
            v = jax.device_put(np.asarray(upstream), self._device)
        with clock("solve"):
            found = jax.block_until_ready(self._backward(self._pull_back, v))
        with clock("extract"):
            gradients = {}
            for name in self.wrt:
                shape = self._shapes[name]
                gradients[name] = np.array(found[name]) if name in found else np.zeros(shape)
            if "P" in gradients:
                # JAXOpt's gradient treats P as any matrix; P and Pᵀ are the same problem.
                gradients["P"] = 0.5 * (gradients["P"] + gradients["P"].T)
            return gradients

    def _data(self, problem: Instance) -> dict[str, Any]:
        import jax

        if problem.cones:
            values: dict[str, Any] = {"q": problem.q, "radius": np.float64(problem.cones[0].d)}
        else:
            rows = [("A", "b")] * bool(problem.neq) + [("G", "h")] * bool(problem.nineq)
            names = ["P", "q", *(name for pair in rows for name in pair)]
            values = {name: _dense(getattr(problem, name)) for name in names}
        return jax.block_until_ready(jax.device_put(values, self._device))

    def _qp_solver(self, template: Instance) -> Callable[[dict[str, Any]], Any]:
        import jax.numpy as jnp
        import jaxopt

        o: Any = self.options
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

        root = self._differentiated(run, conditions)

        def solve(d: dict[str, Any]) -> Any:
            (z, nu, lam), state = root(d)
            facts = {"nu": nu, "lam": lam, "iterations": state.iter_num, "status": state.status}
            return z, facts

        return solve

    def _ball_solver(self) -> Callable[[dict[str, Any]], Any]:
        import jax.numpy as jnp
        import jaxopt
        from jaxopt.projection import projection_l2_ball

        o: Any = self.options
        limit = {"maxiter": o["max_iter"]} if o["max_iter"] else {}
        descent = jaxopt.ProjectedGradient(
            lambda z, q: q @ z, projection_l2_ball, tol=o["tolerance"], **limit
        )

        def run(d: dict[str, Any]) -> Any:
            return descent.run(jnp.zeros_like(d["q"]), d["radius"], d["q"])

        def conditions(z: Any, d: dict[str, Any]) -> Any:
            return projection_l2_ball(z - d["q"], d["radius"]) - z

        root = self._differentiated(run, conditions)

        def solve(d: dict[str, Any]) -> Any:
            z, state = root(d)
            return z, {"iterations": state.iter_num, "error": state.error}

        return solve

    def _differentiated(self, run: Callable[..., Any], conditions: Callable[..., Any]) -> Any:
        """Leave JAXOpt's own derivative in place, or replace it by a dense solve."""
        if self.options["implicit"] == "default":
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
    return matrix.toarray() if sp.issparse(matrix) else matrix
