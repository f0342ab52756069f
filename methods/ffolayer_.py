"""FFOLayer: a fully first-order layer; its QP layer solves one Schur complement backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd


class FFOLayer(Method):
    """`ffolayer.FFOQPLayer` with qpth's interior-point method forward.

    The library's default forward solver is "qpsolvers", which needs an unpublished package and
    Gurobi; "PDIPM" is the most accurate of those that run. Given one at a time: in a batch of B
    its gradient comes out B times too large (docs/known-faults.md). ∂A and ∂G lack the term with
    the multiplier of the solution, in every setting.
    """

    name = "ffolayer"
    label = "FFOLayer"
    reference = "Fully first-order layer, ffolayer 0.1.2"
    group = "modern"
    framework = "torch"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "FFOQPLayer is for quadratic programs"})
    requires = ("torch", "ffolayer", "qpth", "osqp")
    phases_split = False
    tolerance = "eps"
    parameters = MappingProxyType(
        {"solver": "PDIPM", "eps": 1e-12, "max_iter": 50, "slack_cutoff": 1e-8}
    )
    variants = MappingProxyType(
        {
            # the library's own tolerances where a solver has any: OSQP's are fixed at 1e-5
            "ffolayer-osqp": Variant(
                "FFOLayer (OSQP)",
                {"solver": "OSQP_NATIVE"},
                caveats={"lp": "OSQP's fixed tolerance of 1e-5 hides P = 2e-6·I"},
            ),
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones, to sparse data and to problems without either kind of constraint."""
        if instance.is_sparse:
            return "dense tensors only"
        if instance.problem_class in self.problem_classes and instance.nineq == 0:
            return "FFOQPLayer needs at least one inequality"
        pdipm = self.options["solver"] == "PDIPM"
        if instance.problem_class in self.problem_classes and instance.neq == 0 and pdipm:
            return "FFOQPLayer with PDIPM fails on problems without equalities"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the torch function; nothing is compiled."""
        from ffolayer import FFOQPLayer

        del template
        o = self.options
        self._layer = FFOQPLayer(
            eps=o["eps"], maxIter=o["max_iter"], solver=o["solver"], slack_cutoff=o["slack_cutoff"],
            verbose=-1,
        )  # fmt: skip

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the layer knows batches only, and returns no status."""
        self._data = data
        with clock("solve"):
            given = (data.P, data.q, data.G, data.h, data.A, data.b)
            try:
                z = self._layer(*(t[None] for t in given))
            except RuntimeError as error:  # OSQP's word, or a factorization that failed
                raise MethodError(f"FFOLayer: {str(error).splitlines()[0]}") from error
            self._z = z[0]
        return Solution(self._z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
