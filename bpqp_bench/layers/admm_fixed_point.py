"""ADMM with its adjoint found by iteration: no system beyond the forward pass's is factorized.

The baseline of implicit differentiation through an iterative solver: the forward pass is ADMM's
s⁺ = F(s) (`bpqp_bench.layers.scqpth` has the map and its derivative), and the adjoint solves
a = ∂F/∂sᵀ a + r by a ← ∂F/∂sᵀ a + r, each step a product with C and Cᵀ and a solve with the factor
that the forward pass already has. It converges as fast as the forward pass does near its end,
because both have the same Jacobian (Blondel et al., NeurIPS 2022, section 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.implicit import Adjoint, BatchQP, Point
from bpqp_bench.layers.scqpth import SCQPTH, Fixed

_CHECK = 25


class ADMMFixedPoint(SCQPTH):
    """ADMM forward, the adjoint of its map iterated backward.

    Parameters
    ----------
    eps
        Tolerance of the forward pass.
    max_iter
        Limit of both iterations.
    eps_backward
        The backward pass ends when no entry of a changes by more than this, relative to the
        largest.

    Raises
    ------
    SpecError
        If a tolerance is not positive.
    """

    def __init__(
        self, eps: float = 1e-6, max_iter: int = 10_000, eps_backward: float = 1e-9
    ) -> None:
        super().__init__(eps, max_iter)
        if eps_backward <= 0:
            raise SpecError("eps_backward must be positive")
        self.eps_backward = eps_backward

    def adjoint(self, qp: BatchQP, point: Point, v: Tensor) -> Adjoint:
        """Iterate the adjoint map; `iterations` tells how often."""
        fixed: Fixed = point.kept
        sign = torch.where(fixed.free, fixed.rho, -fixed.rho)
        bound = ~fixed.free
        right = sign * fixed.rows(fixed.inverse(fixed.D * v))
        a = torch.zeros_like(right)
        self.iterations = 0
        while self.iterations < self.max_iter:
            new = sign * fixed.rows(fixed.inverse(fixed.columns(a))) + bound * a + right
            change, a = (new - a).abs().amax(1), new
            self.iterations += 1
            if self.iterations % _CHECK == 0 and bool(
                (change <= self.eps_backward * a.abs().amax(1)).all()
            ):
                break
        return fixed.unscaled(v, a, qp.b.shape[1])
