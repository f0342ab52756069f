"""SCQPTH: batched ADMM, differentiated at its fixed point."""

from dataclasses import replace
from types import MappingProxyType

from bpqp_bench import Instance, Solution, Variant
from bpqp_bench.method.torch_pass import LayerMethod


class SCQPTHMethod(LayerMethod):
    """`bpqp_bench.layers.scqpth.SCQPTH`, ours, because the authors' package is not on the registry.

    The published tolerance of 1e-3 can miss the binding rows; 1e-9 finds them, and iterations that
    do not end are cut at 50,000. ``scqpth-defaults`` has the published values.
    """

    name = "scqpth"
    label = "SCQPTH"
    reference = "Butler, arXiv 2308.08232, 2023"
    why_not = MappingProxyType({"socp": "SCQPTH projects on intervals; a cone is none"})
    requires = ("torch",)
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

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.scqpth import SCQPTH

        del template
        self.layer = SCQPTH(**self.options)

    def describe(self, solution: Solution) -> Solution:
        """Add the iterations to what every layer keeps."""
        return replace(super().describe(solution), iterations=self.layer.last.kept.iterations)
