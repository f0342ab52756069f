"""dQP: any solver forward, the reduced KKT system of the binding rows backward."""

from types import MappingProxyType

from bpqp_bench import Instance, Variant
from bpqp_bench.method.torch_pass import LayerMethod


class DQPMethod(LayerMethod):
    """`bpqp_bench.layers.dqp.DQP`, ours, because the authors' package is not on the registry.

    Any solver will do; ProxQP is this suite's fastest for dense problems. Its tolerance and the
    threshold on the slack are the published ones in ``dqp-defaults``; tighter ones cost a few
    iterations and tell binding rows from near ones.
    """

    name = "dqp"
    label = "dQP"
    reference = "Magoon et al., dQP, arXiv 2410.06324, 2024"
    why_not = MappingProxyType({"socp": "the reduced system has no curvature of cones"})
    requires = ("torch", "proxsuite")
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

    def build(self, template: Instance) -> None:
        """Make the layer; nothing is compiled."""
        from bpqp_bench.layers.dqp import DQP

        del template
        self.layer = DQP(**self.options)
