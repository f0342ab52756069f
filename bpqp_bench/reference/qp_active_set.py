"""Exact active set and refined primal-dual solution of a QP or LP.

A guess of the active rows is solved as an equality-constrained QP to double-double accuracy and
then judged by the KKT conditions: every row satisfied, every multiplier non-negative. These are
sufficient for a convex problem, so what is accepted is proven and not the choice of a tolerance
on λ. Rows that fail the test change sides and the guess is tried again (primal-dual active set
method; Hintermüller, Ito, Kunisch, SIAM J. Optim. 13 (2002)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpqp_bench.reference.extended import DD, ExactProduct
from bpqp_bench.reference.kkt import KKTSystem, null_directions, rank_deficiency
from bpqp_bench.reference.point import Mask, Point, RowSolution, Units
from bpqp_bench.reference.qp_interior_point import (
    Factorize,
    Iterate,
    Quadratic,
    interior_point,
    range_space,
    solve_on_rows,
)
from bpqp_bench.reference.solution import NoReferenceError, not_certified, unbounded

_FEASIBLE = 1e-18  # relative violation or negative multiplier that is still rounding
_SINGULAR = 1e14  # scaled condition number from which ranks are examined
_SHIFT = 1e-8  # of the proximal iteration on a singular system
_CONSISTENT = 1e-20  # backward error up to which a system counts as solved
_CONSISTENT_SINGULAR = 1e-14
_EVIDENT = 1e-10  # violation that float64 cannot have made up
_CORRECTIONS = 12
_CONVERGED = 1e-9  # gap at which the interior point is good enough for a first guess


@dataclass(frozen=True, eq=False)
class _Try:
    point: Point | None
    next: Mask


def solve_quadratic(qp: Quadratic) -> Point:
    """Solve to double-double accuracy.

    Raises
    ------
    NoReferenceError
        If the problem is infeasible, unbounded or not convex, or no active set could be certified.
    """
    factorize = range_space(qp) if qp.h.size else None
    search = _Search(qp, factorize)
    none = np.zeros(qp.h.size, dtype=bool)
    if qp.h.size == 0:
        point = search.attempt(none, None).point
        if point is None:
            raise _without_inequalities(qp)
        return point
    # Without the cheap factorization an interior-point solve costs more than K of one guess, so
    # the guess that no row is active is tried first.
    if factorize is None and qp.P.any():
        found = search.correct(none, None, few=max(2, qp.h.size // 8))
        if found is not None:
            return found
    last: Iterate | None = None
    previous: Mask | None = None
    for iterate in interior_point(qp, factorize):
        stable = previous is not None and bool((previous == iterate.active).all())
        if stable and iterate.gap < _CONVERGED and iterate.residual < _CONVERGED:
            found = search.correct(iterate.active, iterate)
            if found is not None:
                return found
        previous, last = iterate.active, iterate
    if last is not None and last.gap < 1e-6:
        found = search.correct(last.active, last)
        if found is not None:
            return found
    gap = last.gap if last else float("nan")
    raise not_certified(qp.name, f"the interior-point method stopped at a gap of {gap:.1e}")


class _Search:
    """Tries of active sets on one problem; remembers which have failed."""

    def __init__(self, qp: Quadratic, factorize: Factorize | None) -> None:
        self.qp = qp
        self._factorize = factorize
        self._G = ExactProduct(qp.G)
        norms = np.linalg.norm(qp.G, axis=1)
        largest = np.abs(qp.G).max(axis=1, initial=0.0)
        self._units = Units(qp.P, qp.q, qp.A, qp.h, norms, largest)
        self._failed: set[bytes] = set()

    def correct(self, active: Mask, start: Iterate | None, few: int | None = None) -> Point | None:
        """Try a guess and its corrections; give up on a cycle or after ``few`` changes at once."""
        active = self._clear_mistakes(active)
        for _ in range(_CORRECTIONS):
            if active.tobytes() in self._failed:
                return None
            tried = self.attempt(active, start, few)
            if tried.point is not None:
                return tried.point
            self._failed.add(active.tobytes())
            if few is not None and np.sum(tried.next != active) > few:
                return None
            active = tried.next
        return None

    def _clear_mistakes(self, active: Mask) -> Mask:
        """Move rows that float64 already shows to be on the wrong side, before K is factorized."""
        if self._factorize is None:
            return active
        qp, first = self.qp, active
        for _ in range(_CORRECTIONS):
            try:
                z, lam = solve_on_rows(qp, active, self._factorize)
            except np.linalg.LinAlgError:  # dependent rows: left to `attempt`
                return first
            weight = lam * self._units.row_largest
            terms = (qp.q, qp.P @ z, weight)
            scale = max(float(np.abs(t).max(initial=0.0)) for t in terms)
            slack = qp.h - qp.G @ z
            length = float(np.linalg.norm(z))
            slack_scale = np.abs(qp.h) + self._units.row_norms * length
            wrong = (active & (weight < -_EVIDENT * scale)) | (
                ~active & (slack < -_EVIDENT * slack_scale)
            )
            if not wrong.any() or not np.isfinite(z).all():
                return active
            active = active ^ wrong
        return first

    def attempt(self, active: Mask, start: Iterate | None, few: int | None = None) -> _Try:
        """Solve on the given active rows and test the KKT conditions."""
        qp = self.qp
        n, neq = qp.q.size, qp.b.size
        C = np.concatenate([qp.A, qp.G[active]])
        m = C.shape[0]
        system = KKTSystem(qp.P, C)
        primal_null = dual_null = 0
        if m > n or system.condition > _SINGULAR:
            dual_null, primal_null = rank_deficiency(C), null_directions(qp.P, C)
            if dual_null or primal_null:
                system = KKTSystem(qp.P, C, shift=_SHIFT)
        elif system.negative > m:
            raise NoReferenceError(
                f"{qp.name} is not convex: P has negative curvature on the null space of the "
                "active constraints; P must be positive semidefinite",
                "not-convex",
            )
        rhs = DD.of(np.concatenate([-qp.q, qp.b, qp.h[active]]))
        x0 = None
        if few is not None:  # many violations show in float64 already
            rough = qp.h - qp.G @ system.solve(rhs.hi)[:n] < 0.0
            if np.sum(rough & ~active) > 2 * few:
                return _Try(None, active | rough)
        if start is not None:
            x0 = DD.of(np.concatenate([start.z, start.nu, start.lam[active]]))
        refined = system.refine(rhs, x0)
        # A singular system has a solution only up to the rounding of its data: an LP whose q
        # should lie in the span of its active rows never has it there exactly.
        allowed = _CONSISTENT_SINGULAR if primal_null or dual_null else _CONSISTENT
        if not np.isfinite(refined.x.hi).all() or not refined.backward <= allowed:
            return _Try(None, active)
        on_rows = RowSolution.of(system, rhs, refined, active, self._G, qp.h, neq)
        relative = self._units.relative(on_rows.z.hi, on_rows.nu.hi, on_rows.lam.hi, on_rows.slack)
        violated = ~active & (relative[0] < -_FEASIBLE)
        negative = active & (relative[1] < -_FEASIBLE)
        if violated.any() or negative.any():
            return _Try(None, (active & ~negative) | violated)
        method = "active set" if start is None else "interior point"
        return _Try(on_rows.point(relative, (primal_null, dual_null), method), active)


def _without_inequalities(qp: Quadratic) -> NoReferenceError:
    if qp.b.size:
        left = qp.A @ np.linalg.lstsq(qp.A, qp.b, rcond=None)[0] - qp.b
        if np.abs(left).max() > 1e-9 * (1.0 + np.abs(qp.b).max()):
            return NoReferenceError(
                f"{qp.name} is infeasible: its equalities Az = b contradict each other; check A, b",
                "infeasible",
            )
    return unbounded(qp.name)
