"""dXPP: any solver forward, a smoothed penalty problem backward."""

from types import MappingProxyType

from bpqp_bench import Instance, Variant
from bpqp_bench.method.torch_pass import LayerMethod


class DXPPMethod(LayerMethod):
    """`bpqp_bench.layers.dxpp.DXPP`, ours, because the authors' package is not on the registry.

    The error is linear in β, and the condition of the system is 1/β over the curvature. So β is
    1e-6 for a QP, as in the documentation's example, and the published default of 1e-4 for an LP,
    whose curvature is 2e-6. ``dxpp-defaults`` has the published β and tolerance everywhere.
    """

    name = "dxpp"
    label = "dXPP"
    reference = "Linghu, Liu and Deng, arXiv 2602.14154, 2026"
    why_not = MappingProxyType({"socp": "the penalty is that of linear constraints"})
    requires = ("torch", "proxsuite")
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

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.dxpp import DXPP

        beta = self.options["beta"] or (1e-4 if template.problem_class == "lp" else 1e-6)
        self.layer = DXPP(**self.options | {"beta": beta})
