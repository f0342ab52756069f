"""qpax: a primal-dual interior-point method in JAX, differentiated at a relaxed KKT point."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.data import make_data


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
    _compiled: ClassVar[dict[tuple[object, ...], tuple[Any, Any]]] = {}

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones, to sparse data and to problems without inequalities."""
        if instance.is_sparse:
            return "dense arrays only"
        if instance.problem_class in self.problem_classes and instance.nineq == 0:
            return "qpax needs at least one inequality"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Compile both passes for these options and this shape, unless that is done."""
        import jax
        import qpax

        key = (self.wrt, *self.options.values())
        if key not in self._compiled:
            o = self.options
            solve = partial(
                qpax.solve_qp_primal,
                backend=str(o["backend"])[0],
                solver_tol=o["solver_tol"],
                target_kappa=o["target_kappa"],
                max_iter=o["max_iter"],
            )

            def forward(*given: Any) -> Any:
                solver = jax.vmap(solve) if given[1].ndim == 2 else solve
                return jax.vjp(solver, *given)

            self._compiled[key] = (jax.jit(forward), jax.jit(lambda pull, v: pull(v)))
        self._forward, self._backward = self._compiled[key]
        (data,) = make_data([template] * self.batch, self)
        z, pull_back = self._forward(data.P, data.q, data.A, data.b, data.G, data.h)
        jax.block_until_ready(self._backward(pull_back, z))

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the pull-back comes with the solution, so that nothing is solved twice."""
        with clock("solve"):
            given = (data.P, data.q, data.A, data.b, data.G, data.h)
            z, self._pull_back = self._forward(*given)
            z.block_until_ready()
        return Solution(z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call the pull-back of `jax.vjp`."""
        import jax

        with clock("solve"):
            found = dict(zip("PqAbGh", self._backward(self._pull_back, upstream), strict=True))
            jax.block_until_ready(found)
        return {name: found[name] for name in self.wrt}
