"""The BPQP layer: a convex QP as a torch module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers.bpqp_core import (
    Adjoint,
    ForwardPass,
    Settings,
    backward_pass,
    forward_pass,
    matrix_factors,
    vector_gradient,
)
from bpqp_bench.layers.torch_data import (
    NAMES,
    Argument,
    Batch,
    check_convex,
    read_batch,
    sparse_gradient,
)
from bpqp_bench.problem.instance import Array

__all__ = ["BPQP", "BPQPWarning"]

Info = list[dict[str, object]]


class BPQPWarning(UserWarning):
    """A solver stopped before its tolerances were met; ``last_info`` has the residuals."""


class BPQP(torch.nn.Module):
    """Differentiable solution of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

    The backward pass is a quadratic program, too (Pan et al., NeurIPS 2024, Theorem 1), and both
    go to whichever solver is named.

    Parameters
    ----------
    forward, backward
        Solver of each pass: "osqp", "proxqp", "proxqp-sparse", "piqp", "clarabel", "daqp",
        "quadprog", "highs", "scs" or "scs-indirect"; for the backward pass also "direct", one
        factorization, and "minres", none at all (large sparse problems of irregular pattern).
    eps_abs, eps_rel, max_iter
        Stopping rule of the solvers; 0 leaves the solver's own default.
    polish
        "active-set" solves the forward problem exactly on its binding rows and corrects the rows
        until the KKT conditions hold to rounding error; "solver" is OSQP's own polishing; "none".
    active_tol
        Slack and multiplier, relative to the scale of the data, below which a row counts as weakly
        active; 0 ties it to the residuals that the solver achieved.
    gradient
        "optimal"; or "general", the derivative that keeps the KKT residual of the point at which
        the solver stopped (see `bpqp_bench.layers.general_gradient`), for loose tolerances and
        ``polish="none"``.
    check
        Whether to test that P is positive semidefinite, at the price of one Cholesky factorization.
        Shapes and finiteness are always checked.

    Attributes
    ----------
    last_info
        One dictionary per instance of the last call: status, iterations, residuals, number of
        binding and weakly active rows; after the backward pass also ``gradient``: "exact",
        "one-sided" (a row is weakly active: the solution has directional derivatives only, and the
        gradient is that of one side) or "least-squares" (binding rows are dependent, or the
        objective is flat along a direction that they leave free: the solution of least norm).

    Notes
    -----
    Only the symmetric part of P counts, since zᵀPz does not see the rest; ∇P is symmetric.
    Computations are in float64 whatever the tensors' type; results have the type of q.
    """

    def __init__(
        self,
        forward: str = "osqp",
        backward: str = "osqp",
        *,
        eps_abs: float = 1e-5,
        eps_rel: float = 1e-5,
        max_iter: int = 100_000,
        polish: str = "active-set",
        active_tol: float = 0.0,
        gradient: str = "optimal",
        check: bool = True,
    ) -> None:
        super().__init__()
        self.settings = Settings(
            forward=forward,
            backward=backward,
            eps_abs=eps_abs,
            eps_rel=eps_rel,
            max_iter=max_iter,
            polish=polish,
            active_tol=active_tol,
            gradient=gradient,
        )
        self.check = check
        self.last_info: Info = []

    def extra_repr(self) -> str:
        """Show the two solvers."""
        return f"forward={self.settings.forward!r}, backward={self.settings.backward!r}"

    def forward(
        self,
        P: Argument,
        q: torch.Tensor,
        A: Argument | None = None,
        b: torch.Tensor | None = None,
        G: Argument | None = None,
        h: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Solve.

        Parameters
        ----------
        P, q, A, b, G, h
            Shapes (n, n), (n,), (neq, n), (neq,), (nineq, n), (nineq,), each with or without a
            leading batch dimension; what has none is shared by the batch, and its gradient is the
            sum. A and b, or G and h, may be None. P, A and G may be torch sparse tensors (COO, CSR,
            CSC; never batched) or SciPy sparse matrices (constants); nothing is made dense then,
            and gradients are sparse on the same pattern.

        Returns
        -------
        torch.Tensor
            z*, shape (n,), or (batch, n) if any argument has a batch dimension.

        Raises
        ------
        InstanceError
            A ValueError that names the instance: misshapen, not finite, P not positive
            semidefinite, infeasible, unbounded.
        MethodError
            If the solver failed otherwise, or (in the backward pass) gave no answer.
        """
        batch = read_batch(P, q, A, b, G, h)
        if self.check:
            check_convex(batch)
        info: Info = []
        tensors = [
            value if isinstance(value, torch.Tensor) else None for value in (P, q, A, b, G, h)
        ]
        apply: Any = _Function.apply  # autograd's own is untyped
        z: torch.Tensor = apply(self.settings, batch, info, *tensors)
        self.last_info = info
        return z


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, settings: Settings, batch: Batch, info: Info, *tensors: torch.Tensor | None
    ) -> torch.Tensor:
        passes = [_solve(batch, i, settings) for i in range(batch.count)]
        info.extend(_facts(done) for done in passes)
        ctx.work = settings, batch, info, passes
        # Saved only so that autograd notices if a caller changes the data in between.
        ctx.save_for_backward(*tensors)
        q = tensors[1]
        assert q is not None
        z = np.stack([done.solution.z for done in passes])
        return torch.from_numpy(z if batch.batched else z[0]).to(dtype=q.dtype, device=q.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        settings, batch, info, passes = ctx.work
        tensors = ctx.saved_tensors
        v = upstream[0].detach().to(device="cpu", dtype=torch.float64).numpy()
        adjoints = []
        for i, done in enumerate(passes):
            try:
                adjoint = backward_pass(done, v[i] if batch.batched else v, settings)
            except MethodError as error:
                raise MethodError(f"instance {i}: {error}") from None
            info[i]["gradient"] = adjoint.gradient
            info[i]["backward_status"] = adjoint.status
            if adjoint.status != "solved":
                _warn(i, settings.backward, "backward", adjoint.status)
            adjoints.append(adjoint)
        needed = ctx.needs_input_grad[3:]
        found = [
            _gradient(name, tensor, batch, passes, adjoints) if need else None
            for name, tensor, need in zip(NAMES, tensors, needed, strict=True)
        ]
        return None, None, None, *found


def _solve(batch: Batch, i: int, settings: Settings) -> ForwardPass:
    done = forward_pass(batch.instance(i), settings)
    solution, solver = done.solution, str(done.info["forward"])
    if solution.status == "infeasible":
        raise InstanceError(f"instance {i} is infeasible ({solver}): no z satisfies Az = b, Gz ≤ h")
    if solution.status == "unbounded":
        raise InstanceError(
            f"instance {i} is unbounded below ({solver}): add constraints, or curvature to P"
        )
    if solution.status == "not convex":
        raise InstanceError(f"P of instance {i} is not positive semidefinite ({solver})")
    if not np.isfinite(solution.z).all():
        raise MethodError(f"instance {i}: {solver} {solution.status}; try another solver")
    if solution.status != "solved":
        _warn(i, solver, "forward", solution.status)
    return done


def _warn(i: int, solver: str, which: str, status: str) -> None:
    warnings.warn(
        f"instance {i}: {solver} ended its {which} pass with status {status!r}; "
        "raise max_iter or loosen eps_abs and eps_rel",
        BPQPWarning,
        stacklevel=2,
    )


def _facts(done: ForwardPass) -> dict[str, object]:
    return dict(done.info) | {
        "status": done.solution.status,
        "iterations": done.solution.iterations,
        "primal_residual": done.solution.primal,
        "dual_residual": done.solution.dual,
        "active_rows": done.n_active,
        "weakly_active_rows": int(done.active.weak.sum()),
    }


def _gradient(
    name: str,
    like: torch.Tensor,
    batch: Batch,
    passes: Sequence[ForwardPass],
    adjoints: Sequence[Adjoint],
) -> torch.Tensor:
    if name in ("q", "b", "h"):
        parts = [vector_gradient(adjoint, name) for adjoint in adjoints]
        return _gather(parts, name in batch.own, like)
    factors = [matrix_factors(*pair, name) for pair in zip(passes, adjoints, strict=True)]
    if like.layout != torch.strided:
        return sparse_gradient(like, factors)
    if name in batch.own:
        parts = [np.outer(a, b) + np.outer(c, d) for a, b, c, d in factors]
        return _gather(parts, True, like)
    # Shared by the batch: Σ aᵢbᵢᵀ + cᵢdᵢᵀ as one matrix product.
    left = np.stack([f for a, _, c, _ in factors for f in (a, c)], axis=1)
    right = np.stack([f for _, b, _, d in factors for f in (b, d)], axis=0)
    return torch.from_numpy(left @ right).to(dtype=like.dtype, device=like.device)


def _gather(parts: Sequence[Array], own: bool, like: torch.Tensor) -> torch.Tensor:
    stacked = np.stack(parts) if own else np.sum(parts, axis=0)
    return torch.from_numpy(stacked).to(dtype=like.dtype, device=like.device)
