"""The form of the conic solvers: minimize ½zᵀPz + qᵀz subject to b − Rz ∈ {0} × R₊ × SOC × …."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.problem import ConvexQP
from bpqp_bench.layers.solvers._common import csc, stack_sparse
from bpqp_bench.problem.instance import Array


def conic_rows(qp: ConvexQP) -> tuple[sp.csc_matrix, Array, dict[str, object]]:
    """Rows R, right-hand side and block sizes {"z", "l", "q"}.

    The cone ‖Fz + g‖ ≤ cᵀz + d is (cᵀz + d, Fz + g) ∈ SOC: rows (−cᵀ, −F), right side (d, g).
    """
    rows, right = stack_sparse(qp.A, qp.G), [qp.b, qp.h]
    blocks = [rows]
    for cone in qp.cones:
        top = csc(-cone.c[None, :]) if cone.c.any() else sp.csc_matrix((1, qp.n))
        blocks += [top, -csc(cone.F)]
        right += [np.array([cone.d]), cone.g]
    if len(blocks) > 1:
        rows = sp.vstack([block for block in blocks if block.shape[0]], format="csc")
    sizes: dict[str, object] = {
        "z": qp.neq,
        "l": qp.nineq,
        "q": [len(cone.g) + 1 for cone in qp.cones],
    }
    return rows, np.concatenate(right), sizes


def cone_multipliers(qp: ConvexQP, y: Array) -> Array:
    """μ of each cone: the first component of its dual block (equal to the norm of the rest)."""
    start, mu = qp.neq + qp.nineq, np.zeros(len(qp.cones))
    for i, cone in enumerate(qp.cones):
        mu[i] = max(y[start], 0.0)
        start += len(cone.g) + 1
    return mu
