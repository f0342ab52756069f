"""BLAS and LAPACK inside compiled kernels, and how many threads they take.

SciPy publishes the addresses of its BLAS and LAPACK functions (`scipy.linalg.cython_blas`). They
are handed to the kernels as numbers, so that Numba can keep compiled kernels on disk.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core.extending import intrinsic
from numba.extending import get_cython_function_address
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

__all__ = [
    "FAST",
    "addresses",
    "cholesky",
    "one_thread",
    "place",
    "solve_lower",
    "subtract_gram",
    "workspace",
]

#: Numba may reorder sums, to use vector instructions; NaN and infinity stay what they are.
FAST = {"reassoc", "contract"}


@cache
def addresses() -> NDArray[np.int64]:
    """Addresses of dpotrf, dtrsm and dsyrk."""
    lapack, blas = "scipy.linalg.cython_lapack", "scipy.linalg.cython_blas"
    found = [(lapack, "dpotrf"), (blas, "dtrsm"), (blas, "dsyrk")]
    return np.array([get_cython_function_address(*where) for where in found], dtype=np.int64)


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


_call: Any = _fortran  # its type speaks of the compiler's context, which callers do not pass


@njit(cache=True, nogil=True)
def place(array: Any) -> Any:
    """Address of an array; signed, since Numba makes a float of signed and unsigned."""
    return np.int64(array.ctypes.data)


@njit(cache=True, nogil=True)
def workspace(functions: Any) -> Any:
    """Room for the arguments that Fortran takes by reference; the caller keeps it alive."""
    letters = np.array([76, 85, 84, 78], dtype=np.uint8)  # L, U, T, N
    return functions, np.empty(5, dtype=np.int32), letters, np.array([1.0, -1.0, 0.0])


# Matrices are row-major here and column-major there: our lower triangle is LAPACK's upper one.


@njit(cache=True, nogil=True)
def cholesky(work: Any, at: int, n: int, stride: int) -> bool:
    """Factorize the lower triangle of a matrix in place; False if it is not positive definite."""
    functions, ints, letters, _ = work
    ints[0], ints[1], ints[2] = n, stride, 0
    i, c = place(ints), place(letters)
    if n > 0:
        _call(functions[0], (c + 1, i, at, i + 4, i + 8))
    return bool(ints[2] == 0)


@njit(cache=True, nogil=True)
def solve_lower(work: Any, L: int, n: int, stride: int, X: int, rows: int, x_stride: int) -> None:
    """X ← XL⁻ᵀ for X (rows, n): every row x becomes L⁻¹x."""
    functions, ints, letters, numbers = work
    ints[0], ints[1], ints[2], ints[3] = n, rows, stride, x_stride
    i, c, one = place(ints), place(letters), place(numbers)
    if n > 0 and rows > 0:
        _call(
            functions[1],
            (c, c + 1, c + 2, c + 3, i, i + 4, one, L, i + 8, X, i + 12),
        )


@njit(cache=True, nogil=True)
def subtract_gram(
    work: Any, X: int, rows: int, n: int, x_stride: int, S: int, stride: int, fresh: bool
) -> None:
    """S ← S − XXᵀ, or S ← XXᵀ where ``fresh``, in the lower triangle, for X (rows, n)."""
    functions, ints, letters, numbers = work
    ints[0], ints[1], ints[2], ints[3] = rows, n, x_stride, stride
    i, c, one = place(ints), place(letters), place(numbers)
    if rows > 0:
        alpha, beta = (one, one + 16) if fresh else (one + 8, one)
        _call(functions[2], (c + 1, c + 2, i, i + 4, alpha, X, i + 8, beta, S, i + 12))


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
    return _Limit()
