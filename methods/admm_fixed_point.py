"""ADMM with its adjoint found by fixed-point iteration: the baseline of implicit layers."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd, with_duals


class ADMMFixedPointMethod(Method):
    """`bpqp_bench.layers.admm_fixed_point.ADMMFixedPoint`.

    Forward as SCQPTH; backward the same equations, iterated with the forward pass's factor in place
    of a direct solve. The reviewers of BPQP asked for this comparison.
    """

    name = "admm-fixed-point"
    label = "ADMM (fixed point)"
    reference = "Blondel et al., NeurIPS 2022, section 2"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "the projection on a cone has no 0/1 derivative"})
    requires = ("torch",)
    phases_split = False
    tolerance = "eps"
    parameters = MappingProxyType({"eps": 1e-9, "max_iter": 50_000, "eps_backward": 1e-9})
    variants = MappingProxyType(
        {
            "admm-fixed-point-loose": Variant(
                "ADMM (fixed point, 1e-3)",
                {"eps": 1e-3, "max_iter": 10_000, "eps_backward": 1e-3},
                caveats=dict.fromkeys(("qp", "lp"), "a tolerance of 1e-3 can miss binding rows"),
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense tensors only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.admm_fixed_point import ADMMFixedPoint

        del template
        self._layer = ADMMFixedPoint(**self.options)

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
