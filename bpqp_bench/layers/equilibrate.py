"""One change of units before every solver, so that an answer does not depend on the caller's.

Rows and variables are brought to unit size by Ruiz's iteration on the KKT matrix (Ruiz, RAL report
2001-034), then lengths by the size of the larger right-hand sides and the objective by that of its
data. All factors are powers of two: nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.problem import ConvexQP, QPSolution, residuals
from bpqp_bench.problem.instance import Array, Matrix

_ROUNDS = 10
# A right-hand side this much smaller than the largest is a zero that was computed (QSCSD8 of
# Maros-Meszaros has 160 of 1e-16 beside 40 from 0.1 to 5), and says nothing of lengths.
_NO_LENGTH = 1e-12
# An h this much larger than all that could make a solution long was written for "no bound".
_NO_BOUND = 1e7
# Where −P⁻¹q is this much longer than the sides, a solver takes P for zero in units of theirs; from
# the second number on, P is zero beside them.
_FLAT = 1e9, 1e20


@dataclass(frozen=True, eq=False)
class Scaling:
    """Units of the scaled problem: z = columns ∘ ẑ, ν = rows_a ∘ ν̂ / objective, λ alike.

    P̂ = objective · columns ∘ P ∘ columns, q̂ = objective · columns ∘ q, Ĝ = rows ∘ G ∘ columns,
    ĥ = rows ∘ h.
    """

    columns: Array
    rows_a: Array
    rows_g: Array
    objective: float

    @classmethod
    def identity(cls, qp: ConvexQP) -> Scaling:
        """Leave all units as they are."""
        return cls(np.ones(qp.n), np.ones(qp.neq), np.ones(qp.nineq), 1.0)

    def apply(self, qp: ConvexQP) -> ConvexQP:
        """Return the problem in these units."""
        return ConvexQP(
            _scaled(qp.P, self.objective * self.columns, self.columns),
            self.objective * self.columns * qp.q,
            _scaled(qp.A, self.rows_a, self.columns),
            self.rows_a * qp.b,
            _scaled(qp.G, self.rows_g, self.columns),
            self.rows_g * qp.h,
        )

    def back(self, qp: ConvexQP, found: QPSolution) -> QPSolution:
        """Take a solution of the scaled problem to the caller's units; residuals are measured."""
        z = self.columns * found.z
        nu, lam = self.rows_a * found.nu / self.objective, self.rows_g * found.lam / self.objective
        if not np.isfinite(z).all():
            return replace(found, z=z, nu=nu, lam=lam)
        primal, dual = residuals(qp, z, nu, lam, found.mu)
        return replace(found, z=z, nu=nu, lam=lam, primal=primal, dual=dual)


def equilibrate(qp: ConvexQP) -> tuple[ConvexQP, Scaling]:
    """Return the problem in units of its own, and the way back. No cones."""
    columns, a, g = np.ones(qp.n), np.ones(qp.neq), np.ones(qp.nineq)
    sizes = [abs(M) for M in (qp.P, qp.A, qp.G)]
    for _ in range(_ROUNDS):
        P, A, G = (_scaled(M, r, columns) for M, r in zip(sizes, (columns, a, g), strict=True))
        widest = np.maximum(_largest(P, 0), np.maximum(_largest(A, 0), _largest(G, 0)))
        columns = columns * _root(widest)
        a, g = a * _root(_largest(A, 1)), g * _root(_largest(G, 1))
        if max(_uneven(widest), _uneven(_largest(A, 1)), _uneven(_largest(G, 1))) <= 2.0:
            break
    size_p = float(abs(_scaled(qp.P, columns, columns)).max())
    size_q = float(np.abs(columns * qp.q).max())
    free = size_q / size_p if size_p > 0.0 else 0.0
    sides = _lengths(a * qp.b, g * qp.h, free)
    length = float(np.quantile(sides, 0.75)) if len(sides) else free or 1.0
    if _FLAT[0] * length < free < _FLAT[1] * length:
        length = float(np.sqrt(free * length))
    length = _power_of_two(length)
    objective = 1.0 / _power_of_two(max(size_p * length * length, size_q * length) or 1.0)
    scaling = Scaling(columns * length, a / length, g / length, objective)
    return scaling.apply(qp), scaling


def _lengths(b: Array, h: Array, free: float) -> Array:
    """Sizes of the right-hand sides that say how long a solution is; ``free``: without any rows."""
    firm = np.abs(np.concatenate([b, h[h < 0.0]]))  # z = 0 violates these
    loose = h[(h > 0.0) & (h < np.inf)]
    far = max(firm.max(initial=0.0), free) or (np.median(loose) if len(loose) else 0.0)
    sides = np.concatenate([firm[firm < np.inf], loose[loose < _NO_BOUND * far]])
    return np.asarray(sides[sides > _NO_LENGTH * sides.max(initial=0.0)])


def _scaled(M: Matrix, rows: Array, columns: Array) -> Matrix:
    if sp.issparse(M):
        return sp.csc_matrix(sp.diags(rows) @ M @ sp.diags(columns))
    return rows[:, None] * M * columns


def _largest(M: Matrix, axis: int) -> Array:
    """Largest entry of each column (axis 0) or row (axis 1) of a matrix of sizes."""
    if min(M.shape) == 0:
        return np.zeros(M.shape[1 - axis])
    if sp.issparse(M):
        M = sp.csc_matrix(M)
        columns = np.repeat(np.arange(M.shape[1]), np.diff(M.indptr))
        found = np.zeros(M.shape[1 - axis])
        np.maximum.at(found, columns if axis == 0 else M.indices, M.data)
        return found
    return np.asarray(M.max(axis=axis))


def _root(sizes: Array) -> Array:
    """1/√size as a power of two, 1 for nothing."""
    safe = np.where((sizes > 0.0) & np.isfinite(sizes), sizes, 1.0)
    return np.asarray(np.exp2(np.rint(-0.5 * np.log2(safe))))


def _uneven(sizes: Array) -> float:
    there = sizes[sizes > 0.0]
    return float(np.maximum(there, 1.0 / there).max(initial=1.0))


def _power_of_two(size: float) -> float:
    return float(2.0 ** np.clip(np.rint(np.log2(size)), -900, 900))
