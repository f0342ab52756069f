"""The two passes of a call of `BPQP`: what the forward pass leaves, and gradients from it.

`DensePass` is one dense problem or a batch, by the active-set method; `SolverPass` solves instance
by instance, by any solver, dense or sparse. Both have the same members, see `Passes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bpqp_bench.layers.dense_data import DenseData
from bpqp_bench.layers.primal_dual.rules import ACCURATE, Found, Point
from bpqp_bench.layers.problem import Phase
from bpqp_bench.layers.solver_pass import Info, Instances, Outcome, flag


class Passes(Protocol):
    """A solved call."""

    @property
    def outcome(self) -> Outcome | DenseOutcome: ...  # noqa: D102

    @property
    def native(self) -> bool:
        """Whether all arguments are float64 on one device, as the gradients are."""

    @property
    def z(self) -> Tensor:
        """Solution in the shape that the layer returns, float64."""

    def solution(self) -> Tensor:
        """``z`` in memory of its own."""

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``.

        ``apart`` asks for one gradient per instance also where an argument is shared.
        """


_EVERY = (True,) * 6


class DensePass:
    """Dense problems, solved by a kernel; ``others`` are instances that it left."""

    def __init__(self, data: DenseData, point: Point, others: Instances | None) -> None:
        self._data, self._point, self._others = data, point, others
        found = point.found
        if others is not None:
            z, duals, active, neq = found.z, found.duals, found.active, data.neq
            into = z, duals[:, :neq], duals[:, neq:], active
            for i in others.indices:
                for part, value in zip(into, others.solution(i), strict=True):
                    part[i] = torch.from_numpy(value).to(part)
        self.native = data.rounding == 2.0**-52
        self.outcome = DenseOutcome(found, data, {} if others is None else others.info)

    @property
    def z(self) -> Tensor:
        """Solution in the shape that the layer returns, float64."""
        z = self._point.found.z
        return z if self._data.batched else z[0]

    def solution(self) -> Tensor:
        """``z`` in memory of its own."""
        return self._point.found.solution(not self._data.batched)

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        data, others = self._data, self._others
        v = upstream if upstream.dtype is torch.float64 else upstream.double()
        alone = not data.batched
        if alone and others is None:
            with clock("solve"):
                found, self.outcome.adjoint = self._point.pullback(v, needed, flat=True)
            if not needed[1]:
                found[1] = None
            return found
        # One problem's gradient is its own, and a batch of one is as good as shared.
        own = _EVERY if apart or alone else data.own
        # ∇P, ∇A and ∇G that instances share are summed below, without one for each.
        wanted = [needed[k] and (own[k] or k % 2 == 1) for k in range(6)]
        with clock("solve"):
            v = v.view(data.count, v.shape[-1])
            found, adjoint = self._point.pullback(v, wanted, flat=False)
        self.outcome.adjoint = adjoint
        if others is not None:
            self._replace(v, found, self._dual_part(adjoint), clock)
        with clock("extract"):
            if not all(own):
                self._sum(found, self._dual_part(adjoint), own, needed)
            elif alone:
                found = [part if part is None else part.squeeze(0) for part in found]
            if not needed[1]:
                found[1] = None
            return found

    def _dual_part(self, adjoint: Tensor) -> Tensor:
        """Return [ν̃; λ̃], (batch, neq + nineq)."""
        duals = self._point.found.duals
        return adjoint[: duals.numel()].view_as(duals)

    def _replace(self, v: Tensor, found: list[Tensor | None], y: Tensor, clock: Phase) -> None:
        """Put in the gradients of the instances that another solver solved."""
        others, neq, point = self._others, self._data.neq, self._point.found
        assert others is not None
        x, duals = found[1], point.duals
        assert x is not None
        for i in others.indices:
            adjoint = others.adjoint(i, v[i].cpu().numpy(), clock)
            tilde, nu_tilde, lam_tilde = (torch.from_numpy(part).to(x) for part in adjoint)
            x[i], y[i, :neq], y[i, neq:] = tilde, nu_tilde, lam_tilde
            z = point.z[i].nan_to_num()  # no solution: its gradients are zero
            for k, u, w in (
                (0, 0.5 * tilde, 0.5 * z),
                (2, nu_tilde, duals[i, :neq]),
                (4, lam_tilde, duals[i, neq:]),
            ):
                outer, vector = found[k], found[k + 1]
                if outer is not None:
                    outer[i] = torch.outer(u, z) + torch.outer(w, tilde)
                if k and vector is not None:
                    vector[i] = -u

    def _sum(
        self, found: list[Tensor | None], y: Tensor, own: Sequence[bool], needed: Sequence[bool]
    ) -> None:
        """Sum over the batch what it shares."""
        neq, z, duals = self._data.neq, self._point.found.z, self._point.found.duals
        x = found[1]
        assert x is not None
        if self._others is not None and self._others.failed:
            z = z.nan_to_num()  # an instance without a solution counts for nothing
        for k in (1, 3, 5):
            part = found[k]
            if part is not None and not own[k]:
                found[k] = part.sum(0)
        if needed[0] and not own[0]:
            half = x.mT @ z
            found[0] = (half + half.mT).mul_(0.5)
        for k, rows in ((2, slice(neq)), (4, slice(neq, None))):
            if needed[k] and not own[k]:
                found[k] = torch.addmm(y[:, rows].mT @ z, duals[:, rows].mT, x)


class DenseOutcome:
    """As `Outcome`, made into tensors and dictionaries when somebody asks."""

    def __init__(self, found: Found, data: DenseData, others: dict[int, dict[str, object]]) -> None:
        self._found, self._others = found, others
        self._batched, self._neq = data.batched, data.neq
        self._count = data.count
        self.adjoint: Tensor | None = None  # as `rules.Point.pullback` returns it

    @property
    def state(self) -> Tensor:
        """Mask of the binding rows."""
        return self._found.active if self._batched else self._found.active[0]

    @property
    def duals(self) -> tuple[Tensor, Tensor]:
        """ν* and λ*."""
        duals = self._found.duals if self._batched else self._found.duals[0]
        return duals[..., : self._neq], duals[..., self._neq :]

    def facts(self) -> Info:
        """One dictionary per instance."""
        found = [solved(*row) for row in self._found.summary()]
        if self.adjoint is not None:
            residuals = self.adjoint[len(self.adjoint) - self._count :].tolist()
            for facts, residual in zip(found, residuals, strict=True):
                facts.update(differentiated(residual, bool(facts["weakly_active_rows"])))
        for i, others in self._others.items():
            found[i] = others
        return found


def solved(
    steps: float, primal: float, dual: float, active: float, weakly_active: float
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
