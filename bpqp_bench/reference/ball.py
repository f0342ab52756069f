"""Closed form of min qᵀz s.t. ‖z‖₂ ≤ c: z* = −c q/‖q‖, μ* = ‖q‖.

With u = −q/‖q‖ the Hessian of the Lagrangian is (μ/c)(I − uuᵀ) and the active gradient u, so
z̃ = −(c/‖q‖)(v − u uᵀv) and μ̃ = −uᵀv.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.reference.extended import DD


@dataclass(frozen=True, eq=False)
class Ball:
    """Solution, multiplier of the cone, and z̃."""

    z: DD
    mu: DD
    adjoint: DD


def is_ball(instance: Instance) -> bool:
    """Whether the instance is a linear objective over one centred Euclidean ball."""
    if len(instance.cones) != 1 or instance.neq or instance.nineq:
        return False
    cone = instance.cones[0]
    F = cone.F
    linear = instance.P.nnz == 0 if sp.issparse(instance.P) else not instance.P.any()
    if not linear or cone.g.any() or cone.c.any() or F.shape != (instance.n, instance.n):
        return False
    stored = int(F.count_nonzero()) if sp.issparse(F) else int(np.count_nonzero(F))
    return stored == instance.n and bool((F.diagonal() == 1.0).all())


def solve_ball(instance: Instance, upstream: Array) -> Ball:
    """Evaluate the closed form in double-double; q must not be zero and c must be positive."""
    q, v = DD.of(instance.q), DD.of(upstream)
    radius = instance.cones[0].d
    norm = q.dot(q).sqrt()
    u = -q / norm
    adjoint = -(v - u * u.dot(v)) * radius / norm
    return Ball(z=u * radius, mu=norm, adjoint=adjoint)
