"""BPQP: the backward pass as a quadratic program, any solver in either pass."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.torch_pass import autograd


class BPQP(Method):
    """The torch layer at its best: active set forward, its factors backward; batches as one.

    Cones are Clarabel's in the forward pass. ``bpqp-paper`` is the published configuration, OSQP in
    both passes with its defaults. Other variants polish the forward solution on its binding rows,
    so that its gradient can be trusted on every family. ``bpqp[warm=true]`` begins at the binding
    rows of the problem before, as along a training run.
    """

    name = "bpqp"
    label = "BPQP"
    reference = "Pan et al., NeurIPS 2024, Theorem 1"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = (
        *("torch", "osqp", "proxsuite", "piqp", "clarabel", "daqp", "quadprog", "highspy", "scs"),
    )
    group = "ours"
    tolerance = "eps_abs"
    framework = "torch"
    devices = frozenset({"cpu", "cuda"})
    dtypes = frozenset({"float64", "float32"})
    batched = True
    parameters = MappingProxyType(
        {
            "forward": "active-set",
            "backward": "direct",
            "eps_abs": 1e-5,
            "eps_rel": 1e-5,
            "max_iter": 100_000,
            "polish": "active-set",
            "active_tol": 0.0,
            "gradient": "optimal",
            "equilibrate": True,
            "warm": False,
        }
    )
    variants = MappingProxyType(
        {
            "bpqp-paper": Variant(
                "BPQP (paper: OSQP, its defaults)",
                {
                    **{"forward": "osqp", "backward": "osqp"},
                    **{"eps_abs": 0.0, "eps_rel": 0.0, "max_iter": 0, "polish": "none"},
                    "equilibrate": False,
                },
                caveats=MappingProxyType(
                    {
                        "qp": "OSQP stops at a tolerance of 1e-3",
                        "lp": "a tolerance of 1e-3 hides multipliers next to P = 2e-6·I",
                        "socp": "OSQP's backward pass stops at a tolerance of 1e-3",
                    }
                ),
            ),
            "bpqp-osqp": Variant("BPQP (OSQP)", {"forward": "osqp", "backward": "osqp"}),
            "bpqp-direct": Variant("BPQP (OSQP, direct)", {"forward": "osqp"}),
            "bpqp-fast": Variant("BPQP (ProxQP, direct)", {"forward": "proxqp"}),
        }
    )

    @classmethod
    def load(cls) -> None:
        """Load the compiled kernels; where they were never used, compiling them takes a minute."""
        import torch

        from bpqp_bench import layers

        with torch.enable_grad():  # a validation may build it where gradients are off
            one, G = torch.ones(1, dtype=torch.float64), -torch.eye(1, dtype=torch.float64)
            for q in (one.requires_grad_(), one.expand(2, 1)):  # a batch that shares matrices
                for curvature in (1.0, 0.0):  # a singular P has kernels of its own
                    P = torch.full((1, 1), curvature, dtype=torch.float64)
                    layers.BPQP()(P, q, G=G, h=one.detach()).sum().backward()

    def build(self, template: Instance) -> None:
        """Make the layer; every problem is set up anew."""
        from bpqp_bench import layers

        given: dict[str, Any] = dict(self.options)
        self._warm = given.pop("warm")
        self._layer = layers.BPQP(given.pop("forward"), given.pop("backward"), **given)
        self.load()  # a worker has done so at its start

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve and find the binding rows."""
        self._data = d = data
        self._start = self._layer.state if self._warm else None
        self._z = self._layer(
            d.P, d.q, d.A, d.b, d.G, d.h, cones=d.cones, start=self._start, clock=clock
        )
        return Solution(self._z)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Solve the backward QP on the binding rows."""
        return autograd(self._z, self._data, self.wrt, upstream)

    def describe(self, solution: Solution) -> Solution:
        """Add multipliers and what the layer says of both passes."""
        duals = dict(zip(("nu", "lam", "mu"), self._layer.multipliers, strict=False))
        facts = self._layer.last_info
        status = tuple(str(fact["status"]) for fact in facts)
        return replace(
            solution,
            **duals,
            status=status if self._data.batch > 1 else status[0],
            iterations=facts[0]["iterations"],
            info=facts[0] | {"start": "cold" if self._start is None else "warm"},
        )
