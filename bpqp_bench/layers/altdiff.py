"""Alt-Diff as a torch layer; the algorithm is in `bpqp_bench.layers.altdiff_core`."""

from __future__ import annotations

from typing import Any

import torch

from bpqp_bench.layers.altdiff_core import Settings, factorize, iterate, jacobian, vjp

__all__ = ["AltDiff", "Settings"]


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, settings: Settings, derivative: str, *parameters: torch.Tensor
    ) -> torch.Tensor:
        P, q, A, b, G, h = (part.detach().numpy() for part in parameters)
        split = factorize(P, A, G, settings)
        matrices = any(ctx.needs_input_grad[2 + i] for i in (0, 2, 4))
        trajectory = iterate(split, q, b, h, settings, record=matrices)
        ctx.work = split, trajectory, derivative
        return torch.from_numpy(trajectory.z)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        split, trajectory, derivative = ctx.work
        needed = [n for n, need in zip("PqAbGh", ctx.needs_input_grad[2:], strict=True) if need]
        v = upstream[0].detach().numpy()
        if derivative == "jacobian":
            by_name = jacobian(split, trajectory.masks, needed)
            found = {name: J.T @ v for name, J in by_name.items()}
        else:
            found = vjp(split, trajectory, v, needed)
        return None, None, *(torch.from_numpy(found[n]) if n in found else None for n in "PqAbGh")


class AltDiff(torch.nn.Module):
    """Differentiable QP layer by Alt-Diff.

    Parameters
    ----------
    settings
        Penalty, truncation threshold, stopping rule.
    derivative
        "vjp" (all six parameters) or "jacobian" (as published; q, b and h): the same gradients.
        The Jacobian recursion runs in the backward pass; see docs/altdiff.md.

    Raises
    ------
    ValueError
        If ``derivative`` is neither.
    """

    def __init__(self, settings: Settings | None = None, derivative: str = "vjp") -> None:
        super().__init__()
        if derivative not in {"jacobian", "vjp"}:
            raise ValueError(f"derivative {derivative!r} is neither 'jacobian' nor 'vjp'")
        self.settings = settings or Settings()
        self.derivative = derivative

    def forward(
        self,
        P: torch.Tensor,
        q: torch.Tensor,
        A: torch.Tensor,
        b: torch.Tensor,
        G: torch.Tensor,
        h: torch.Tensor,
    ) -> torch.Tensor:
        """Return z of shape (n,).

        Parameters
        ----------
        P, q, A, b, G, h
            Dense float64 CPU tensors: (n, n) symmetric, (n,), (neq, n), (neq,), (nineq, n),
            (nineq,).

        Raises
        ------
        ValueError
            If a tensor is not dense float64 on the CPU, K is not positive definite, or the Jacobian
            form is asked for the gradient of a matrix.
        """
        parameters = (P, q, A, b, G, h)
        for name, part in zip("PqAbGh", parameters, strict=True):
            if part.dtype != torch.float64 or part.device.type != "cpu" or part.is_sparse:
                raise ValueError(f"{name} must be a dense float64 tensor on the CPU")
        if self.derivative == "jacobian" and any(part.requires_grad for part in (P, A, G)):
            raise ValueError(
                "the Jacobian with respect to P, A or G has n·n² entries; use derivative='vjp'"
            )
        return _Function.apply(self.settings, self.derivative, *parameters)  # type: ignore[no-any-return,no-untyped-call]
