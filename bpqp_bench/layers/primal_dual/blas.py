"""BLAS and LAPACK inside compiled kernels, and how many threads they take.

SciPy publishes the addresses of its BLAS and LAPACK functions (`scipy.linalg.cython_blas`). They
are handed to the kernels as numbers, so that Numba can keep compiled kernels on disk. Matrices that
are small enough take plain loops, which need no thread limit either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.core.extending import intrinsic
from numba.extending import get_cython_function_address
from threadpoolctl import ThreadpoolController

#: Numba may reorder sums, to use vector instructions; NaN and infinity stay what they are.
_FAST = {"reassoc", "contract"}
#: Matrices up to this order take plain loops.
TINY = 32

_F = TypeVar("_F", bound=Callable[..., object])
# Numba finds the types of arguments by itself: Any stands for arrays and tuples in all signatures.
#: What Python calls, and what only kernels call: to take arrays from Python takes long to compile.
kernel = njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
piece: Callable[[_F], _F] = njit(  # type: ignore[call-overload] # its stub lacks the last two
    cache=True,
    nogil=True,
    fastmath=_FAST,
    error_model="numpy",
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)


@cache
def addresses() -> tuple[int, int, int, int]:
    """Addresses of dpotrf, dtrsm, dsyrk and dgemm."""
    lapack, blas = "scipy.linalg.cython_lapack", "scipy.linalg.cython_blas"
    potrf, trsm, syrk, gemm = (
        int(get_cython_function_address(*where))
        for where in ((lapack, "dpotrf"), (blas, "dtrsm"), (blas, "dsyrk"), (blas, "dgemm"))
    )
    return potrf, trsm, syrk, gemm


@intrinsic
def _fortran(typing: Any, address: Any, pointers: Any) -> Any:
    """Call the Fortran function at an address with pointers to its arguments."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number = len(signature.args[1])
        pointer = ir.PointerType(ir.IntType(8))
        given = [
            builder.inttoptr(builder.extract_value(values[1], k), pointer) for k in range(number)
        ]
        kind = ir.FunctionType(ir.VoidType(), [pointer] * number)
        builder.call(builder.inttoptr(values[0], ir.PointerType(kind)), given)
        return context.get_dummy_value()

    return types.void(address, pointers), generate


@intrinsic
def _at(typing: Any, address: Any) -> Any:
    """Turn an address into a pointer."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        del context, signature
        return builder.inttoptr(values[0], ir.PointerType(ir.IntType(8)))

    return types.voidptr(address), generate


# Their types speak of the compiler's context, which callers do not pass.
_call: Any = _fortran
_pointer: Any = _at


@piece
def doubles(address: int, shape: Any) -> Any:
    """View memory as an array of float64."""
    return carray(_pointer(address), shape, dtype=np.float64)


@piece
def integers(address: int, shape: Any) -> Any:
    """View memory as an array of int64."""
    return carray(_pointer(address), shape, dtype=np.int64)


@piece
def masks(address: int, shape: Any) -> Any:
    """View memory as an array of bool."""
    return carray(_pointer(address), shape, dtype=np.bool_)


@piece
def address_of(array: Any) -> Any:
    """Address of an array; signed, since Numba makes a float of signed and unsigned."""
    return np.int64(array.ctypes.data)


@piece
def _entry(M: Any, row: int, column: int) -> Any:
    """Address of an entry of a matrix."""
    return address_of(M) + 8 * (row * M.shape[1] + column)


@piece
def workspace(functions: Any) -> Any:
    """Room for the arguments that Fortran takes by reference; the caller keeps it alive."""
    letters = np.array([76, 85, 84, 78], dtype=np.uint8)  # L, U, T, N
    return functions, np.empty(6, dtype=np.int32), letters, np.array([1.0, -1.0, 0.0])


# Matrices are row-major here and column-major there: our lower triangle is LAPACK's upper one.


@piece
def cholesky(work: Any, M: Any, o: int, n: int) -> bool:
    """Factorize the lower triangle of M[o : o + n, o : o + n]; False if not positive definite."""
    if n <= TINY:
        for i in range(o, o + n):
            for j in range(o, i + 1):
                value = M[i, j]
                for k in range(o, j):
                    value -= M[i, k] * M[j, k]
                if i > j:
                    M[i, j] = value / M[j, j]
                elif value > 0.0:
                    M[i, i] = np.sqrt(value)
                else:
                    return False
        return True
    functions, ints, letters, _ = work
    ints[0], ints[1], ints[2] = n, M.shape[1], 0
    i, c = address_of(ints), address_of(letters)
    _call(functions[0], (c + 1, i, _entry(M, o, o), i + 4, i + 8))
    return bool(ints[2] == 0)


@piece
def solve_lower(work: Any, L: Any, n: int, X: Any, row: int, rows: int) -> None:
    """Replace every row x of X[row : row + rows, :n] by L⁻¹x, L the top left block of order n."""
    if n <= TINY and rows <= TINY:
        for a in range(row, row + rows):
            for i in range(n):
                value = X[a, i]
                for j in range(i):
                    value -= L[i, j] * X[a, j]
                X[a, i] = value / L[i, i]
        return
    functions, ints, letters, numbers = work
    ints[0], ints[1], ints[2], ints[3] = n, rows, L.shape[1], X.shape[1]
    i, c, one = address_of(ints), address_of(letters), address_of(numbers)
    if n > 0 and rows > 0:
        _call(
            functions[1],
            (
                *(c, c + 1, c + 2, c + 3),
                *(i, i + 4, one, _entry(L, 0, 0), i + 8, _entry(X, row, 0), i + 12),
            ),
        )


@piece
def solve_rows(work: Any, L: Any, X: Any, transposed: bool) -> None:
    """Replace every row x of X by L⁻¹x, or by L⁻ᵀx."""
    functions, ints, letters, numbers = work
    ints[0], ints[1] = L.shape[0], X.shape[0]
    i, c, one = address_of(ints), address_of(letters), address_of(numbers)
    trans = c + 3 if transposed else c + 2
    _call(
        functions[1],
        (c, c + 1, trans, c + 3, i, i + 4, one, address_of(L), i, address_of(X), i),
    )


@piece
def multiply(work: Any, X: Any, M: Any, transposed: bool, out: Any, sign: int, add: bool) -> None:
    """Out ← ±XM, or ±XMᵀ where ``transposed``; added to what is there where ``add``."""
    functions, ints, letters, numbers = work
    rows, inner, columns = X.shape[0], X.shape[1], out.shape[1]
    ints[0], ints[1], ints[2], ints[3] = columns, rows, inner, M.shape[1]
    i, c, one = address_of(ints), address_of(letters), address_of(numbers)
    if columns == 0:
        return
    if inner == 0:
        if not add:
            out[:] = 0.0
        return
    trans, alpha = c + 2 if transposed else c + 3, one if sign > 0 else one + 8
    beta, into = one if add else one + 16, address_of(out)
    _call(
        functions[3],
        (
            *(trans, c + 3, i, i + 4, i + 8, alpha, address_of(M), i + 12),
            *(address_of(X), i + 8, beta, into, i),
        ),
    )


@piece
def subtract_gram(
    work: Any, X: Any, row: int, rows: int, n: int, S: Any, o: int, fresh: bool
) -> None:
    """S ← S − XXᵀ, or S ← XXᵀ where ``fresh``, in the lower triangle.

    X stands for X[row : row + rows, :n], and S for the block of that order at (o, o).
    """
    if n <= TINY and rows <= TINY:
        for a in range(rows):
            for e in range(a + 1):
                value = 0.0
                for j in range(n):
                    value += X[row + a, j] * X[row + e, j]
                S[o + a, o + e] = value if fresh else S[o + a, o + e] - value
        return
    functions, ints, letters, numbers = work
    ints[0], ints[1], ints[2], ints[3] = rows, n, X.shape[1], S.shape[1]
    i, c, one = address_of(ints), address_of(letters), address_of(numbers)
    if rows > 0:
        alpha, beta = (one, one + 16) if fresh else (one + 8, one)
        _call(
            functions[2],
            (
                *(c + 1, c + 2, i, i + 4, alpha, _entry(X, row, 0), i + 8),
                *(beta, _entry(S, o, o), i + 12),
            ),
        )


class _Limit:
    """Scipy's BLAS, held to one thread while anybody asks for it."""

    def __init__(self) -> None:
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        self._libraries = [lib for lib in found if "scipy.libs" in lib.filepath] or found
        self._lock, self._holders = threading.Lock(), 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._holders:
                self._before = [library.get_num_threads() for library in self._libraries]
                for library, threads in zip(self._libraries, self._before, strict=True):
                    if threads > 1:
                        library.set_num_threads(1)
            self._holders += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                for library, threads in zip(self._libraries, self._before, strict=True):
                    if threads > 1:
                        library.set_num_threads(threads)


@cache
def one_thread() -> _Limit:
    """Hold BLAS to one thread: with small matrices, waiting for others takes longer than work."""
    addresses()  # loads the library that is to be held
    return _Limit()
