"""JAXOpt's EqualityConstrainedQP, for problems without inequalities."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.data import make_data


class JaxoptEquality(Method):
    """`jaxopt.EqualityConstrainedQP` under `jax.jit`: GMRES on the KKT system in both passes.

    Its tolerance is 1e-5 by default; 1e-12 costs a few iterations more.
    """

    name = "jaxopt-equality"
    label = "JAXOpt EqualityConstrainedQP"
    reference = "Blondel et al., NeurIPS 2022; JAXOpt 0.8.5"
    group = "modern"
    framework = "jax"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "EqualityConstrainedQP has no cones"})
    requires = ("jax", "jaxopt")
    phases_split = False
    tolerance = "tol"
    parameters = MappingProxyType({"tol": 1e-12, "implicit_tol": 1e-12})
    variants = MappingProxyType(
        {
            "jaxopt-equality-defaults": Variant(
                "JAXOpt EqualityConstrainedQP (defaults)", {"tol": 1e-5, "implicit_tol": 0.0}
            )
        }
    )
    _compiled: ClassVar[dict[tuple[object, ...], tuple[Any, Any]]] = {}

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to inequalities, cones and sparse data."""
        if reason := super().unsupported(instance):
            return reason
        if instance.nineq or not instance.neq:
            return "EqualityConstrainedQP takes equality constraints, and no others"
        return "dense arrays only" if instance.is_sparse else None

    def build(self, template: Instance) -> None:
        """Compile both passes for these options and this shape, unless that is done."""
        import jax
        import jaxopt
        from jaxopt.linear_solve import solve_gmres

        key = tuple(self.options.values())
        if key not in self._compiled:
            o = self.options

            def implicit(matvec: Any, right: Any, **_: Any) -> Any:
                return solve_gmres(matvec, right, tol=o["implicit_tol"])

            solver = jaxopt.EqualityConstrainedQP(
                tol=o["tol"], implicit_diff_solve=implicit if o["implicit_tol"] else None
            )

            def solve(P: Any, q: Any, A: Any, b: Any) -> Any:
                return solver.run(params_obj=(P, q), params_eq=(A, b)).params.primal

            def forward(*given: Any) -> Any:
                return jax.vjp(jax.vmap(solve) if given[1].ndim == 2 else solve, *given)

            self._compiled[key] = (jax.jit(forward), jax.jit(lambda pull, v: pull(v)))
        self._forward, self._backward = self._compiled[key]
        (data,) = make_data([template] * self.batch, self)
        z, pull_back = self._forward(data.P, data.q, data.A, data.b)
        jax.block_until_ready(self._backward(pull_back, z))

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the pull-back comes with the solution."""
        self._data = data
        with clock("solve"):
            z, self._pull_back = self._forward(data.P, data.q, data.A, data.b)
            z.block_until_ready()
        return Solution(z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call the pull-back."""
        import jax
        import jax.numpy as jnp

        with clock("solve"):
            found = dict(zip("PqAb", self._backward(self._pull_back, upstream), strict=True))
            jax.block_until_ready(found)
        found |= {name: jnp.zeros_like(getattr(self._data, name)) for name in "Gh"}
        return {name: found[name] for name in self.wrt}
