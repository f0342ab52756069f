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
from bpqp_bench.layers.primal_dual.rules import ACCURATE, Summary, Three
from bpqp_bench.layers.problem import Phase
from bpqp_bench.layers.solver_pass import Info, Instances, flag

__all__ = ["DensePass", "Kernel", "Passes"]


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


class Kernel(Protocol):
    """Solved problems as a kernel leaves them, see `batched.BatchPoint`."""

    @property
    def z(self) -> Tensor: ...  # noqa: D102
    @property
    def nu(self) -> Tensor: ...  # noqa: D102
    @property
    def lam(self) -> Tensor: ...  # noqa: D102
    @property
    def active(self) -> Tensor: ...  # noqa: D102
    @property
    def left(self) -> list[int]: ...  # noqa: D102
    @property
    def summary(self) -> Summary: ...  # noqa: D102
    def adjoint(self, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Any]: ...  # noqa: D102
    def outer_sums(  # noqa: D102
        self, at: Three, adjoint: Three, wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]: ...


class DensePass:
    """Dense problems, solved by a kernel; ``others`` are instances that it left."""

    def __init__(self, data: DenseData, point: Kernel, others: Instances | None) -> None:
        self._own, self._point, self._others = data.own, point, others
        z, nu, lam, active = point.z, point.nu, point.lam, point.active
        if others is not None:
            for i in others.indices:
                for into, value in zip((z, nu, lam, active), others.solution(i), strict=True):
                    into[i] = torch.from_numpy(value).to(into)
        # In sums over the batch, an instance without a solution counts for nothing.
        self._at = (z.nan_to_num() if others is not None and others.failed else z), nu, lam
        self.z, self.state = (z, active) if data.batched else (z[0], active[0])
        self.duals: tuple[Any, ...] = (nu, lam) if data.batched else (nu[0], lam[0])
        self.facts = _Facts(point.summary, {} if others is None else others.info)

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h for v of the shape of ``z``."""
        z = self._at[0]
        v = upstream.to(z).reshape(z.shape)
        with clock("solve"):
            x, nu, lam, self.facts.residuals = self._point.adjoint(v)
        if self._others is not None:
            for i in self._others.indices:
                found = self._others.adjoint(i, v[i].cpu().numpy(), clock)
                for into, value in zip((x, nu, lam), found, strict=True):
                    into[i] = torch.from_numpy(value).to(into)
        with clock("extract"):
            # One problem's gradient is its own, and a batch of one is as good as shared.
            alone = len(z) == 1
            own = (True,) * 6 if apart or alone else self._own
            parts = self._gradients((x, nu, lam), own, needed)
            if not alone or apart:
                return parts
            return [
                part if part is None or mine else part.squeeze(0)
                for part, mine in zip(parts, self._own, strict=True)
            ]

    def _gradients(
        self, adjoint: Three, own: Sequence[bool], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients from z̃, ν̃, λ̃; summed over the batch for arguments that it shares."""
        (z, *duals), (x, *tildes) = self._at, adjoint
        found: list[Tensor | None] = [None] * 6
        for k, vector in ((1, x), (3, tildes[0]), (5, tildes[1])):
            if needed[k]:
                whole = vector if k == 1 else -vector
                found[k] = whole if own[k] else whole.sum(0)
        wanted = [needed[k] and own[k] for k in (0, 2, 4)]
        found[0], found[2], found[4] = self._point.outer_sums(self._at, adjoint, wanted)
        if needed[0] and not own[0]:
            half = x.mT @ z
            found[0] = (half + half.mT).mul_(0.5)
        for k, dual, tilde in ((2, duals[0], tildes[0]), (4, duals[1], tildes[1])):
            if needed[k] and not own[k]:
                found[k] = torch.addmm(tilde.mT @ z, dual.mT, x)
        return found


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
