"""What a forward pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bpqp_bench.problem.instance import Array

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """What a forward pass returns.

    Attributes
    ----------
    z
        Primal solution, shape (n,).
    nu, lam, mu
        Multipliers of Az = b, Gz ≤ h and of each cone (signs as in `Instance.residuals`), or None
        where the method does not compute them.
    status
        "solved", or what the method's solver says otherwise ("iteration limit", "infeasible", …).
    iterations
        Iterations of the solver where it counts them.
    info
        Further facts worth keeping with the result, plain JSON values
        ("gradient": "least-squares").
    """

    z: Array
    nu: Array | None = None
    lam: Array | None = None
    mu: Array | None = None
    status: str = "solved"
    iterations: int | None = None
    info: Mapping[str, object] = field(default_factory=dict)
