"""What the adapters of torch layers share: gradients by autograd, and what our layers keep."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bpqp_bench.method.contract import Data, FrameworkArray
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


def with_duals(solution: Solution, last: Any, data: Data) -> Solution:
    """Add the multipliers and the status that a layer of ours keeps of its last call.

    ``last`` is its `bpqp_bench.layers.implicit.Point`, or anything with ``nu``, ``lam`` and one
    ``status`` a problem.
    """
    return replace(
        solution,
        nu=last.nu.reshape(data.b.shape),
        lam=last.lam.reshape(data.h.shape),
        status=last.status if data.batch > 1 else last.status[0],
    )
