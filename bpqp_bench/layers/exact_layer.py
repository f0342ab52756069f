"""The exact KKT layer in torch; the mathematics is in `bpqp_bench.layers.exact`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import torch

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.bpqp import BPQPWarning
from bpqp_bench.layers.bpqp_core import Settings
from bpqp_bench.layers.exact import Mode, exact_adjoint, gradients, kkt_point, solve_forward
from bpqp_bench.layers.problem import Phase, no_clock
from bpqp_bench.layers.torch_data import NAMES, Argument, Batch, read_batch
from bpqp_bench.problem.instance import SecondOrderCone

__all__ = ["ExactKKT"]


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layer: ExactKKT, batch: Batch, clock: Phase, *tensors: torch.Tensor | None
    ) -> torch.Tensor:
        qp = batch.instance(0)
        found = solve_forward(qp, layer.settings, clock)
        if found.status != "solved":
            warnings.warn(
                f"{layer.settings.forward} ended with status {found.status!r}",
                BPQPWarning,
                stacklevel=2,
            )
        layer.multipliers = tuple(torch.from_numpy(y) for y in (found.nu, found.lam, found.mu))
        layer.last_info = [
            {
                "status": found.status,
                "iterations": found.iterations,
                "primal_residual": found.primal,
                "dual_residual": found.dual,
            }
        ]
        ctx.work = qp, found, layer.backward_mode, clock
        # Saved only so that autograd notices if a caller changes the data in between.
        ctx.save_for_backward(*tensors)
        q = tensors[1]
        assert q is not None
        return torch.tensor(found.z, dtype=q.dtype, device=q.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        qp, at, mode, clock = ctx.work
        tensors = dict(zip(NAMES, ctx.saved_tensors, strict=True))
        v = upstream[0].detach().to(device="cpu", dtype=torch.float64).numpy()
        with clock("prepare"):
            point = kkt_point(qp, at.z, at.nu, at.lam, at.mu)
        adjoint = exact_adjoint(point, v, mode, clock)
        with clock("extract"):
            needed = zip(NAMES, ctx.needs_input_grad[3:], strict=True)
            found = gradients(point, adjoint, [name for name, need in needed if need])
            return (
                None,
                None,
                None,
                *(
                    torch.from_numpy(found[name]).to(tensors[name]) if name in found else None
                    for name in NAMES
                ),
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

    Attributes
    ----------
    last_info
        Status, iterations and residuals of the last call, in a list of one as `BPQP` has it.
    multipliers
        ν, λ and μ (of cones) of the last call.

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
        self.last_info: list[dict[str, object]] = []
        self.multipliers: tuple[torch.Tensor, ...] | None = None

    def forward(
        self,
        P: Argument,
        q: torch.Tensor,
        A: Argument | None = None,
        b: torch.Tensor | None = None,
        G: Argument | None = None,
        h: torch.Tensor | None = None,
        *,
        cones: Sequence[SecondOrderCone] = (),
        clock: Phase = no_clock,
    ) -> torch.Tensor:
        """Return z* of shape (n,) of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

        Parameters
        ----------
        P, q, A, b, G, h
            Tensors (n, n) symmetric, (n,), (neq, n), (neq,), (nineq, n), (nineq,); A and b, or G
            and h, may be None. Sparse matrices are made dense and get no gradient.
        cones
            Further constraints ‖Fz + g‖ ≤ cᵀz + d; constants.
        clock
            Called with the name of a phase; returns the context manager that it runs in.

        Raises
        ------
        InstanceError
            If shapes don't fit, entries are not finite, there is a batch, or a sparse matrix
            requires a gradient.
        MethodError
            If the problem is infeasible or unbounded.
        """
        given = (P, q, A, b, G, h)
        with clock("prepare"):
            batch = read_batch(*given, cones)
        if batch.batched:
            raise InstanceError("ExactKKT takes one problem a call, without a batch dimension")
        tensors = [value if isinstance(value, torch.Tensor) else None for value in given]
        for name, tensor in zip(NAMES, tensors, strict=True):
            if tensor is not None and tensor.requires_grad and tensor.layout != torch.strided:
                raise InstanceError(f"ExactKKT has no gradient of a sparse {name}; BPQP has")
        apply: Any = _Function.apply  # autograd's own is untyped
        z: torch.Tensor = apply(self, batch, clock, *tensors)
        return z
