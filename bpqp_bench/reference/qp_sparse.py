"""Exact active set of a sparse, or a degenerate, QP or LP: the start is another solver's point.

Clarabel's point, or HiGHS' for an LP, is only where the search begins. Everything that is returned
was solved on a set of active rows to double-double accuracy and passed the KKT conditions, as in
`qp_active_set`. Where rows are active with a zero multiplier, or too many are active, the
multipliers come from a basic solution of the linear program that they satisfy, so that the rows
with positive ones are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse as sp
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.point import Mask, Point, RowSolution, Units
from bpqp_bench.reference.solution import NoReferenceError, not_certified
from bpqp_bench.reference.sparse import (
    SparseExactProduct,
    SparseKKTSystem,
    is_positive_semidefinite,
)

_FEASIBLE = 1e-18  # as in qp_active_set
_ROUGH = 1e-11  # largest fault of a point that is returned, marked with it
_GAP = 1e-8  # relative error of the objective that such a point may have
_CONSISTENT = 1e-20  # backward error up to which a system counts as solved
_CORRECTIONS = 25
_ACTIVE = (1e-6, 1e-8, 1e-4)  # relative slack below which a row may be active, in order of trial


@dataclass(frozen=True, eq=False)
class _Start:
    z: Array
    nu: Array
    lam: Array


@dataclass(frozen=True, eq=False)
class _Try:
    """Outcome on one set of rows: the point, its largest relative fault, and the next set."""

    point: Point | None
    fault: float
    next: Mask


def solve_sparse(instance: Instance) -> Point:
    """Solve to double-double accuracy.

    Raises
    ------
    NoReferenceError
        If the problem is not convex, or no active set could be certified.
    """
    search = _Search(instance)
    if not is_positive_semidefinite(search.P):
        raise NoReferenceError(
            f"{instance.name} is not convex: P has a negative eigenvalue; P must be positive "
            "semidefinite",
            "not-convex",
        )
    if instance.nineq == 0:
        found = search.attempt(np.zeros(0, dtype=bool), None)
        if found.point is not None:
            return found.point
        raise _failure(instance, found.fault)
    start = search.start()
    best: _Try | None = None
    for guess in search.guesses(start):
        rough = best is not None and best.point is not None
        found = search.correct(guess, start)
        if found.point is not None and found.fault <= _FEASIBLE:
            return found.point
        if best is None or found.fault < best.fault:
            best = found
        if rough:  # one more guess has not made it exact
            break
    if best is not None and best.point is not None:
        return best.point
    raise _failure(instance, float("nan") if best is None else best.fault)


def _failure(instance: Instance, fault: float) -> NoReferenceError:
    return not_certified(instance.name, f"the best violates a condition by {fault:.1e}")


class _Search:
    """Tries of active sets on one problem."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.P, self.A, self.G = (sp.csr_matrix(M) for M in (instance.P, instance.A, instance.G))
        self.P = 0.5 * (self.P + self.P.T)
        self._exact_G = SparseExactProduct(self.G)
        norms = np.sqrt(np.asarray(self.G.multiply(self.G).sum(axis=1))).ravel()
        largest = (
            np.asarray(abs(self.G).max(axis=1).todense()).ravel() if instance.nineq else np.zeros(0)
        )
        self._units = Units(self.P, instance.q, self.A, instance.h, norms, largest)

    def start(self) -> _Start:
        """Return another solver's point, which is only where the search begins."""
        import clarabel  # noqa: PLC0415

        given, n = self.instance, self.instance.n
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = False
        settings.max_iter = 500
        # Tolerances that are never met: the best point is wanted, not the solver's verdict.
        settings.tol_infeas_abs = settings.tol_infeas_rel = 1e-16
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
        cones = [clarabel.ZeroConeT(given.neq), clarabel.NonnegativeConeT(given.nineq)]
        rows = sp.csc_matrix(sp.vstack([self.A, self.G]))
        right = np.concatenate([given.b, given.h])
        solver = clarabel.DefaultSolver(
            sp.csc_matrix(sp.triu(self.P)), given.q, rows, right, cones, settings
        )
        found = solver.solve()
        z, y = np.array(found.x), np.array(found.z)
        if z.shape != (n,) or not (np.isfinite(z).all() and np.isfinite(y).all()):
            raise _failure(given, float("nan"))
        return _Start(z, y[: given.neq], y[given.neq :])

    def guesses(self, start: _Start) -> Any:
        """Yield sets of active rows, the likeliest first."""
        slack = self.instance.h - self.G @ start.z
        slack, lam = self._units.relative(start.z, start.nu, start.lam, slack)
        yield lam > slack
        sizes: set[int] = set()
        for tolerance in _ACTIVE:
            near = np.flatnonzero(slack < tolerance)
            if near.size in sizes:
                continue
            sizes.add(near.size)
            basic = self._basic_rows(start.z, near)
            if basic is not None:
                yield basic

    def correct(self, active: Mask, start: _Start) -> _Try:
        """Let rows change sides until a set passes or repeats; return the best."""
        seen: set[bytes] = set()
        best = self.attempt(active, start)
        current = best
        for _ in range(_CORRECTIONS):
            if current.point is not None and current.fault <= _FEASIBLE:
                return current
            seen.add(active.tobytes())
            active = current.next
            if active.tobytes() in seen:
                break
            current = self.attempt(active, start)
            if current.fault < best.fault:
                best = current
        return best

    def attempt(self, active: Mask, start: _Start | None) -> _Try:
        """Solve on the given active rows and test the KKT conditions."""
        given, n, neq = self.instance, self.instance.n, self.instance.neq
        C = sp.vstack([self.A, self.G[active]], format="csr")
        try:
            system = SparseKKTSystem(self.P, C)
        except np.linalg.LinAlgError:
            return _Try(None, float("inf"), active)
        rhs = DD.of(np.concatenate([-given.q, given.b, given.h[active]]))
        x0 = None
        if start is not None:
            x0 = DD.of(np.concatenate([start.z, start.nu, start.lam[active]]))
        refined = system.refine(rhs, x0)
        if not np.isfinite(refined.x.hi).all():
            return _Try(None, float("inf"), active)
        on_rows = RowSolution.of(system, rhs, refined, active, self._exact_G, given.h, neq)
        z, lam, slack, left = on_rows.z.hi, on_rows.lam.hi, on_rows.slack, on_rows.left
        relative = self._units.relative(z, on_rows.nu.hi, lam, slack)
        violated = np.where(active, 0.0, -relative[0])
        negative = np.where(active, -relative[1], 0.0)
        fault = float(max(violated.max(initial=0.0), negative.max(initial=0.0)))
        if refined.backward > _CONSISTENT:
            fault = max(fault, float(refined.backward))
        following = (active & (negative <= _FEASIBLE)) | (violated > _FEASIBLE)
        if fault > _FEASIBLE:
            # Weak duality: the objective may be off by this much; multipliers may be huge.
            faults = np.concatenate([left[:n], left[n:], np.minimum(slack, 0.0)])
            weights = np.concatenate([z, refined.x.hi[n:], start.lam if start else lam])
            gap = float(np.abs(faults) @ np.abs(weights))
            if gap > _GAP * (1.0 + abs(given.objective(z))):
                return _Try(None, fault, following)
        if not fault <= _ROUGH:
            return _Try(None, fault, following)
        null = (system.primal_null, system.dual_null)
        return _Try(on_rows.point(relative, null, "sparse active set", fault), fault, following)

    def _basic_rows(self, z: Array, candidates: NDArray[np.intp]) -> Mask | None:
        """Rows with positive multipliers in a basic solution of Aᵀν + Gᵀλ = −(Pz + q), λ ≥ 0."""
        given = self.instance
        if not given.neq and not candidates.size:
            return np.zeros(given.nineq, dtype=bool)
        columns = sp.csc_matrix(sp.vstack([self.A, self.G[candidates]]).T)
        gradient = self.P @ z + given.q
        # Unit columns, and right-hand side of the size of one: HiGHS' tolerances are absolute.
        lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0))).ravel()
        columns = sp.csc_matrix(columns @ sp.diags(1.0 / np.where(lengths > 0.0, lengths, 1.0)))
        right = -gradient / (float(np.abs(gradient).max(initial=0.0)) or 1.0)
        found = scipy.optimize.linprog(
            np.zeros(columns.shape[1]),
            A_eq=columns,
            b_eq=right,
            bounds=[(None, None)] * given.neq + [(0.0, None)] * candidates.size,
            method="highs-ds",
            options={"primal_feasibility_tolerance": 1e-9, "time_limit": 20.0},
        )
        if found.status != 0:
            return None
        active = np.zeros(given.nineq, dtype=bool)
        active[candidates[found.x[given.neq :] > 1e-8]] = True
        return active
