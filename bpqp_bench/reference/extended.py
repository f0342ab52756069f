"""Double-double vectors and matrix-vector products without rounding errors.

Residuals of an ill-conditioned system must be computed in more than its working precision. The 80
bits of `numpy.longdouble` are not enough here (condition numbers of 1e12 leave 7 digits of 19) and
not everywhere available, so vectors are unevaluated sums of two float64 (106 bits) and matrix-
vector products are split into slices that the BLAS multiplies exactly.

Sources: Dekker, "A floating-point technique for extending the available precision", Numer. Math.
18 (1971); Ozaki, Ogita, Oishi, Rump, "Error-free transformations of matrix multiplication by using
fast routines of matrix multiplication and its applications", Numer. Algorithms 59 (2012).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpqp_bench.problem.instance import Array

_SPLITTER = 2.0**27 + 1.0
_BITS = 116  # of a product that are kept, counted from its largest possible term
_MAX_SLICES = 8
_CACHED_ENTRIES = 1_500_000  # matrices up to this size keep their slices
_CHUNK_ENTRIES = 2_000_000


@dataclass(frozen=True, eq=False)
class DD:
    """Array of unevaluated sums hi + lo with |lo| ≤ ½ ulp(hi); operators work elementwise."""

    hi: Array
    lo: Array

    @classmethod
    def of(cls, value: Array | float) -> DD:
        """Convert float64 values; the low parts are zero."""
        hi = np.asarray(value, dtype=np.float64)
        return cls(hi, np.zeros_like(hi))

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(self.hi.size)

    def __getitem__(self, key: Any) -> DD:
        return DD(self.hi[key], self.lo[key])

    def __neg__(self) -> DD:
        return DD(-self.hi, -self.lo)

    def __add__(self, other: DD | Array | float) -> DD:
        if not isinstance(other, DD):
            hi, e = _two_sum(self.hi, np.asarray(other))
            return _normal(hi, e + self.lo)
        hi, e = _two_sum(self.hi, other.hi)
        t, f = _two_sum(self.lo, other.lo)
        hi, e = _quick_two_sum(hi, e + t)
        return _normal(hi, e + f)

    def __sub__(self, other: DD | Array | float) -> DD:
        return self + (-other)

    def __mul__(self, other: DD | Array | float) -> DD:
        if not isinstance(other, DD):
            other = DD.of(other)
        hi, e = _two_prod(self.hi, other.hi)
        return _normal(hi, e + (self.hi * other.lo + self.lo * other.hi))

    def __truediv__(self, other: DD | Array | float) -> DD:
        if not isinstance(other, DD):
            other = DD.of(other)
        first = self.hi / other.hi
        rest = self - other * first
        second = rest.hi / other.hi
        third = (rest - other * second).hi / other.hi
        return DD(*_quick_two_sum(first, second)) + third

    def sqrt(self) -> DD:
        """Square root of positive entries, by one Newton step from the float64 root."""
        root = np.sqrt(self.hi)
        square, e = _two_prod(root, root)
        return DD(*_two_sum(root, (self - DD(square, e)).hi / (2.0 * root)))

    @property
    def T(self) -> DD:  # noqa: N802
        """Transpose."""
        return DD(self.hi.T, self.lo.T)

    def sum(self) -> DD:
        """Sum over the last axis, by pairwise addition."""
        total = self
        while (length := total.hi.shape[-1]) > 1:
            half = length // 2
            added = total[..., :half] + total[..., half : 2 * half]
            if length % 2:
                added = DD(
                    np.concatenate([added.hi, total.hi[..., -1:]], axis=-1),
                    np.concatenate([added.lo, total.lo[..., -1:]], axis=-1),
                )
            total = added
        return total[..., 0] if length else DD.of(np.zeros(total.hi.shape[:-1]))

    def dot(self, other: DD) -> DD:
        """Inner product over the last axis."""
        return (self * other).sum()


def concatenate(*parts: DD) -> DD:
    """Join vectors."""
    return DD(np.concatenate([p.hi for p in parts]), np.concatenate([p.lo for p in parts]))


def outer_sum(a: DD, b: DD, c: DD, d: DD) -> Array:
    """Return a bᵀ + c dᵀ, rounded once per entry, shape (len(a), len(b))."""
    result = np.empty((a.size, b.size))
    rows = max(1, _CHUNK_ENTRIES // (8 * max(b.size, 1)))
    for start in range(0, a.size, rows):
        at = slice(start, start + rows)
        left = DD(a.hi[at, None], a.lo[at, None]) * DD(b.hi[None], b.lo[None])
        result[at] = (left + DD(c.hi[at, None], c.lo[at, None]) * DD(d.hi[None], d.lo[None])).hi
    return result


class ExactProduct:
    """Products M x of a float64 matrix with double-double vectors, good to about 1e-33 |M||x|.

    Every entry is cut into slices of β + 1 bits on a grid common to the matrix, x likewise. With
    2β + log₂(slices · columns) ≤ 53 all sums that share a grid are exact in float64 whatever the
    order in which the BLAS adds, so one call of it yields them and only their few results are
    added in double-double.

    Parameters
    ----------
    matrix
        Shape (rows, columns), float64. Kept by reference and not modified.
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        self.columns = matrix.shape[1]
        largest = float(max(matrix.max(initial=0.0), -matrix.min(initial=0.0)))
        self._exponent = _exponent(largest)
        self._zero = largest == 0.0
        self._stacked: Array | None = None
        self._slices, self._beta = 2, _beta(2 * self.columns)
        if self._zero:
            return
        while (needed := self._count()) > self._slices:
            self._slices, self._beta = needed, _beta(needed * self.columns)
        if matrix.size <= _CACHED_ENTRIES:
            self._stacked = self._cut(matrix)

    def __matmul__(self, x: DD) -> DD:
        rows = self.matrix.shape[0]
        if self._zero or rows == 0 or not x.hi.any():
            return DD(np.zeros(rows), np.zeros(rows))
        orders = -(-_BITS // (self._beta + 1)) + 1
        shifted = self._cut_vector(x, orders)
        if self._stacked is not None:
            partial = self._stacked @ shifted
        else:
            partial = np.empty((rows, orders))
            for at in self._chunks():
                partial[at] = self._cut(self.matrix[at]) @ shifted
        total = DD.of(partial[:, -1])
        for order in range(orders - 2, -1, -1):
            total = total + partial[:, order]
        return total

    def _chunks(self) -> Iterator[slice]:
        rows = max(1, _CHUNK_ENTRIES // max(self.columns, 1))
        for start in range(0, self.matrix.shape[0], rows):
            yield slice(start, start + rows)

    def _count(self) -> int:
        """Return the number of slices that hold every bit of the matrix."""
        needed = 1
        for at in self._chunks():
            rest = np.array(self.matrix[at])
            for k in range(_MAX_SLICES):
                rest -= self._leading(rest, self._exponent, k)
                if not rest.any():
                    break
            needed = max(needed, k + 1)
        return needed

    def _leading(self, rest: Array, exponent: int, k: int) -> Array:
        # Adding and subtracting 1.5·2ᴷ rounds to the grid 2^(K−52).
        shift = 1.5 * 2.0 ** (exponent - k * (self._beta + 1) + 52 - self._beta)
        return np.asarray((rest + shift) - shift)

    def _cut(self, block: Array) -> Array:
        stacked = np.empty((block.shape[0], self._slices * self.columns))
        rest = np.array(block)
        for k in range(self._slices):
            leading = self._leading(rest, self._exponent, k)
            stacked[:, k * self.columns : (k + 1) * self.columns] = leading
            if k + 1 < self._slices:
                rest -= leading
        return stacked

    def _cut_vector(self, x: DD, orders: int) -> Array:
        """Column t holds, below each other, slices t, t − 1, … of x: all terms of order t."""
        shifted = np.zeros((self._slices * self.columns, orders))
        exponent = _exponent(float(np.abs(x.hi).max()))
        hi, lo = x.hi, x.lo
        for t in range(orders):
            leading = self._leading(hi, exponent, t)
            for k in range(min(self._slices, orders - t)):
                shifted[k * self.columns : (k + 1) * self.columns, t + k] = leading
            hi, lo = _two_sum(hi - leading, lo)
        return shifted


def _beta(terms: int) -> int:
    return (53 - max(terms - 1, 1).bit_length()) // 2


def _exponent(largest: float) -> int:
    return int(np.frexp(largest)[1])


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _quick_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    s = a + b
    return s, b - (s - a)


def _normal(hi: Array, lo: Array) -> DD:
    return DD(*_quick_two_sum(hi, lo))


def _two_prod(a: Array, b: Array) -> tuple[Array, Array]:
    p = a * b
    a_hi, a_lo = _split(a)
    b_hi, b_lo = _split(b)
    return p, ((a_hi * b_hi - p) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


def _split(a: Array) -> tuple[Array, Array]:
    t = _SPLITTER * a
    hi = t - (t - a)
    return hi, a - hi
