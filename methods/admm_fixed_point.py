"""ADMM with its adjoint found by fixed-point iteration: the baseline of implicit layers."""

from dataclasses import replace
from types import MappingProxyType

from bpqp_bench import Instance, Solution, Variant
from bpqp_bench.method.torch_pass import LayerMethod


class ADMMFixedPointMethod(LayerMethod):
    """`bpqp_bench.layers.admm_fixed_point.ADMMFixedPoint`.

    Forward as SCQPTH; backward the same equations, iterated with the forward pass's factor in place
    of a direct solve. The reviewers of BPQP asked for this comparison.
    """

    name = "admm-fixed-point"
    label = "ADMM (fixed point)"
    reference = "Blondel et al., NeurIPS 2022, section 2"
    why_not = MappingProxyType({"socp": "the projection on a cone has no 0/1 derivative"})
    requires = ("torch",)
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

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.admm_fixed_point import ADMMFixedPoint

        del template
        self.layer = ADMMFixedPoint(**self.options)

    def describe(self, solution: Solution) -> Solution:
        """Add the iterations to what every layer keeps."""
        return replace(super().describe(solution), iterations=self.layer.last.kept.iterations)
