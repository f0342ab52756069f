"""The torch shell of layers that solve a batch of QPs and then one adjoint problem each.

A layer says how it solves and how it finds the adjoint (z̃, ν̃, λ̃) of

    Pz̃ + Aᵀν̃ + Gᵀλ̃ = −v,  Az̃ = 0,  Gz̃ = 0 in the binding rows,  λ̃ = 0 in the others,

exactly or nearly; shapes, batches and the six gradients are the same for all and are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.problem import ConvexQP, QPSolution, Tolerances
from bpqp_bench.layers.qp_solvers import solve_qp

_NDIM = (2, 1, 2, 1, 2, 1)


@dataclass(frozen=True, eq=False)
class BatchQP:
    """Data of B problems, each with the leading dimension B, detached from the graph."""

    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor
    G: Tensor
    h: Tensor

    def instance(self, i: int) -> ConvexQP:
        """Return problem i as NumPy arrays in float64."""
        P, q, A, b, G, h = (
            part[i].cpu().numpy().astype(np.float64)
            for part in (self.P, self.q, self.A, self.b, self.G, self.h)
        )
        return ConvexQP(P, q, A, b, G, h)


@dataclass(frozen=True, eq=False)
class Point:
    """Solutions z (B, n) with multipliers ν (B, neq) and λ (B, nineq), and what `adjoint` needs."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    status: tuple[str, ...]
    kept: Any = None


@dataclass(frozen=True, eq=False)
class Adjoint:
    """z̃ (B, n), ν̃ (B, neq) and λ̃ (B, nineq)."""

    z: Tensor
    nu: Tensor
    lam: Tensor


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: ImplicitLayer, *data: Tensor) -> Tensor:
        ctx.layer, qp = layer, BatchQP(*(t.detach() for t in data))
        ctx.point = layer.last = layer.solve(qp)
        ctx.qp = qp
        z: Tensor = ctx.point.z.clone()
        return z

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, nu, lam = ctx.point.z, ctx.point.nu, ctx.point.lam
        a: Adjoint = ctx.layer.adjoint(ctx.qp, ctx.point, upstream[0])
        _, P, q, A, b, G, h = ctx.needs_input_grad
        return (
            None,
            0.5 * (_outer(a.z, z) + _outer(z, a.z)) if P else None,
            a.z if q else None,
            _outer(a.nu, z) + _outer(nu, a.z) if A else None,
            -a.nu if b else None,
            _outer(a.lam, z) + _outer(lam, a.z) if G else None,
            -a.lam if h else None,
        )


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left[..., :, None] * right[..., None, :]


class ImplicitLayer(torch.nn.Module, ABC):
    """Base of the layers; `last` holds the point of the last forward pass, with its multipliers."""

    last: Point

    @abstractmethod
    def solve(self, qp: BatchQP) -> Point:
        """Solve all problems of the batch."""

    @abstractmethod
    def adjoint(self, qp: BatchQP, point: Point, v: Tensor) -> Adjoint:
        """Return the adjoint for the upstream gradient v (B, n)."""

    def forward(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        """Return z* of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

        Parameters
        ----------
        P, q, A, b, G, h
            Shapes (n, n), (n,), (neq, n), (neq,), (nineq, n), (nineq,), any of them with a leading
            batch dimension; A and G may have no rows.

        Returns
        -------
        Tensor
            Shape (n,), or (B, n) if any argument has a batch dimension.

        Raises
        ------
        InstanceError
            If the batch sizes differ.
        """
        data = (P, q, A, b, G, h)
        sizes = {len(t) for t, ndim in zip(data, _NDIM, strict=True) if t.ndim > ndim}
        if len(sizes) > 1:
            raise InstanceError(f"batch sizes differ: {', '.join(map(str, sorted(sizes)))}")
        count = sizes.pop() if sizes else 1
        batched = any(t.ndim > ndim for t, ndim in zip(data, _NDIM, strict=True))
        every = [
            t if t.ndim > ndim else t.expand(count, *t.shape)
            for t, ndim in zip(data, _NDIM, strict=True)
        ]
        apply: Any = _Function.apply  # autograd's own is untyped
        z: Tensor = apply(self, *every)
        return z if batched else z[0]


def solve_each(qp: BatchQP, solver: str, tolerances: Tolerances) -> Point:
    """Solve one problem after the other with a solver of `bpqp_bench.layers.qp_solvers`."""
    found: list[QPSolution] = [
        solve_qp(qp.instance(i), solver, tolerances) for i in range(len(qp.q))
    ]

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(s, name) for s in found])).to(qp.q)

    return Point(stack("z"), stack("nu"), stack("lam"), tuple(s.status for s in found))
