"""SCQPTH: batched ADMM, differentiated at its fixed point."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd, with_duals


class SCQPTHMethod(Method):
    """`bpqp_bench.layers.scqpth.SCQPTH`, ours, because the authors' package is not on the registry.

    The published tolerance of 1e-3 can miss the binding rows; 1e-9 finds them, and iterations that
    do not end are cut at 50,000. ``scqpth-defaults`` has the published values.
    """

    name = "scqpth"
    label = "SCQPTH"
    reference = "Butler, arXiv 2308.08232, 2023"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "SCQPTH projects on intervals; a cone is none"})
    requires = ("torch",)
    phases_split = False
    tolerance = "eps"
    parameters = MappingProxyType({"eps": 1e-9, "max_iter": 50_000})
    variants = MappingProxyType(
        {
            "scqpth-defaults": Variant(
                "SCQPTH (defaults)",
                {"eps": 1e-3, "max_iter": 10_000},
                caveats=dict.fromkeys(("qp", "lp"), "a tolerance of 1e-3 can miss binding rows"),
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense tensors only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.scqpth import SCQPTH

        del template
        self._layer = SCQPTH(**self.options)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve the batch."""
        self._data = data
        with clock("solve"):
            self._z = self._layer(data.P, data.q, data.A, data.b, data.G, data.h)
        return Solution(self._z, status=None)

    def describe(self, solution: Solution) -> Solution:
        """Add the multipliers and the status, which the layer keeps."""
        last = self._layer.last
        return replace(with_duals(solution, last, self._data), iterations=last.kept.iterations)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
