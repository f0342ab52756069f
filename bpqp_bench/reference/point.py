"""Refined primal-dual solution: what the solvers hand to the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.kkt import KKTSystem, Refined

Mask = NDArray[np.bool_]

# A margin below this is not told from zero: the data's own rounding moves it that far.
DEGENERATE_MARGIN = 1e-14
_EXACT = 1e-15  # fault below which the KKT conditions hold as well as float64 data can say
_REFINED = 1e-9  # last correction above which refinement has not converged


@dataclass(frozen=True, eq=False)
class Point:
    """Solution on its active rows of G and active cones.

    ``system`` is the K of the gradient, None where the solution sits at the tip of a cone and K
    does not exist; ``primal_null`` and ``dual_null`` are the dimensions in which z and the
    multipliers are not unique; ``fault`` is the largest relative violation of a KKT condition where
    it is not zero to double-double accuracy; the other fields are those of `Certificate`.
    """

    z: DD
    nu: DD
    lam: DD
    mu: Array
    active: Mask
    active_cones: Mask
    system: KKTSystem | None
    margin: float
    primal: float
    dual: float
    complementarity: float
    error: float
    primal_null: int
    dual_null: int
    method: str
    fault: float = 0.0

    def reasons(self) -> list[str]:
        """Return why the gradient does not exist or is not unique; empty if it is."""
        reasons = []
        if self.system is None:
            reasons.append("cone tip (the constraint is not differentiable at the solution)")
        if self.primal_null:
            reasons.append(f"solution not unique ({self.primal_null} free dimensions)")
        if self.dual_null:
            reasons.append(
                f"active constraint rows linearly dependent ({self.dual_null} too many), "
                "multipliers not unique"
            )
        if self.fault > _EXACT:
            reasons.append(
                f"the optimality conditions hold to {self.fault:.0e} of their terms only"
            )
        if self.error > _REFINED:
            reasons.append(
                f"system of the active rows too ill-conditioned (last correction {self.error:.0e})"
            )
        if self.margin < DEGENERATE_MARGIN:
            reasons.append(f"weakly active constraint (margin {self.margin:.1e})")
        return reasons


@dataclass(frozen=True, eq=False)
class Units:
    """Data of a QP, dense or sparse, and the lengths of its rows: what is large and what small.

    ``row_norms`` and ``row_largest`` are the 2-norm and the ∞-norm of each row of G, (nineq,).
    """

    P: Any
    q: Array
    A: Any
    h: Array
    row_norms: Array
    row_largest: Array

    def relative(self, z: Array, nu: Array, lam: Array, slack: Array) -> tuple[Array, Array]:
        """Return slack and multipliers in units of the terms that they are differences of."""
        length = float(np.linalg.norm(z))
        terms = (self.q, self.P @ z, self.A.T @ nu, lam * self.row_largest)
        scale = max(float(np.abs(t).max(initial=0.0)) for t in terms) + 1e-300
        primal = np.abs(self.h) + self.row_norms * length + 1e-300
        return slack / primal, lam * self.row_largest / scale


@dataclass(frozen=True, eq=False)
class RowSolution:
    """Solution of the KKT system on a set of active rows, whose KKT conditions are to be tested.

    ``slack`` is h − Gz with zeros on active rows, ``lam`` has zeros on the others, (nineq,);
    ``left`` is the system's right-hand side less what the solution makes of it.
    """

    system: KKTSystem
    z: DD
    nu: DD
    lam: DD
    slack: Array
    left: Array
    active: Mask
    error: float

    @classmethod
    def of(
        cls, system: KKTSystem, rhs: DD, refined: Refined, active: Mask, G: Any, h: Array, neq: int
    ) -> RowSolution:
        """Take the parts of the refined solution; ``G`` multiplies in double-double arithmetic."""
        x = refined.x
        n = x.hi.size - neq - int(active.sum())
        slack = (DD.of(h) - G @ x[:n]).hi
        slack[active] = 0.0
        lam = DD(np.zeros(h.size), np.zeros(h.size))
        lam.hi[active], lam.lo[active] = x.hi[n + neq :], x.lo[n + neq :]
        left = (rhs - system.apply(x)).hi
        return cls(system, x[:n], x[n : n + neq], lam, slack, left, active, refined.error)

    def point(
        self,
        relative: tuple[Array, Array],
        null: tuple[int, int],
        method: str,
        fault: float = 0.0,
    ) -> Point:
        """Return the point, given slack and multipliers in `Units` and (primal, dual) null."""
        n, neq = self.z.hi.size, self.nu.hi.size
        left, lam = self.left, self.lam.hi
        return Point(
            z=self.z,
            nu=self.nu,
            lam=self.lam,
            mu=np.zeros(0),
            active=self.active,
            active_cones=np.zeros(0, dtype=bool),
            system=self.system,
            margin=float(np.maximum(*relative).min(initial=np.inf)),
            primal=float(max(np.abs(left[n:]).max(initial=0.0), (-self.slack).max(initial=0.0))),
            dual=float(max(np.abs(left[:n]).max(), (-lam).max(initial=0.0))),
            complementarity=float(np.abs(lam[self.active] * left[n + neq :]).max(initial=0.0)),
            error=self.error,
            primal_null=null[0],
            dual_null=null[1],
            method=method,
            fault=fault,
        )
