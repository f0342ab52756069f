"""Alt-Diff as a torch layer; the algorithm is in `bpqp_bench.layers.altdiff_core`."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from bpqp_bench.layers.altdiff_core import Settings, factorize, iterate, jacobian, vjp
from bpqp_bench.layers.problem import Phase, no_clock

__all__ = ["AltDiff", "Settings"]


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: AltDiff, clock: Phase, *parameters: torch.Tensor) -> torch.Tensor:
        P, q, A, b, G, h = (part.detach().numpy() for part in parameters)
        with clock("setup"):
            split = factorize(P, A, G, layer.settings)
        matrices = any(ctx.needs_input_grad[2 + i] for i in (0, 2, 4))
        with clock("solve"):
            run = iterate(split, q, b, h, layer.settings, record=matrices)
        layer.multipliers = torch.from_numpy(run.nu), torch.from_numpy(run.lam)
        layer.last_info = [
            {
                "status": run.status,
                "iterations": run.iterations,
                "rho": split.rho,
                "relative_primal_residual": run.primal_residual,
                "relative_dual_residual": run.dual_residual,
            }
        ]
        if run.status != "solved":
            warnings.warn(f"Alt-Diff ended with status {run.status!r}", stacklevel=2)
        ctx.work = split, run, layer.derivative, clock
        return torch.from_numpy(run.z)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        split, run, derivative, clock = ctx.work
        needed = [n for n, need in zip("PqAbGh", ctx.needs_input_grad[2:], strict=True) if need]
        v = upstream[0].detach().numpy()
        with clock("solve"):
            if derivative == "jacobian":
                by_name = jacobian(split, run.masks, needed)
                found = {name: J.T @ v for name, J in by_name.items()}
            else:
                found = vjp(split, run, v, needed)
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

    Attributes
    ----------
    last_info
        Status, iterations, ρ and relative residuals of the last call, in a list of one.
    multipliers
        ν and λ of the last call.

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
        self.last_info: list[dict[str, object]] = []
        self.multipliers: tuple[torch.Tensor, ...] | None = None

    def forward(
        self,
        P: torch.Tensor,
        q: torch.Tensor,
        A: torch.Tensor,
        b: torch.Tensor,
        G: torch.Tensor,
        h: torch.Tensor,
        *,
        clock: Phase = no_clock,
    ) -> torch.Tensor:
        """Return z of shape (n,); see ``last_info`` for whether the stopping rule was met.

        Parameters
        ----------
        P, q, A, b, G, h
            Dense float64 CPU tensors: (n, n) symmetric, (n,), (neq, n), (neq,), (nineq, n),
            (nineq,).
        clock
            Called with the name of a phase; returns the context manager that it runs in.

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
        return _Function.apply(self, clock, *parameters)  # type: ignore[no-any-return,no-untyped-call]
