"""Alternating differentiation (Alt-Diff), over `bpqp_bench.layers.altdiff_core`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array, Matrix


class AltDiff(Method):
    """ADMM in the forward pass, its derivative recursion in the backward pass.

    The published method alternates the two. The recursion depends on the iterates through the
    signs of the slacks alone, so keeping those and running it afterwards is the same computation;
    the passes can then be timed apart.
    """

    name = "altdiff"
    label = "Alt-Diff"
    reference = "Sun et al., Alternating Differentiation for Optimization Layers, ICLR 2023"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType(
        {
            "socp": "the published method is for polyhedral constraints: its slack update "
            "projects on the nonnegative orthant, with a 0/1 mask as derivative"
        }
    )
    requires = ("scipy",)
    parameters = MappingProxyType(
        {
            "rho": 0.0,
            "equality_weight": 1000.0,
            "tolerance": 1e-8,
            "rule": "residual",
            "max_iterations": 5000,
            "derivative": "jacobian",
        }
    )
    variants = MappingProxyType(
        {
            "altdiff-paper": Variant(
                "Alt-Diff (ρ = 1, stops at 1e-3)",
                {"rho": 1.0, "equality_weight": 1.0, "rule": "objective", "tolerance": 1e-3},
                caveats={"lp": "the rule stops after three iterations where P = 2e-6·I"},
            ),
            "altdiff-vjp": Variant("Alt-Diff (vector-Jacobian)", {"derivative": "vjp"}),
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Sparse data, cones, and Jacobians of a matrix cannot be taken."""
        if reason := super().unsupported(instance):
            return reason
        if instance.is_sparse:
            return "sparse data: K = P + ρAᵀA + ρGᵀG and the recursion are dense"
        matrices = [name for name in self.wrt if name in ("P", "A", "G")]
        if matrices and self.options["derivative"] == "jacobian":
            return (
                f"the Jacobian with respect to {', '.join(matrices)} has n rows and a column for "
                "every entry of the matrix; use altdiff-vjp"
            )
        return None

    def build(self, template: Instance) -> None:
        """Nothing is shared between instances: each has its own P, A and G."""
        from bpqp_bench.layers.altdiff_core import Settings

        if self.device != "cpu":
            raise MethodError(f"Alt-Diff runs on the CPU, not on {self.device}")
        if self.options["derivative"] not in ("jacobian", "vjp"):
            raise SpecError(f"derivative={self.options['derivative']}: jacobian or vjp")
        given: dict[str, Any] = {k: v for k, v in self.options.items() if k != "derivative"}
        try:
            self._settings = Settings(**given)
        except ValueError as error:
            raise SpecError(f"{self.key}: {error}") from None

    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """ADMM; the status is "iteration limit" where the stopping rule was not met."""
        from bpqp_bench.layers.altdiff_core import factorize, iterate

        if reason := self.unsupported(problem):
            raise MethodError(reason)
        matrices = bool({"P", "A", "G"} & set(self.wrt))
        try:
            with clock("setup"):
                split = factorize(problem.P, problem.A, problem.G, self._settings)
            with clock("solve"):
                run = iterate(
                    split, problem.q, problem.b, problem.h, self._settings, record=matrices
                )
        except (ValueError, FloatingPointError) as error:
            raise MethodError(f"{problem.name}: {error}") from None
        self._work = split, run
        return Solution(
            z=run.z,
            nu=run.nu,
            lam=run.lam,
            status=run.status,
            iterations=run.iterations,
            info={
                "rho": split.rho,
                "relative_primal_residual": run.primal_residual,
                "relative_dual_residual": run.dual_residual,
                "derivative": str(self.options["derivative"]),
            },
        )

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array | Matrix]:
        """Run the derivative recursion: the whole Jacobian, or its product with v."""
        from bpqp_bench.layers.altdiff_core import jacobian, vjp

        split, run = self._work
        if self.options["derivative"] == "vjp":
            with clock("solve"):
                return vjp(split, run, upstream, self.wrt)
        with clock("solve"):
            by_name = jacobian(split, run.masks, self.wrt)
        with clock("extract"):
            return {name: J.T @ upstream for name, J in by_name.items()}
