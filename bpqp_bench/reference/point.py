"""Refined primal-dual solution: what the solvers hand to the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.kkt import KKTSystem

__all__ = ["DEGENERATE_MARGIN", "Mask", "Point"]

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
