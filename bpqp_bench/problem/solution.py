"""What a forward pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bpqp_bench.problem.instance import Matrix


@dataclass(frozen=True, eq=False)
class Solution:
    """What a forward pass returns: arrays of the method's framework, of NumPy once it is judged.

    Attributes
    ----------
    z
        Primal solution, shape (n,), or (B, n) for a batch.
    nu, lam, mu
        Multipliers of Az = b, Gz ≤ h and of each cone (signs as in `Instance.residuals`), or None
        where the method does not compute them.
    status
        "solved", or what the method's solver says otherwise ("iteration limit", "infeasible", …);
        for a batch also a tuple of B. None where the library reports none: the harness then judges
        by the residual of the constraints.
    iterations
        Iterations of the solver where it counts them.
    info
        Further facts worth keeping with the result, plain JSON values
        ("gradient": "least-squares").
    """

    z: Matrix
    nu: Matrix | None = None
    lam: Matrix | None = None
    mu: Matrix | None = None
    status: str | tuple[str, ...] | None = "solved"
    iterations: int | None = None
    info: Mapping[str, object] = field(default_factory=dict)
