"""Sparse counterparts of the exact product and of the KKT system.

The factorization is LDLᵀ without pivoting of K + shift·diag(I, −I), which is quasi-definite and
exists for every ordering (Vanderbei, SIAM J. Optim. 5 (1995)); the products are those of K, so
that refinement converges to a solution of K itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.kkt import KKTSystem

_SHIFTS = (1e-8, 1e-7, 1e-6)  # the next one where rounding has spoilt the signs of the pivots
_PROBES = 40  # null dimensions of each kind that can be counted
_COUNTED_FROM = 0.01  # of 1/shift: condition from which null dimensions are looked for
_SINGULAR = 1e-12  # ‖Kx‖ of a unit vector x below which x counts as a null vector


class SparseExactProduct:
    """Products M x of a sparse float64 matrix with double-double vectors, to about 1e-32 |M||x|.

    Each product of two entries is exact, and the terms of a row are added pairwise in
    double-double; the order of additions is laid out once.

    Parameters
    ----------
    matrix
        SciPy sparse, shape (rows, columns), float64.
    """

    def __init__(self, matrix: Any) -> None:
        stored = sp.csr_matrix(matrix)
        stored.sum_duplicates()
        self.rows = stored.shape[0]
        self._data, self._columns = DD.of(stored.data), stored.indices
        # Each level adds neighbours within a row; −1 stands for "nothing to add".
        self._levels: list[tuple[Array, Array]] = []
        lengths = np.diff(stored.indptr).astype(np.int64)
        while lengths.max(initial=0) > 1:
            starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
            shorter = (lengths + 1) // 2
            within = np.arange(shorter.sum()) - np.repeat(
                np.concatenate([[0], np.cumsum(shorter)])[:-1], shorter
            )
            first = np.repeat(starts, shorter) + 2 * within
            has_second = 2 * within + 1 < np.repeat(lengths, shorter)
            self._levels.append((first, np.where(has_second, first + 1, -1)))
            lengths = shorter
        self._filled = lengths > 0

    def __matmul__(self, x: DD) -> DD:
        terms = self._data * x[self._columns]
        for first, second in self._levels:
            padded = DD(np.append(terms.hi, 0.0), np.append(terms.lo, 0.0))
            terms = padded[first] + padded[second]
        result = DD(np.zeros(self.rows), np.zeros(self.rows))
        result.hi[self._filled], result.lo[self._filled] = terms.hi, terms.lo
        return result


class SparseKKTSystem(KKTSystem):
    """`KKTSystem` of sparse H (n, n) and C (m, n), always shifted.

    Attributes
    ----------
    condition
        1-norm condition estimate of the scaled matrix, capped by the shift.
    negative
        m; that P is positive semidefinite has been checked before.
    primal_null, dual_null
        Dimensions in which z and the multipliers are not unique, by inverse iteration on a block
        of random vectors; at most 40 of each are counted.
    """

    def __init__(self, H: Any, C: Any) -> None:
        self.n, self.m = H.shape[0], C.shape[0]
        n, m = self.n, self.m
        K = sp.bmat([[H, C.T], [C, sp.csr_matrix((m, m))]], format="csr")
        self._scale = _equilibrated(K)
        self._apply = SparseExactProduct(K).__matmul__
        by = sp.diags(self._scale)
        self._scaled = sp.csc_matrix(by @ K @ by)
        for shift in _SHIFTS:
            factor = _factorized(self._scaled, n, shift)
            if factor is not None:
                break
        else:
            raise np.linalg.LinAlgError("the shifted KKT matrix has pivots of the wrong sign")
        self._factor: Any = factor
        self.negative = m
        self._norm = float(abs(self._scaled).sum(axis=0).max()) if n + m else 0.0
        operator = scipy.sparse.linalg.LinearOperator(
            (n + m, n + m), matvec=self._factor.solve, rmatvec=self._factor.solve
        )
        self.condition = self._norm * float(scipy.sparse.linalg.onenormest(operator))
        self.primal_null = self.dual_null = 0
        if self.condition > _COUNTED_FROM / shift:
            self.primal_null, self.dual_null = self._null_dimensions()
            if not self.primal_null and not self.dual_null:
                self._factor_with_pivoting()

    def solve(self, rhs: Array) -> Array:
        """Solve the shifted system in float64, once."""
        return np.asarray(self._scale * self._factor.solve(self._scale * rhs))

    def _factor_with_pivoting(self) -> None:
        """Factorize K itself by LU: it is ill conditioned but not singular."""
        try:
            factor = scipy.sparse.linalg.splu(self._scaled)
        except RuntimeError:  # a pivot was exactly zero
            return
        self._factor = factor
        operator = scipy.sparse.linalg.LinearOperator(
            self._scaled.shape, matvec=factor.solve, rmatvec=lambda r: factor.solve(r, "T")
        )
        self.condition = self._norm * float(scipy.sparse.linalg.onenormest(operator))

    def _null_dimensions(self) -> tuple[int, int]:
        # The null space of K is the product of {x: Hx = 0, Cx = 0} and {y: Cᵀy = 0}.
        n, size = self.n, self.n + self.m
        block = np.random.default_rng(0).standard_normal((size, min(size, 2 * _PROBES)))
        for _ in range(3):
            block = np.column_stack([self._factor.solve(column) for column in block.T])
            block = np.linalg.qr(block)[0]
        image = self._scaled @ block
        _, values, directions = np.linalg.svd(image, full_matrices=False)
        null = block @ directions[values <= _SINGULAR * max(self._norm, 1.0)].T
        return _rank(null[:n]), _rank(null[n:])


class _Shifted:
    """LDLᵀ of a quasi-definite matrix; solutions are refined, as there was no pivoting."""

    def __init__(self, matrix: Any, factor: Any) -> None:
        self._matrix, self._factor = matrix, factor

    def solve(self, rhs: Array) -> Array:
        rhs = np.ravel(rhs)
        x = self._factor.solve(rhs)
        previous = np.inf
        for _ in range(5):
            left = rhs - self._matrix @ x
            size = float(np.abs(left).max(initial=0.0))
            if not size < 0.5 * previous:
                break
            previous = size
            x = x + self._factor.solve(left)
        return np.asarray(x)


def is_positive_semidefinite(P: Any) -> bool:
    """Whether P + 1e-9 max|P| I has positive pivots only."""
    largest = float(abs(P).max()) if P.nnz else 0.0
    if largest == 0.0:
        return True
    return _factorized(sp.csc_matrix(P / largest), P.shape[0], 1e-9) is not None


def _factorized(scaled: Any, n: int, shift: float) -> _Shifted | None:
    """LDLᵀ of the shifted matrix; None if a pivot vanishes or has the wrong sign."""
    import qdldl  # noqa: PLC0415

    signs = np.where(np.arange(scaled.shape[0]) < n, 1.0, -1.0)
    shifted = sp.csc_matrix(scaled + shift * sp.diags(signs))
    try:
        factor = qdldl.Solver(sp.csc_matrix(sp.triu(shifted)), True)
    except RuntimeError:
        return None
    _, pivots, order = factor.factors()
    right = (np.sign(pivots) == signs[np.asarray(order)]).all()
    return _Shifted(shifted, factor) if right else None


def _equilibrated(K: Any) -> Array:
    """Powers of two that bring the largest entry of every row near one (Ruiz, RAL-TR-2001-034)."""
    scale = np.ones(K.shape[0])
    for _ in range(15):
        by = sp.diags(scale)
        largest = np.asarray(abs(by @ K @ by).max(axis=1).todense()).ravel()
        scale = scale / np.sqrt(np.where(largest > 0.0, largest, 1.0))
    return np.asarray(2.0 ** np.round(np.log2(scale)))


def _rank(vectors: Array) -> int:
    if not vectors.size:
        return 0
    return int(np.sum(np.linalg.svd(vectors, compute_uv=False) > 1e-3))
