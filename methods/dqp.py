"""dQP: any solver forward, the reduced KKT system of the binding rows backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd, with_duals


class DQPMethod(Method):
    """`bpqp_bench.layers.dqp.DQP`, ours, because the authors' package is not on the registry.

    Any solver will do; ProxQP is this suite's fastest for dense problems. Its tolerance and the
    threshold on the slack are the published ones in ``dqp-defaults``; tighter ones cost a few
    iterations and tell binding rows from near ones.
    """

    name = "dqp"
    label = "dQP"
    reference = "Magoon et al., dQP, arXiv 2410.06324, 2024"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "the reduced system has no curvature of cones"})
    requires = ("torch", "proxsuite")
    phases_split = False
    tolerance = "eps"
    parameters = MappingProxyType({"solver": "proxqp", "eps": 1e-10, "active_tol": 1e-7})
    variants = MappingProxyType(
        {
            "dqp-defaults": Variant(
                "dQP (defaults)",
                {"eps": 1e-6, "active_tol": 1e-5},
                caveats={"lp": "a tolerance of 1e-6 is as large as P = 2e-6·I"},
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense tensors only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.dqp import DQP

        del template
        self._layer = DQP(**self.options)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve the batch."""
        self._data = data
        with clock("solve"):
            self._z = self._layer(data.P, data.q, data.A, data.b, data.G, data.h)
        return Solution(self._z, status=None)

    def describe(self, solution: Solution) -> Solution:
        """Add the multipliers and the status, which the layer keeps."""
        return with_duals(solution, self._layer.last, self._data)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
