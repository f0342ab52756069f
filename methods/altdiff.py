"""Alternating differentiation (Alt-Diff), over the torch layer `bpqp_bench.layers.AltDiff`."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.torch_pass import autograd


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
    requires = ("torch", "scipy")
    group = "paper"
    tolerance = "tolerance"
    framework = "torch"
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
        """Make the layer; nothing is shared between instances."""
        from bpqp_bench.layers import AltDiff as Layer
        from bpqp_bench.layers.altdiff_core import Settings

        given: dict[str, Any] = dict(self.options)
        derivative = given.pop("derivative")
        try:
            # Its own checks are no part of the method that is timed.
            self._layer = Layer(Settings(**given), derivative, check=False)
        except ValueError as error:
            raise SpecError(f"{self.key}: {error}") from None

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """ADMM; the status is "iteration limit" where the stopping rule was not met."""
        self._data = d = data
        try:
            self._z = self._layer(d.P, d.q, d.A, d.b, d.G, d.h, clock=clock)
        except (ValueError, MethodError) as error:
            raise MethodError(f"{d.name}: {error}") from None
        return Solution(self._z)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Run the derivative recursion: the whole Jacobian, or its product with v."""
        return autograd(self._z, self._data, self.wrt, upstream)

    def describe(self, solution: Solution) -> Solution:
        """Add multipliers and what the layer says."""
        (info,) = self._layer.last_info
        nu, lam = self._layer.multipliers
        return replace(
            solution,
            nu=nu,
            lam=lam,
            status=info["status"],
            iterations=info["iterations"],
            info=info,
        )
