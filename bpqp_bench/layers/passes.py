"""The two passes of a call of `BPQP`: what the forward pass leaves, and gradients from it.

`DensePass` is one dense problem or a batch, by the active-set method; `SolverPass` solves instance
by instance, by any solver, dense or sparse. Both have the same members, see `Passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from bpqp_bench.layers.dense_data import DenseData
from bpqp_bench.layers.primal_dual.rules import ACCURATE, Summary
from bpqp_bench.layers.problem import Phase
from bpqp_bench.layers.solver_pass import Info, Instances, flag


class Passes(Protocol):
    """A solved call.

    ``z`` has the shape that the layer returns, in float64; ``state`` the mask of binding rows,
    (nineq,) or (batch, nineq); ``duals`` ν, λ and, where there are cones, μ, as arrays or tensors;
    ``facts()`` gives one dictionary per instance, as in `BPQP.last_info`, and keeps no
    factorization alive.
    """

    z: Tensor
    state: Tensor

    @property
    def duals(self) -> tuple[Any, ...]:
        """Multipliers."""

    @property
    def facts(self) -> Callable[[], Info]:
        """Facts about every instance."""

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``.

        ``apart`` asks for one gradient per instance also where an argument is shared.
        """


class Kernel(Protocol):
    """Solved problems as a kernel leaves them, see `bpqp_bench.layers.primal_dual.cpu.Point`."""

    @property
    def z(self) -> Tensor: ...  # noqa: D102
    @property
    def nu(self) -> Tensor: ...  # noqa: D102
    @property
    def lam(self) -> Tensor: ...  # noqa: D102
    @property
    def duals(self) -> Tensor: ...  # noqa: D102
    @property
    def active(self) -> Tensor: ...  # noqa: D102
    @property
    def left(self) -> list[int]: ...  # noqa: D102
    @property
    def summary(self) -> Summary: ...  # noqa: D102
    def pullback(  # noqa: D102
        self, upstream: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor | None]]: ...


class DensePass:
    """Dense problems, solved by a kernel; ``others`` are instances that it left."""

    def __init__(self, data: DenseData, point: Kernel, others: Instances | None) -> None:
        self._own, self._point, self._others = data.own, point, others
        z, active = point.z, point.active
        if others is not None:
            into = z, point.nu, point.lam, active
            for i in others.indices:
                for part, value in zip(into, others.solution(i), strict=True):
                    part[i] = torch.from_numpy(value).to(part)
        self._batched = data.batched
        self.z, self.state = (z, active) if data.batched else (z[0], active[0])
        self.facts = _Facts(point.summary, {} if others is None else others.info)

    @property
    def duals(self) -> tuple[Any, ...]:
        """ν* and λ*."""
        nu, lam = self._point.nu, self._point.lam
        return (nu, lam) if self._batched else (nu[0], lam[0])

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        z, neq = self._point.z, self._point.nu.shape[-1]
        v = upstream.to(z).reshape(z.shape)
        # One problem's gradient is its own, and a batch of one is as good as shared.
        alone = len(z) == 1
        own = (True,) * 6 if apart or alone else self._own
        wanted = [needed[k] and own[k] for k in (0, 2, 4)]
        with clock("solve"):
            x, y, self.facts.residuals, outer = self._point.pullback(v, wanted)
        if self._others is not None:
            self._replace(v, x, y, outer, clock)
        with clock("extract"):
            found: list[Tensor | None] = [outer[0], None, outer[1], None, outer[2], None]
            found[1] = x if needed[1] else None
            if needed[3] or needed[5]:
                minus = -y
                found[3] = minus[:, :neq] if needed[3] else None
                found[5] = minus[:, neq:] if needed[5] else None
            if not all(own):
                self._sum(found, x, y, own, needed)
            return [
                part if part is None or apart or mine or not alone else part.squeeze(0)
                for part, mine in zip(found, self._own, strict=True)
            ]

    def _replace(
        self, v: Tensor, x: Tensor, y: Tensor, outer: Sequence[Tensor | None], clock: Phase
    ) -> None:
        """Put in the gradients of the instances that another solver solved."""
        others, neq = self._others, self._point.nu.shape[-1]
        assert others is not None
        for i in others.indices:
            found = others.adjoint(i, v[i].cpu().numpy(), clock)
            tilde, nu_tilde, lam_tilde = (torch.from_numpy(part).to(x) for part in found)
            x[i], y[i, :neq], y[i, neq:] = tilde, nu_tilde, lam_tilde
            z = self._point.z[i].nan_to_num()  # no solution: its gradients are zero
            pairs = (
                (0.5 * tilde, 0.5 * z),
                (nu_tilde, self._point.nu[i]),
                (lam_tilde, self._point.lam[i]),
            )
            for part, (u, w) in zip(outer, pairs, strict=True):
                if part is not None:
                    part[i] = torch.outer(u, z) + torch.outer(w, tilde)

    def _sum(
        self,
        found: list[Tensor | None],
        x: Tensor,
        y: Tensor,
        own: Sequence[bool],
        needed: Sequence[bool],
    ) -> None:
        """Sum over the batch what it shares."""
        neq, duals = self._point.nu.shape[-1], self._point.duals
        z = self._point.z
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


class _Facts:
    """Facts about a batch, made into dictionaries when somebody asks."""

    def __init__(self, summary: Summary, others: dict[int, dict[str, object]]) -> None:
        self._summary, self._others = summary, others
        self.residuals: Any = None  # (batch,), of the adjoint equations

    def __call__(self) -> Info:
        found = [solved(*row) for row in self._summary()]
        if self.residuals is not None:
            for facts, residual in zip(found, self.residuals.tolist(), strict=True):
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
