"""Passes instance by instance: any solver forward, any solver backward, dense or sparse."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers.active_set import Mask
from bpqp_bench.layers.backward import Adjoint, backward_pass, matrix_factors, vector_gradient
from bpqp_bench.layers.forward import ForwardPass, forward_pass
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import ConvexQP, Phase
from bpqp_bench.layers.settings import Settings
from bpqp_bench.layers.torch_data import NAMES, Batch, sparse_gradient
from bpqp_bench.problem.instance import Array

Info: TypeAlias = list[dict[str, object]]
Failure: TypeAlias = InstanceError | MethodError


class BPQPWarning(UserWarning):
    """A solver stopped before its tolerances were met; ``last_info`` has the residuals."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a layer shows of its last call; keeps no factorization alive.

    ``infos`` are dictionaries, one per instance, to which the backward pass adds; ``state`` is the
    mask of binding rows, (nineq,) or (batch, nineq); ``duals`` are ν, λ and, where there are cones,
    μ, as arrays or tensors.
    """

    infos: Info
    state: Tensor
    duals: tuple[Any, ...]

    def facts(self) -> Info:
        """One dictionary per instance, as in `BPQP.last_info`."""
        return self.infos


def flag(residual: float, weak: bool) -> str:
    """Say what a gradient is: from the adjoint's residual and from weakly active rows."""
    if not residual <= ACCURATE:
        return "inaccurate"
    return "one-sided" if weak else "exact"


class Instances:
    """Some instances of a batch, solved one by one.

    Parameters
    ----------
    batch, indices
        The data, and the instances to solve.
    failures
        Instances with bad data, which are not tried.
    settings, clock
        How.

    Attributes
    ----------
    info
        Facts about every one of them.

    Raises
    ------
    InstanceError, MethodError
        If instances have no solution, or the solver found none, unless ``settings.on_failure`` is
        "nan": then z* is NaN and the gradients are zero.
    """

    def __init__(
        self,
        batch: Batch | None,
        indices: Sequence[int],
        failures: Mapping[int, Failure],
        settings: Settings,
        clock: Phase,
    ) -> None:
        self.indices, self._settings, self._batch = list(indices), settings, batch
        self._done: dict[int, ForwardPass] = {}
        failed = dict(failures)
        for i in self.indices:
            if i in failed or batch is None:
                continue
            try:
                self._done[i] = solve_instance(batch.instance(i), i, settings, clock)
            except (InstanceError, MethodError) as why:
                failed[i] = why
        if failed and settings.on_failure == "raise":
            raise _together([failed[i] for i in sorted(failed)])
        self.failed = sorted(failed)
        self.info: dict[int, dict[str, object]] = {
            i: {"status": "failed", "error": str(failed[i])}
            if i in failed
            else self._done[i].facts()
            for i in self.indices
        }
        for i, error in failed.items():
            self.info[i]["error"] = str(error)
        self._adjoints: dict[int, Adjoint] = {}

    def solution(self, i: int) -> tuple[Array, Array, Array, Mask]:
        """Return z*, ν*, λ* and the mask of binding rows; z* is NaN where there is none."""
        if i in self.failed:
            n, neq, nineq = self._sizes()
            return np.full(n, np.nan), np.zeros(neq), np.zeros(nineq), np.zeros(nineq, dtype=bool)
        done = self._done[i]
        rows = done.active.rows
        # What a solver leaves in λ outside the binding rows is noise, unless its point is all there
        # is: then it belongs to it.
        own = done.info.get("polished") is False
        lam = np.where(rows | own, done.solution.lam, 0.0)
        return done.solution.z, done.solution.nu, lam, rows

    def of_cones(self, i: int) -> Array:
        """Return μ*, the multipliers of the cones; zero where there is no solution."""
        if i in self.failed:
            return np.zeros(len(self._batch.cones) if self._batch is not None else 0)
        return self._done[i].solution.mu

    def adjoint(self, i: int, upstream: Array, clock: Phase) -> tuple[Array, Array, Array]:
        """Solve the backward QP of instance i: z̃, ν̃, λ̃; zero where there is no solution."""
        if i in self.failed:
            n, neq, nineq = self._sizes()
            self.info[i]["gradient"] = "zero"
            return np.zeros(n), np.zeros(neq), np.zeros(nineq)
        try:
            adjoint = backward_pass(self._done[i], upstream, self._settings, clock)
        except MethodError as error:
            raise MethodError(f"instance {i}: {error}") from None
        self.info[i].update(
            gradient=adjoint.gradient,
            backward=adjoint.solver,
            backward_status=adjoint.status,
            adjoint_residual=adjoint.residual,
        )
        if adjoint.status != "solved":
            _warn(i, adjoint.solver, "backward", adjoint.status)
        self._adjoints[i] = adjoint
        return adjoint.z, adjoint.nu, adjoint.lam

    def parts(self) -> tuple[list[ForwardPass], list[Adjoint]]:
        """Return the forward passes and adjoints of those that were solved, in order."""
        solved = [i for i in self.indices if i not in self.failed]
        return [self._done[i] for i in solved], [self._adjoints[i] for i in solved]

    def _sizes(self) -> tuple[int, int, int]:
        assert self._batch is not None
        q, b, h = (self._batch.values[name].shape[-1] for name in ("q", "b", "h"))
        return q, b, h


def _together(errors: Sequence[Failure]) -> Failure:
    if len(errors) == 1:
        return errors[0]
    first = "; ".join(str(error) for error in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    kind = InstanceError if all(isinstance(e, InstanceError) for e in errors) else MethodError
    return kind(f"{len(errors)} instances failed: {first}{more} (on_failure='nan' keeps the rest)")


class SolverPass:
    """A whole call, solved instance by instance."""

    native = False

    def __init__(
        self,
        batch: Batch,
        likes: Sequence[Tensor | None],
        failures: Mapping[int, Failure],
        settings: Settings,
        clock: Phase,
    ) -> None:
        self._batch, self._likes = batch, likes
        self._instances = Instances(batch, range(batch.count), failures, settings, clock)
        solutions = [
            (*self._instances.solution(i), self._instances.of_cones(i)) for i in range(batch.count)
        ]
        stacked = [np.stack(parts) for parts in zip(*solutions, strict=True)]
        z, nu, lam, rows, mu = stacked if batch.batched else [part[0] for part in stacked]
        self.z = torch.from_numpy(z)
        self.outcome = Outcome(
            list(self._instances.info.values()),
            torch.from_numpy(rows),
            (nu, lam, mu) if batch.cones else (nu, lam),
        )

    def solution(self) -> Tensor:
        """``z`` in memory of its own."""
        return self.z.clone()

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        batch = self._batch
        v = upstream.to(device="cpu", dtype=torch.float64).numpy().reshape(batch.count, -1)
        for i in range(batch.count):
            self._instances.adjoint(i, v[i], clock)
        parts, failed = self._instances.parts(), self._instances.failed
        with clock("extract"):
            found: list[Tensor | None] = []
            for name, like, need in zip(NAMES, self._likes, needed, strict=True):
                if not need or like is None:
                    found.append(None)
                    continue
                own = apart or name in batch.own
                gradient = _gradient(name, like, own, batch.values[name].shape, *parts)
                if own and failed:
                    kept = np.setdiff1d(np.arange(batch.count), failed)
                    whole = gradient.new_zeros(batch.count, *gradient.shape[1:])
                    whole[torch.from_numpy(kept)] = gradient
                    gradient = whole
                found.append(gradient)
            return found


def solve_instance(qp: ConvexQP, i: int, settings: Settings, clock: Phase) -> ForwardPass:
    """Solve instance i, or raise an error that names it."""
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


def _gradient(
    name: str,
    like: Tensor,
    own: bool,
    shape: tuple[int, ...],
    passes: Sequence[ForwardPass],
    adjoints: Sequence[Adjoint],
) -> Tensor:
    shape = shape[-2:] if name in ("P", "A", "G") else shape[-1:]
    if not passes and like.layout == torch.strided:
        return torch.zeros((0, *shape) if own else shape, dtype=torch.float64)
    if name in ("q", "b", "h"):
        parts = [vector_gradient(adjoint, name) for adjoint in adjoints]
        return torch.from_numpy(np.stack(parts) if own else np.sum(parts, axis=0))
    factors = [matrix_factors(*pair, name) for pair in zip(passes, adjoints, strict=True)]
    if like.layout != torch.strided:
        return sparse_gradient(like, factors)
    if own:
        outer = [np.outer(a, b) + np.outer(c, d) for a, b, c, d in factors]
        return torch.from_numpy(np.stack(outer))
    # Shared by the batch: Σ aᵢbᵢᵀ + cᵢdᵢᵀ as one matrix product.
    left = np.stack([f for a, _, c, _ in factors for f in (a, c)], axis=1)
    right = np.stack([f for _, b, _, d in factors for f in (b, d)], axis=0)
    return torch.from_numpy(left @ right)
