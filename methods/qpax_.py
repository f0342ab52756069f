"""qpax: a primal-dual interior-point method in JAX, differentiated at a relaxed KKT point."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.problem.instance import DATA_NAMES


class Qpax(Method):
    """`qpax.solve_qp_primal` under `jax.jit`, compiled once a shape, mapped over a batch.

    The backward pass is taken at the point of the central path with s∘λ = κ ("target_kappa"), which
    smooths the gradient over κ: 1e-3 by default, 1 percent of a well-scaled gradient. Of its two
    backends the explicit one, the default, multiplies ∂G's second term by λ once too often
    (docs/known-faults.md); the implicit one has it right and stays accurate at small κ, so that it
    is this adapter's default. ``qpax-defaults`` is the library as it comes.
    """

    name = "qpax"
    label = "qpax (implicit)"
    reference = "Tracy and Manchester 2024; Arrizabalaga et al. 2026; qpax 0.1.4"
    group = "modern"
    framework = "jax"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "qpax solves quadratic programs only"})
    requires = ("jax", "qpax")
    phases_split = False
    tolerance = "solver_tol"
    parameters = MappingProxyType(
        {"backend": "implicit", "solver_tol": 1e-12, "target_kappa": 1e-12, "max_iter": 50}
    )
    variants = MappingProxyType(
        {
            "qpax-defaults": Variant(
                "qpax (defaults)",
                {
                    "backend": "explicit",
                    "solver_tol": 1e-5,
                    "target_kappa": 1e-3,
                    "max_iter": 30,
                },
                caveats=dict.fromkeys(("qp", "lp"), "the gradient is smoothed over κ = 1e-3"),
            ),
            "qpax-explicit": Variant("qpax (explicit)", {"backend": "explicit"}),
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones, to sparse data and to problems without inequalities."""
        if instance.is_sparse:
            return "dense arrays only"
        if instance.problem_class in self.problem_classes and instance.nineq == 0:
            return "qpax needs at least one inequality"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Compile both passes for these options and this shape, unless that is done."""
        from bpqp_bench.method.jax_passes import compiled_passes, warm_up

        self._passes = compiled_passes(_solver, tuple(self.options.items()), DATA_NAMES)
        warm_up(self, template)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the pull-back comes with the solution, so that nothing is solved twice."""
        with clock("solve"):
            given = {name: getattr(data, name) for name in DATA_NAMES}
            z, self._pull_back = self._passes[0](given)
        return Solution(z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call the pull-back of `jax.vjp`."""
        with clock("solve"):
            found = self._passes[1](self._pull_back, upstream)
        return {name: found[name] for name in self.wrt}


def _solver(o: Mapping[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import qpax

    more = {name: o[name] for name in ("solver_tol", "target_kappa", "max_iter")}
    solver = partial(qpax.solve_qp_primal, backend=str(o["backend"])[0], **more)
    return lambda d: solver(*(d[name] for name in DATA_NAMES))
