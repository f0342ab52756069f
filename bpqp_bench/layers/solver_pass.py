"""Passes instance by instance: any solver forward, any solver backward, dense or sparse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers.active_set import Mask
from bpqp_bench.layers.bpqp_core import (
    Adjoint,
    ForwardPass,
    Settings,
    backward_pass,
    forward_pass,
    matrix_factors,
    vector_gradient,
)
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import ConvexQP, Phase
from bpqp_bench.layers.torch_data import NAMES, Batch, sparse_gradient
from bpqp_bench.problem.instance import Array

__all__ = ["BPQPWarning", "Info", "Instances", "SolverPass", "flag"]

Info: TypeAlias = list[dict[str, object]]


class BPQPWarning(UserWarning):
    """A solver stopped before its tolerances were met; ``last_info`` has the residuals."""


def flag(residual: float, weak: bool) -> str:
    """Say what a gradient is: from the adjoint's residual and from weakly active rows."""
    if not residual <= ACCURATE:
        return "inaccurate"
    return "one-sided" if weak else "exact"


class Instances:
    """Some instances of a batch, solved one by one.

    Raises
    ------
    InstanceError, MethodError
        If an instance has no solution, or the solver found none.
    """

    def __init__(
        self, batch: Batch | None, indices: Sequence[int], settings: Settings, clock: Phase
    ) -> None:
        self.indices, self.settings = list(indices), settings
        self._done = {
            i: _solve(batch.instance(i), i, settings, clock) for i in self.indices if batch
        }
        self.info = {i: _facts(done) for i, done in self._done.items()}
        self._adjoints: dict[int, Adjoint] = {}

    def solution(self, i: int) -> tuple[Array, Array, Array, Mask]:
        """Return z*, ν*, λ* and the mask of binding rows."""
        done = self._done[i]
        rows = done.active.rows
        # What a solver leaves in λ outside the binding rows is noise.
        return done.solution.z, done.solution.nu, np.where(rows, done.solution.lam, 0.0), rows

    def of_cones(self, i: int) -> Array:
        """Return μ*, the multipliers of the cones."""
        return self._done[i].solution.mu

    def adjoint(self, i: int, upstream: Array, clock: Phase) -> tuple[Array, Array, Array]:
        """Solve the backward QP of instance i: z̃, ν̃, λ̃."""
        try:
            adjoint = backward_pass(self._done[i], upstream, self.settings, clock)
        except MethodError as error:
            raise MethodError(f"instance {i}: {error}") from None
        self.info[i]["gradient"] = adjoint.gradient
        self.info[i]["backward_status"] = adjoint.status
        if adjoint.status != "solved":
            _warn(i, self.settings.backward, "backward", adjoint.status)
        self._adjoints[i] = adjoint
        return adjoint.z, adjoint.nu, adjoint.lam

    def parts(self) -> tuple[list[ForwardPass], list[Adjoint]]:
        """Return all forward passes and adjoints, in the order of the indices."""
        return [self._done[i] for i in self.indices], [self._adjoints[i] for i in self.indices]


class SolverPass:
    """A whole call, solved instance by instance."""

    def __init__(
        self, batch: Batch, likes: Sequence[Tensor | None], settings: Settings, clock: Phase
    ) -> None:
        self._batch, self._likes = batch, likes
        self._instances = Instances(batch, range(batch.count), settings, clock)
        self.facts = partial(_listed, self._instances.info)
        solutions = [
            (*self._instances.solution(i), self._instances.of_cones(i)) for i in range(batch.count)
        ]
        stacked = [np.stack(parts) for parts in zip(*solutions, strict=True)]
        z, nu, lam, rows, mu = stacked if batch.batched else [part[0] for part in stacked]
        self.z, self.state = torch.from_numpy(z), torch.from_numpy(rows)
        self.duals = (nu, lam, mu) if batch.cones else (nu, lam)

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        batch = self._batch
        v = upstream.to(device="cpu", dtype=torch.float64).numpy().reshape(batch.count, -1)
        for i in range(batch.count):
            self._instances.adjoint(i, v[i], clock)
        parts = self._instances.parts()
        with clock("extract"):
            return [
                _gradient(name, like, apart or name in batch.own, *parts)
                if need and like is not None
                else None
                for name, like, need in zip(NAMES, self._likes, needed, strict=True)
            ]


def _listed(info: dict[int, dict[str, object]]) -> Info:
    return list(info.values())


def _solve(qp: ConvexQP, i: int, settings: Settings, clock: Phase) -> ForwardPass:
    done = forward_pass(qp, settings, clock)
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
    like: Tensor,
    own: bool,
    passes: Sequence[ForwardPass],
    adjoints: Sequence[Adjoint],
) -> Tensor:
    if name in ("q", "b", "h"):
        parts = [vector_gradient(adjoint, name) for adjoint in adjoints]
        return torch.from_numpy(np.stack(parts) if own else np.sum(parts, axis=0))
    factors = [matrix_factors(*pair, name) for pair in zip(passes, adjoints, strict=True)]
    if like.layout != torch.strided:
        return sparse_gradient(like, factors)
    if own:
        return torch.from_numpy(
            np.stack([np.outer(a, b) + np.outer(c, d) for a, b, c, d in factors])
        )
    # Shared by the batch: Σ aᵢbᵢᵀ + cᵢdᵢᵀ as one matrix product.
    left = np.stack([f for a, _, c, _ in factors for f in (a, c)], axis=1)
    right = np.stack([f for _, b, _, d in factors for f in (b, d)], axis=0)
    return torch.from_numpy(left @ right)
