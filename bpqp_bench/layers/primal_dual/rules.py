"""Limits and tolerances of the active-set method, the same for every kernel.

A slack is judged against |Wᵢ| |Lᵀz|, which bounds |Gᵢz|; a multiplier against |L⁻¹q| / |Wᵢ|, the
force that the objective exerts. Both change with the units as what they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

EPS = 2.0**-52
#: Factorizations on an active set before the method gives up.
MOST_STEPS = 60
#: Steps that change all wrong rows; afterwards one alone, where their number does not fall.
PLAIN_STEPS = 8
#: Steps that the number of wrong rows may take to fall.
PATIENCE = 3
#: A solution shorter than this, against the one without rows, is judged as if it were so long.
SHORT = 1e-4
#: Refinements on the KKT system.
MOST_REFINEMENTS = 5
#: Pivot over diagonal entry at which a matrix counts as singular for the plain method.
PIVOT = 1e-12
#: The same, at which it is looked at more closely: see `compiled.near_singular`.
SUSPECT = 1e-6
#: Curvature below zero, relative, that counts as rounding.
CONVEX = 1e-12
#: Where P is singular, curvature that is added to find the binding rows, and then to solve on them.
FAR, CLOSE = 1e-3, 1e-8
#: Weight of the dual's proximal term, first and last; factorizations on an active set with it.
FIRST, LAST, MOST_CHANGES = 1e-1, 1e-8, 200
#: Part of a flat direction that one solve with the latter leaves, at which P is flat along it.
STEEP = 1e-3
#: Errors of signs before refinement, relative.
ROUGH = 1e3 * EPS
#: Errors of signs after refinement, relative, beside the length of the last correction.
FINE = 16 * EPS
#: A correction after which the next one would be below rounding, relative.
ENOUGH = 1e-9
#: Residuals of a point that is accepted, relative.
RESIDUAL = 1e-11
#: Residual of the adjoint equations, relative, from which they are refined.
ROUGH_ADJOINT = 1e-12
#: Slack and multiplier that both count as zero, relative.
WEAK = 1e-12
#: Residual of the adjoint equations, relative, at which a gradient counts as exact.
ACCURATE = 1e-8


class Found(Protocol):
    """Results of a batch; holds no factorization.

    ``z`` (batch, n), ``duals`` [ν; λ] (batch, neq + nineq), ``active`` and ``weak``, masks
    (batch, nineq) of the rows that bind, and of those with neither slack nor multiplier.
    """

    @property
    def z(self) -> Tensor: ...  # noqa: D102
    @property
    def duals(self) -> Tensor: ...  # noqa: D102
    @property
    def active(self) -> Tensor: ...  # noqa: D102
    @property
    def weak(self) -> Tensor: ...  # noqa: D102

    def solution(self, flat: bool) -> Tensor:
        """``z`` in memory of its own, without the batch dimension where ``flat``."""

    def summary(self) -> list[tuple[float, ...]]:
        """Facts about each instance.

        Factorizations on an active set, largest violation of a row, largest entry of the
        Lagrangian's gradient, binding rows, weakly active rows.
        """


class Point(Protocol):
    """Solutions of a batch with their factorizations; ``left`` are instances without one."""

    @property
    def found(self) -> Found: ...  # noqa: D102
    @property
    def left(self) -> list[int]: ...  # noqa: D102

    def pullback(
        self, upstream: Tensor, wanted: Sequence[bool], flat: bool
    ) -> tuple[list[Tensor | None], Tensor]:
        """Solve the backward QPs for v (batch, n), or (n,) where ``flat``.

        Returns the gradients of every instance with respect to P, q, A, b, G, h, those that are
        ``wanted``, and ∇q = z̃ always, without the batch dimension where ``flat`` (for one
        instance); and in one row all [ν̃; λ̃] (batch, neq + nineq), then all relative residuals.
        """
