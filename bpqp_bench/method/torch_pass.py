"""What the adapters of torch layers share: gradients by autograd, and one adapter for our own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bpqp_bench.method.contract import Data, FrameworkArray, Method
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.solution import Solution


def autograd(
    z: FrameworkArray, data: Data, wrt: tuple[str, ...], upstream: FrameworkArray
) -> Mapping[str, FrameworkArray]:
    """Return {name: ∇ of L} by torch.autograd; zeros where the graph does not reach a parameter.

    Parameters
    ----------
    z
        What the forward pass returned, with its graph.
    data, wrt, upstream
        As in `Method.forward` and `Method.backward`.
    """
    torch: Any = importlib.import_module("torch")  # not above: listing the methods must not need it
    wanted = [getattr(data, name) for name in wrt]
    found = torch.autograd.grad(z, wanted, upstream, materialize_grads=True)
    return dict(zip(wrt, found, strict=True))


class LayerMethod(Method):
    """A layer of `bpqp_bench.layers.implicit`: batches of dense QPs, differentiated by autograd.

    `build` binds it to ``layer``; it keeps the point of its last call, with its multipliers.
    """

    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    phases_split = False
    layer: Any

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to sparse data."""
        return "dense tensors only" if instance.is_sparse else super().unsupported(instance)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve the batch."""
        self._data = data
        with clock("solve"):
            self._z = self.layer(data.P, data.q, data.A, data.b, data.G, data.h)
        return Solution(self._z, status=None)

    def describe(self, solution: Solution) -> Solution:
        """Add the multipliers and the status, which the layer keeps."""
        last, data = self.layer.last, self._data
        return replace(
            solution,
            nu=last.nu.reshape(data.b.shape),
            lam=last.lam.reshape(data.h.shape),
            status=last.status if data.batch > 1 else last.status[0],
        )

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
