"""JAXOpt's EqualityConstrainedQP, for problems without inequalities."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant


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

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to inequalities, cones and sparse data."""
        if reason := super().unsupported(instance):
            return reason
        if instance.nineq or not instance.neq:
            return "EqualityConstrainedQP takes equality constraints, and no others"
        return "dense arrays only" if instance.is_sparse else None

    def build(self, template: Instance) -> None:
        """Compile both passes for these options and this shape, unless that is done."""
        from bpqp_bench.method.jax_passes import compiled_passes, warm_up

        self._passes = compiled_passes(_solver, tuple(self.options.items()), ("P", "q", "A", "b"))
        warm_up(self, template)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the pull-back comes with the solution."""
        from bpqp_bench.method.jax_passes import named

        self._data = data
        with clock("solve"):
            z, self._pull_back = self._passes[0](named(data))
        return Solution(z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call the pull-back."""
        import jax.numpy as jnp

        with clock("solve"):
            found = self._passes[1](self._pull_back, upstream)
        found |= {name: jnp.zeros_like(getattr(self._data, name)) for name in "Gh"}
        return {name: found[name] for name in self.wrt}


def _solver(o: Mapping[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import jaxopt
    from jaxopt.linear_solve import solve_gmres

    def implicit(matvec: Any, right: Any, **_: Any) -> Any:
        return solve_gmres(matvec, right, tol=o["implicit_tol"])

    solver = jaxopt.EqualityConstrainedQP(
        tol=o["tol"], implicit_diff_solve=implicit if o["implicit_tol"] else None
    )

    def solve(d: dict[str, Any]) -> Any:
        run = solver.run(params_obj=(d["P"], d["q"]), params_eq=(d["A"], d["b"]))
        return run.params.primal

    return solve
