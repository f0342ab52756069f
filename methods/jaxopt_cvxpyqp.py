"""JAXOpt's CvxpyQP: CVXPY forward, JAXOpt's implicit differentiation backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant


class JaxoptCvxpyQP(Method):
    """`jaxopt.CvxpyQP`, which canonicalizes at every call and can be neither compiled nor mapped.

    Its implicit derivative is traced anew at every call: 1 s with the default, conjugate gradients
    on the normal equations, which also compiles a loop, and 0.3 s with a dense solve of the same
    KKT system. Clarabel is the one of CVXPY's solvers whose default tolerance, 1e-8, is fit for a
    gradient; CvxpyQP passes no options on.
    """

    name = "jaxopt-cvxpyqp"
    label = "JAXOpt CvxpyQP"
    reference = "Blondel et al., NeurIPS 2022; JAXOpt 0.8.5"
    group = "modern"
    framework = "jax"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "CvxpyQP solves quadratic programs only"})
    requires = ("jax", "jaxopt", "cvxpy", "clarabel", "osqp")
    phases_split = False
    parameters = MappingProxyType({"solver": "CLARABEL", "implicit": "dense"})  # or normal-cg
    variants = MappingProxyType(
        {
            "jaxopt-cvxpyqp-defaults": Variant(
                "JAXOpt CvxpyQP (defaults)",
                {"solver": "OSQP", "implicit": "normal-cg"},
                caveats={"lp": "a tolerance of 1e-5 hides multipliers next to P = 2e-6·I"},
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense arrays only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the solver; nothing is compiled."""
        import jaxopt

        from bpqp_bench.method.jax_passes import dense_solve

        del template
        dense = self.options["implicit"] == "dense"
        self._solver = jaxopt.CvxpyQP(
            solver=self.options["solver"], implicit_diff_solve=dense_solve if dense else None
        )

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the pull-back of `jax.vjp` comes with the solution."""
        import jax

        from bpqp_bench.method.jax_passes import named, run_qp

        self._data = data
        with clock("solve"):
            try:
                z, self._pull_back = jax.vjp(
                    lambda d: run_qp(self._solver, d).params.primal, named(data)
                )
            except Exception as error:  # its ValueError, or CVXPY's SolverError
                raise MethodError(f"CvxpyQP: {error}") from error
        return Solution(z)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call the pull-back."""
        import jax

        with clock("solve"):
            (found,) = jax.block_until_ready(self._pull_back(upstream))
        # Without rows of a kind there is nothing to differentiate.
        none = {name: 0.0 * getattr(self._data, name) for name in self.wrt if name not in found}
        return {name: (found | none)[name] for name in self.wrt}
