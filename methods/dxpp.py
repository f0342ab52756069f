"""dXPP: any solver forward, a smoothed penalty problem backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd, with_duals


class DXPPMethod(Method):
    """`bpqp_bench.layers.dxpp.DXPP`, ours, because the authors' package is not on the registry.

    The error is linear in β, and the condition of the system is 1/β over the curvature. So β is
    1e-6 for a QP, as in the documentation's example, and the published default of 1e-4 for an LP,
    whose curvature is 2e-6. ``dxpp-defaults`` has the published β and tolerance everywhere.
    """

    name = "dxpp"
    label = "dXPP"
    reference = "Linghu, Liu and Deng, arXiv 2602.14154, 2026"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "the penalty is that of linear constraints"})
    requires = ("torch", "proxsuite")
    phases_split = False
    tolerance = "beta"
    parameters = MappingProxyType(
        {"solver": "proxqp", "eps": 1e-10, "beta": 0.0, "penalty": 10.0}
    )  # beta 0: see above
    variants = MappingProxyType(
        {
            "dxpp-defaults": Variant(
                "dXPP (defaults)",
                {"eps": 1e-6, "beta": 1e-4},
                caveats={"lp": "a tolerance of 1e-6 hides multipliers next to P = 2e-6·I"},
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense tensors only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.dxpp import DXPP

        beta = self.options["beta"] or (1e-4 if template.problem_class == "lp" else 1e-6)
        self._layer = DXPP(**self.options | {"beta": beta})

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
