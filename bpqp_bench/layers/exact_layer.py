"""The exact KKT layer in torch; the mathematics is in `bpqp_bench.layers.exact`."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch

from bpqp_bench.layers.bpqp_core import Settings
from bpqp_bench.layers.exact import Mode, exact_adjoint, gradients, kkt_point, solve_forward
from bpqp_bench.problem.instance import Instance, Size

__all__ = ["ExactKKT"]

_NAMES = ("P", "q", "A", "b", "G", "h")


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: ExactKKT, *parameters: torch.Tensor) -> torch.Tensor:
        P, q, A, b, G, h = (
            np.asarray(p.detach().cpu().numpy(), dtype=np.float64) for p in parameters
        )
        # The layer does not name its problems: no hash is needed.
        problem = Instance(
            P, q, A, b, G, h, family="layer", size=Size(q.size, len(G)), sha256="unnamed"
        )
        found = solve_forward(problem, layer.settings)
        if found.status != "solved":
            raise RuntimeError(
                f"forward pass by {layer.settings.forward} ended with status {found.status}"
            )
        ctx.point = kkt_point(problem, found.z, found.nu, found.lam)
        ctx.layer = layer
        return torch.from_numpy(found.z).to(parameters[1])

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        v = np.asarray(upstream[0].detach().cpu().numpy(), dtype=np.float64)
        adjoint = exact_adjoint(ctx.point, v, ctx.layer.backward_mode)
        needed = ctx.needs_input_grad[1:]
        wanted = [name for name, need in zip(_NAMES, needed, strict=True) if need]
        found = gradients(ctx.point, adjoint, wanted)
        return None, *(
            torch.from_numpy(found[name]).to(upstream[0]) if name in found else None
            for name in _NAMES
        )


class ExactKKT(torch.nn.Module):
    """QP layer differentiated by its full KKT system.

    Parameters
    ----------
    backward
        "solve": one symmetric factorization; "inverse": the explicit inverse of the paper's
        baseline, many times slower and no more exact.
    settings
        Forward solver, stopping rule and polishing; what they say of a backward pass is not used.

    Raises
    ------
    ValueError
        If ``backward`` is neither.

    Notes
    -----
    Tensors of any float type and device are taken; the computation is in float64 on the CPU. A
    backward pass raises `MethodError` where the KKT matrix is singular; `BPQP` is the layer that
    has an answer there.
    """

    def __init__(
        self,
        backward: Mode = "solve",
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        if backward not in get_args(Mode):
            raise ValueError(f"backward {backward!r} is neither 'inverse' nor 'solve'")
        self.backward_mode: Mode = backward
        self.settings = settings or Settings()

    def forward(
        self,
        P: torch.Tensor,
        q: torch.Tensor,
        A: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        G: torch.Tensor | None = None,
        h: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return z* of shape (n,) of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

        Parameters
        ----------
        P, q, A, b, G, h
            Dense tensors (n, n) symmetric, (n,), (neq, n), (neq,), (nineq, n), (nineq,); A and b,
            or G and h, may be None.

        Raises
        ------
        InstanceError
            If shapes don't fit or entries are not finite.
        MethodError
            If the problem is infeasible or unbounded.
        RuntimeError
            If the solver does not reach its tolerance.
        """
        no_rows, nothing = q.new_zeros(0, q.shape[0]), q.new_zeros(0)
        A = no_rows if A is None else A
        b = nothing if b is None else b
        G = no_rows if G is None else G
        h = nothing if h is None else h
        return _Function.apply(self, P, q, A, b, G, h)  # type: ignore[no-any-return,no-untyped-call]
