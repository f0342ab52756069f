"""The layers that are asked: BPQP by its pair of solvers "forward/backward", and the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers import BPQP, AltDiff, ConvexProgram, ExactKKT
from bpqp_bench.layers import bpqp as bpqp_module
from bpqp_bench.layers.convex_program import quadratic_solver
from bpqp_bench.layers.problem import ConvexQP


class _Program(torch.nn.Module):
    """`ConvexProgram` on a QP: the functions are written out, rows without a bound left out."""

    def forward(
        self, P: Tensor, q: Tensor, A: Tensor | None, b: Tensor | None, G: Any, h: Any
    ) -> Tensor:
        n, none = len(q), q.new_zeros(0)
        A, b = (none.view(0, n), none) if A is None or b is None else (A, b)
        G, h = (none.view(0, n), none) if G is None else (G, h)
        if (h == -torch.inf).any():
            raise InstanceError("infeasible: a row of h is -infinity")
        bounded = h < torch.inf
        given = P, q, A, b, G[bounded], h[bounded]
        program = ConvexProgram(
            lambda z, P, q, A, b, G, h: 0.5 * z @ P @ z + q @ z,
            lambda z, P, q, A, b, G, h: A @ z - b,
            lambda z, P, q, A, b, G, h: G @ z - h,
            solver=quadratic_solver(ConvexQP),
        )
        z: Tensor = program(*given)
        point, _ = program.solve(*given)
        lam = torch.zeros(len(h), dtype=torch.float64)
        lam[bounded] = torch.from_numpy(point.lam)
        self.multipliers = torch.from_numpy(point.nu), lam
        self.last_info = [program.last_info]
        return z


class _OnTorch(BPQP):
    """`BPQP` by the kernel of other devices, in torch, on tensors of the CPU."""

    def forward(self, *given: Any, **options: Any) -> Tensor:
        with mock.patch.object(bpqp_module, "_by_kernel", bpqp_module._by_torch):
            return super().forward(*given, **options)


#: Layers that take one problem a call, without bounds of their own.
PLAIN: dict[str, Callable[[], torch.nn.Module]] = {
    "exact-kkt": ExactKKT,
    "alt-diff": AltDiff,
    "convex-program": _Program,
}


#: The default layer by its kernel in torch.
ON_TORCH = "active-set/torch"


def make_layer(name: str, **options: Any) -> torch.nn.Module:
    """Make a layer by its name."""
    if name in PLAIN:
        return PLAIN[name]()
    if name == ON_TORCH:
        return _OnTorch(**options)
    forward, backward = name.split("/")
    return BPQP(forward, backward, **options)
