"""DC3, over `bpqp_bench.layers.dc3`: a network trained in `build` on the family's own q."""

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.torch_pass import autograd
from bpqp_bench.plugins.specification import parse_spec
from bpqp_bench.problem.cache import cache_directory


class DC3(Method):
    """Network, completion and correction; backward is autograd through that chain.

    An approximation: its status is "approximate", and feasibility and objective gap belong beside
    its times.
    """

    name = "dc3"
    label = "DC3"
    reference = "Donti, Rolnick and Kolter, DC3, ICLR 2021"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType(
        {"socp": "the paper runs DC3 on QP and LP; its correction here is for linear inequalities"}
    )
    requires = ("torch",)
    group = "paper"
    framework = "torch"
    devices = frozenset({"cpu", "cuda"})
    batched = True
    parameters = MappingProxyType(
        {
            "samples": 1000,
            "epochs": 50,
            "batch": 200,
            "lr": 1e-4,
            "hidden": 200,
            "dropout": 0.2,
            "soft_weight": 10.0,
            "correction_steps": 10,
            "correction_rate": 0.0,  # 0: 1/(2‖G_eff‖²)
            "momentum": 0.5,
            "correction_tolerance": 1e-4,
            "seed": 0,
        }
    )
    variants = MappingProxyType(
        {
            "dc3-paper": Variant(
                "DC3 (10000 samples, 500 epochs, rate 1e-7)",
                {"samples": 10000, "epochs": 500, "correction_rate": 1e-7},
                costly=True,
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Cones, sparse data, problems that share nothing, and parameters other than q."""
        if reason := super().unsupported(instance):
            return reason
        if instance.is_sparse:
            return "sparse data: completion and correction are dense"
        name, given = parse_spec(instance.family)
        if given.get("fixed") != "true":
            return (
                f"the network is trained for fixed P, A, b, G, h; use a family with fixed=true, "
                f"such as {name}[fixed=true]"
            )
        others = [name for name in self.wrt if name != "q"]
        if others:
            return f"the network is a function of q alone, not of {', '.join(others)}"
        return None

    def build(self, template: Instance) -> None:
        """Train the network on q drawn as the family draws them, or read it from the cache."""
        import torch

        from bpqp_bench.layers import dc3

        if reason := self.unsupported(template):
            raise MethodError(reason)
        given: dict[str, Any] = dict(self.options)
        try:
            settings = dc3.Settings(**given)
            layer = dc3.DC3(
                template.P, template.A, template.b, template.G, template.h, settings=settings
            )
        except ValueError as error:
            raise SpecError(f"{self.key} on {template.name}: {error}") from None
        if self.find_family is None:
            raise MethodError("DC3 draws its training set from the family: take it from a Registry")
        family = self.find_family(template.family).family
        self._layer = layer.to(torch.device(self.device))
        drawn, identity = dc3.samples(family, template, settings), dc3.identity(template)
        self._training = dc3.cached_training(layer, *drawn, identity, cache_directory("dc3"))
        self._template = template

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Network, completion, correction, with the graph that the backward pass needs."""
        if (data.family, data.size) != (self._template.family, self._template.size):
            raise MethodError(
                f"{data.name} is another family or size than the network was trained for"
            )
        self._data = data
        with clock("solve"):
            self._z = self._layer(data.q)
        return Solution(
            z=self._z,
            status="approximate",
            info={"approximate": True, "training": asdict(self._training)},
        )

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Gradient of the network's answer with respect to q, by autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
