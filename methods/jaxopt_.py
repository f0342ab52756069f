"""JAXOpt: OSQP in JAX for QP and LP, projected gradient for a ball; implicit differentiation."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import FrameworkArray

_OSQP_STATUS = ("iteration limit", "solved", "unbounded", "infeasible")


class JaxOpt(Method):
    """JAXOpt's solvers under `jax.jit`, compiled once per shape and process, in 64-bit JAX.

    They are set up in `bpqp_bench.method.jax_passes`. ``implicit=default`` keeps the optimality
    conditions and the conjugate gradients on the normal equations that JAXOpt differentiates with.
    ``implicit=dense`` is `custom_root` on the plain KKT conditions with a dense LU solve: those of
    `BoxOSQP` split an equality's multiplier in two, which makes their Jacobian singular, so that no
    direct solver can take them.
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
        from bpqp_bench.reference.ball import is_ball

        if reason := super().unsupported(instance):
            return reason
        if instance.is_sparse:
            return "JAXOpt's solvers here take dense data"
        if not instance.cones:
            none = instance.neq + instance.nineq == 0
            return "JAXOpt's OSQP needs at least one constraint" if none else None
        if not is_ball(instance) or instance.cones[0].d <= 0:
            ball = "one ball ‖z‖ ≤ d, no other constraint, linear objective"
            return f"projected gradient needs a feasible set with a known projection: {ball}"
        return "with a ball there is no gradient of P" if "P" in self.wrt else None

    def build(self, template: Instance) -> None:
        """Trace and compile both passes for the template's shapes, unless that is done."""
        from bpqp_bench.method import jax_passes

        if self.options["implicit"] not in ("default", "dense"):
            raise SpecError(f"implicit={self.options['implicit']} of jaxopt: default or dense")
        make = jax_passes.projected_gradient if template.cones else jax_passes.osqp
        wanted = tuple(name for name in self.wrt if name in jax_passes.named(template))
        self._passes = jax_passes.compiled_passes(make, tuple(self.options.items()), wanted, True)
        jax_passes.warm_up(self, template)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve by the compiled function."""
        from bpqp_bench.method.jax_passes import named

        if data.cones and data.cones[0].d < 0:
            raise MethodError(f"{data.name} is infeasible: its ball has a negative radius")
        self._data = data
        with clock("solve"):
            z, self._pull_back, self._facts = self._passes[0](named(data))
        return Solution(z)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Apply the pull-back."""
        with clock("solve"):
            found = self._passes[1](self._pull_back, upstream)
        # Without rows of a kind there is nothing to differentiate.
        none = {name: 0.0 * getattr(self._data, name) for name in self.wrt if name not in found}
        return found | none

    def describe(self, solution: Solution) -> Solution:
        """Add multipliers, status and iterations."""
        facts, tolerance = self._facts, float(self.options["tolerance"])
        solution = replace(solution, iterations=int(np.max(facts["iterations"])))
        if self._data.cones:
            # ∇(qᵀz) = −μ z/‖z‖ on the sphere.
            q, z = np.asarray(self._data.q), solution.z
            mu = np.array([max(float(-q @ z) / float(np.linalg.norm(z)), 0.0)])
            done = float(facts["error"]) <= tolerance
            return replace(solution, mu=mu, status="solved" if done else "iteration limit")
        status = tuple(_OSQP_STATUS[int(code)] for code in np.ravel(facts["status"]))
        # The LP's quadratic term has 2e-6 on its diagonal: a coarser solver can't see it.
        blind = self._data.problem_class == "lp" and tolerance >= 1e-6
        return replace(
            solution,
            nu=facts["nu"],
            lam=facts["lam"],
            status=status if self._data.batch > 1 else status[0],
            info={"approximate": True} if blind else {},
        )
