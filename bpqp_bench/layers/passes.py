"""The two passes of a call of `BPQP`: what the forward pass leaves, and gradients from it.

`SinglePass` is one dense problem on the CPU and `BatchPass` a dense batch on any device, both by
the active-set method; `SolverPass` solves instance by instance, by any solver, dense or sparse.
All have the same members, see `Passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from bpqp_bench.layers.dense_data import DenseData
from bpqp_bench.layers.primal_dual import batched, lapack
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import Phase
from bpqp_bench.layers.solver_pass import Info, Instances, flag

__all__ = ["BatchPass", "Passes", "SinglePass"]


class Passes(Protocol):
    """A solved call.

    ``z`` has the shape that the layer returns, in float64; ``state`` the mask of binding rows,
    (nineq,) or (batch, nineq); ``duals`` ν, λ and, where there are cones, μ, as arrays or tensors;
    ``facts()`` gives one dictionary per instance, as in `BPQP.last_info`, and keeps no
    factorization alive.
    """

    z: Tensor
    state: Tensor
    duals: tuple[Any, ...]

    @property
    def facts(self) -> Callable[[], Info]:
        """Facts about every instance."""

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``.

        ``apart`` asks for one gradient per instance also where an argument is shared.
        """


class SinglePass:
    """One dense problem on the CPU, solved by the LAPACK kernel."""

    def __init__(self, data: DenseData, point: lapack.Point) -> None:
        self._own, self._point = data.own, point
        self.z = torch.from_numpy(point.z)
        self.state = torch.from_numpy(point.active)
        self.duals: tuple[Any, ...] = (point.nu, point.lam)
        if data.batched:
            self.z, self.state = self.z.unsqueeze(0), self.state.unsqueeze(0)
            self.duals = (point.nu[None], point.lam[None])
        self._facts = solved(
            point.steps, point.primal, point.dual, int(point.active.sum()), int(point.weak.sum())
        )
        self.facts = partial(_listed, self._facts)

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        point = self._point
        v = upstream.double().reshape(-1).numpy()
        with clock("solve"):
            *arrays, residual = lapack.adjoint(point, v)
        with clock("extract"):
            self._facts |= differentiated(residual, bool(self._facts["weakly_active_rows"]))
            x, nu, lam = (torch.from_numpy(part) for part in arrays)
            found: list[Tensor | None] = [None] * 6
            if needed[1]:
                found[1] = x
            if needed[3]:
                found[3] = nu.neg()
            if needed[5]:
                found[5] = lam.neg()
            if needed[0]:
                half = torch.outer(0.5 * x, torch.from_numpy(point.z))
                found[0] = half + half.mT
            if needed[2]:
                found[2] = torch.outer(nu, torch.from_numpy(point.z)).addr_(
                    torch.from_numpy(point.nu), x
                )
            if needed[4]:
                found[4] = torch.outer(lam, torch.from_numpy(point.z)).addr_(
                    torch.from_numpy(point.lam), x
                )
            return [
                part.unsqueeze(0) if part is not None and (own or apart) else part
                for part, own in zip(found, self._own, strict=True)
            ]


def _listed(facts: dict[str, object]) -> Info:
    return [facts]


class BatchPass:
    """A dense batch, solved by the kernel in torch; ``others`` are instances that it left."""

    def __init__(self, data: DenseData, point: batched.BatchPoint, others: Instances) -> None:
        self._own, self._point, self._others = data.own, point, others
        z, nu, lam, active = point.z, point.nu, point.lam, point.active
        for i in others.indices:
            for into, value in zip((z, nu, lam, active), others.solution(i), strict=True):
                into[i] = torch.from_numpy(value).to(into)
        # In sums over the batch, an instance without a solution counts for nothing.
        self._at = (z.nan_to_num() if others.failed else z), nu, lam
        self.z, self.state = (z, active) if data.batched else (z[0], active[0])
        self.duals: tuple[Any, ...] = (nu, lam) if data.batched else (nu[0], lam[0])
        self.facts = _BatchFacts(point, others.info)

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        z = self._at[0]
        v = upstream.to(z).reshape(z.shape)
        with clock("solve"):
            x, nu, lam, self.facts.residuals = batched.adjoint(self._point, v)
        for i in self._others.indices:
            found = self._others.adjoint(i, v[i].cpu().numpy(), clock)
            for into, value in zip((x, nu, lam), found, strict=True):
                into[i] = torch.from_numpy(value).to(into)
        with clock("extract"):
            own = (True,) * 6 if apart else self._own
            return gradients(self._at, (x, nu, lam), own, needed)


class _BatchFacts:
    """Facts about a batch, made into dictionaries when somebody asks."""

    def __init__(self, point: batched.BatchPoint, others: dict[int, dict[str, object]]) -> None:
        self._numbers = point.primal, point.dual, point.active.sum(-1), point.weak.sum(-1)
        self._steps, self._others = point.steps, others
        self.residuals: Tensor | None = None

    def __call__(self) -> Info:
        columns = [part.tolist() for part in self._numbers]
        found = [solved(self._steps, *row) for row in zip(*columns, strict=True)]
        if self.residuals is not None:
            for facts, residual in zip(found, self.residuals.tolist(), strict=True):
                facts.update(differentiated(residual, bool(facts["weakly_active_rows"])))
        for i, others in self._others.items():
            found[i] = others
        return found


def solved(
    steps: int, primal: float, dual: float, active: int, weakly_active: int
) -> dict[str, object]:
    """Facts about an instance that the active-set method solved."""
    return {
        "forward": "active-set",
        "status": "solved",
        "iterations": steps,
        "primal_residual": primal,
        "dual_residual": dual,
        "active_rows": active,
        "weakly_active_rows": weakly_active,
        "polished": True,
    }


def differentiated(residual: float, weak: bool) -> dict[str, object]:
    """Facts about a gradient, from the residual of the adjoint equations."""
    return {
        "gradient": flag(residual, weak),
        "backward_status": "solved" if residual <= ACCURATE else "inaccurate",
        "adjoint_residual": residual,
    }


def gradients(
    at: tuple[Tensor, Tensor, Tensor],
    adjoint: tuple[Tensor, Tensor, Tensor],
    own: Sequence[bool],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of a batch from z*, ν*, λ* and z̃, ν̃, λ̃; summed for arguments that are shared."""
    z, nu, lam = at
    x, nu_adjoint, lam_adjoint = adjoint
    half = 0.5 * x
    pairs: tuple[tuple[Tensor, ...], ...] = (
        (half, z, z, half),
        (x,),
        (nu_adjoint, z, nu, x),
        (-nu_adjoint,),
        (lam_adjoint, z, lam, x),
        (-lam_adjoint,),
    )
    found: list[Tensor | None] = []
    for parts, mine, need in zip(pairs, own, needed, strict=True):
        if not need:
            found.append(None)
        elif len(parts) == 1:
            found.append(parts[0] if mine else parts[0].sum(0))
        else:
            a, b, c, d = parts
            if mine:
                first = a.unsqueeze(-1) * b.unsqueeze(-2)
                found.append(first.addcmul_(c.unsqueeze(-1), d.unsqueeze(-2)))
            else:
                found.append((a.mT @ b).addmm_(c.mT, d))
    return found
