"""The active-set method for dense problems on the CPU, one or a batch, by compiled kernels.

Torch takes 2 to 4 µs to make a tensor or a view, and the kernel 15 µs for a small problem: results
lie in one piece of memory, and views of it are made when somebody asks.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bpqp_bench.layers.primal_dual import compiled, factors, proximal, together
from bpqp_bench.layers.primal_dual.blas import TINY, addresses, one_thread
from bpqp_bench.layers.primal_dual.memory import Sizes, results, room

#: Matrices up to this order gain nothing from a second thread in BLAS.
_SMALL = 256
#: Multiplications for which starting a thread pays.
_WORTH_A_THREAD = 2_000_000
#: Parts that a thread's share is cut into, so that a thread that is held up leaves some to others.
_PIECES = 4
_FREE = nullcontext()
#: Numbers from which on a buffer comes from the system, and the most that are kept for reuse.
_PAGED, _KEPT = 1 << 14, 1 << 25


class _Buffers:
    """Memory of factors that nobody needs any more, for the next call of the same size.

    Fresh memory costs more than the arithmetic: the system hands it out page by page, at the first
    touch, and takes it back as soon as it is freed.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        # Reentrant, since a garbage collection may come at any moment and give a buffer.
        self._lock = threading.RLock()

    def take(self, size: int) -> Tensor:
        """Return room for ``size`` numbers."""
        with self._lock:
            for k, buffer in enumerate(self._free):
                if buffer.shape[0] == size:
                    return self._free.pop(k)
        return torch.empty(size, dtype=torch.float64)

    def give(self, buffer: Tensor) -> None:
        """Keep a buffer, and drop the oldest ones where that is more than the limit."""
        with self._lock:
            self._free.append(buffer)
            while sum(kept.shape[0] for kept in self._free) > _KEPT:
                self._free.pop(0)


_BUFFERS = _Buffers()


class _Plan(NamedTuple):
    """What follows from shapes: sizes, numbers that results and factors take, and the work."""

    sizes: Sizes
    results: int
    room: int
    work: int

    def threads(self) -> int:
        """Threads that are worth it, as many as torch uses at most."""
        worth = 1 + self.work // _WORTH_A_THREAD
        return min(torch.get_num_threads(), self.sizes.batch, worth) or 1


@lru_cache(maxsize=1024)
def _plan(*shapes: torch.Size) -> _Plan:
    numbers = [
        shape[0] if len(shape) > ndim else 1
        for shape, ndim in zip(shapes, (2, 1, 2, 1, 2, 1), strict=True)
    ]
    n, neq, nineq = (shapes[k][-1] for k in (1, 3, 5))
    count, m = max(numbers) if min(numbers) else 0, neq + nineq
    sizes = Sizes(count, n, neq, nineq, *numbers)
    own = max(sizes.P, sizes.A, sizes.G)
    work = count * (n * n + m * m) + own * n * n * (n + m)
    return _Plan(sizes, results(sizes), room(sizes), work)


class Found:
    """Results of a batch, as views of one piece of memory; see `rules.Found`."""

    __slots__ = ("_memory", "_sizes")

    def __init__(self, memory: Tensor, sizes: Sizes) -> None:
        self._memory, self._sizes = memory, sizes

    def _part(self, begin: int, columns: int) -> Tensor:
        count = self._sizes.batch
        return self._memory[count * begin : count * (begin + columns)].view(count, columns)

    def _mask(self, which: int) -> Tensor:
        sizes = self._sizes
        size = sizes.batch * sizes.nineq
        begin = sizes.batch * (sizes.n + sizes.neq + sizes.nineq + 5)
        masks = self._memory[begin:].view(torch.bool)[which * size : (which + 1) * size]
        return masks.view(sizes.batch, sizes.nineq)

    @property
    def z(self) -> Tensor:
        """Solutions (batch, n)."""
        return self._part(0, self._sizes.n)

    def solution(self, flat: bool) -> Tensor:
        """Solutions in memory of their own, without the batch dimension where ``flat``."""
        count, n = self._sizes.batch, self._sizes.n
        z = self._memory.new_empty(n) if flat else self._memory.new_empty(count, n)
        # A view and its copy would take five times as long.
        ctypes.memmove(z.data_ptr(), self._memory.data_ptr(), 8 * count * n)
        return z

    @property
    def duals(self) -> Tensor:
        """Multipliers [ν; λ], (batch, neq + nineq)."""
        return self._part(self._sizes.n, self._sizes.neq + self._sizes.nineq)

    @property
    def active(self) -> Tensor:
        """Mask (batch, nineq) of the rows that bind."""
        return self._mask(0)

    @property
    def weak(self) -> Tensor:
        """Mask (batch, nineq) of the rows with neither slack nor multiplier."""
        return self._mask(1)

    @property
    def left(self) -> list[int]:
        """Instances that are not solved."""
        return [i for i, row in enumerate(self._numbers()) if row[0] == 0.0]

    def summary(self) -> list[tuple[float, ...]]:
        """Facts about each instance, see `rules.Found`."""
        return [
            (int(row[3]), row[1], row[2], int(row[4]), number)
            for row, number in zip(self._numbers(), self.weak.sum(-1).tolist(), strict=True)
        ]

    def _numbers(self) -> list[list[float]]:
        numbers: list[list[float]] = self._part(
            self._sizes.n + self._sizes.neq + self._sizes.nineq, 5
        ).tolist()
        return numbers


class Point:
    """Solutions of a batch with their factorizations, see `rules.Point`."""

    __slots__ = ("_buffer", "_data", "_sizes", "_table", "_threads", "found", "left")

    def __init__(self, data: Sequence[Tensor], plan: _Plan, start: Tensor | None) -> None:
        sizes, self._threads = plan.sizes, plan.threads()
        self._sizes, self._data = sizes, (data, start)  # addresses are good while these are there
        self._buffer: Tensor | None = None
        if plan.room < _PAGED:  # behind the results
            memory = torch.empty(plan.results + plan.room, dtype=torch.float64)
            place = memory.data_ptr()
            buffer = place + 8 * plan.results
        else:
            memory = torch.empty(plan.results, dtype=torch.float64)
            self._buffer = _BUFFERS.take(plan.room)
            place, buffer = memory.data_ptr(), self._buffer.data_ptr()
        self.found = Found(memory, sizes)
        self.left: list[int] = []
        P, q, A, b, G, h = [part.data_ptr() for part in data]
        begin = 0 if start is None else start.data_ptr()
        self._table = array("q", (*addresses(), P, q, A, b, G, h, begin, buffer, place, *sizes))

    def __del__(self) -> None:
        """Leave the memory of the factors to the next call."""
        if self._buffer is not None:
            _BUFFERS.give(self._buffer)

    def run(self, active_tol: float) -> None:
        """Solve; ``left`` has the instances that are not solved."""
        table, sizes, threads = self._table.buffer_info()[0], self._sizes, self._threads
        count, own = sizes.batch, max(sizes.P, sizes.A, sizes.G)
        with _blas(sizes, threads):
            if sizes.P == own == count:
                left = _share(compiled.prepare_and_solve, (table, active_tol), count, threads)
            else:
                factors.prepare(table, 0, max(count, own))
                _share(factors.factorize_objective, (table,), sizes.P, threads)
                _share(factors.factorize_rows, (table, False), own, threads)
                left, attempt = count, 0
                if own == 1 < count:
                    left = _share(together.solve, (table, active_tol), count, threads)
                    attempt = compiled.OTHERS
                if left:
                    left = _share(compiled.solve, (table, active_tol, attempt), count, threads)
            if left and _share(proximal.approach, (table,), count, threads):
                _share(factors.firm_objective, (table,), sizes.P, threads)
                _share(factors.factorize_rows, (table, True), own, threads)
                left = _share(compiled.solve, (table, active_tol, compiled.AGAIN), count, threads)
        self.left = self.found.left if left else []

    def pullback(
        self, upstream: Tensor, wanted: Sequence[bool], flat: bool
    ) -> tuple[list[Tensor | None], Tensor]:
        """Solve the backward QPs, see `rules.Point`."""
        sizes = self._sizes
        count, n, neq, nineq, *_ = sizes
        v = upstream.resolve_neg().contiguous()
        # Takes half the time of torch.empty, and less with numbers than with a tuple of them.
        empty = v.new_empty
        lead = () if flat else (count,)
        found: list[Tensor | None] = [
            empty(*lead, n, n) if wanted[0] else None,
            empty(*lead, n),
            empty(*lead, neq, n) if wanted[2] else None,
            empty(*lead, neq) if wanted[3] else None,
            empty(*lead, nineq, n) if wanted[4] else None,
            empty(*lead, nineq) if wanted[5] else None,
        ]
        adjoint = empty(count * (neq + nineq + 1))
        places = array(
            "q",
            (
                *(v.data_ptr(), adjoint.data_ptr()),
                *[0 if part is None else part.data_ptr() for part in found],
            ),
        )
        where = self._table.buffer_info()[0], places.buffer_info()[0]
        # Only a batch that shares P takes BLAS here.
        with _blas(sizes, self._threads) if sizes.P == 1 < count else _FREE:
            _share(compiled.pullback, where, count, self._threads)
        return found, adjoint


def solve(
    P: Tensor,
    q: Tensor,
    A: Tensor,
    b: Tensor,
    G: Tensor,
    h: Tensor,
    start: Tensor | None = None,
    active_tol: float = 0.0,
) -> Point:
    """Solve a batch; instances where the plain method does not end well are ``left``.

    Batches whose work is worth it are shared out to as many threads as torch uses.

    Parameters
    ----------
    P, A, G
        (n, n), (neq, n), (nineq, n), float64, with a batch dimension or shared. Only the symmetric
        part of P counts.
    q, b, h
        (n,), (neq,), (nineq,), likewise.
    start
        Masks (batch, nineq) of the rows that are thought to bind.
    active_tol
        Relative slack and multiplier of a weakly active row, 0 for the method's own.
    """
    data = [part if part.is_contiguous() else part.contiguous() for part in (P, q, A, b, G, h)]
    plan = _plan(P.shape, q.shape, A.shape, b.shape, G.shape, h.shape)
    point = Point(data, plan, None if start is None else start.contiguous())
    point.run(active_tol)
    return point


def _blas(sizes: Sizes, threads: int) -> AbstractContextManager[None]:
    """Hold BLAS to one thread where it is called from several, or for small matrices."""
    n = sizes.n
    none = n <= TINY and sizes.neq + sizes.nineq <= TINY  # plain loops in its place
    return one_thread() if not none and (n <= _SMALL or threads > 1) else _FREE


def _share(run: Callable[..., int | None], given: tuple[Any, ...], count: int, threads: int) -> int:
    """Call run(*given, lo, hi) so that 0, …, count − 1 are covered, in some threads.

    Returns the sum of what the calls return.
    """
    threads = min(threads, count)
    if threads <= 1:
        return run(*given, 0, count) or 0
    pieces = min(count, _PIECES * threads)
    spans = pairwise([count * k // pieces for k in range(pieces + 1)])

    def work() -> int:
        return sum(run(*given, lo, hi) or 0 for lo, hi in spans)

    helpers = _helpers(threads - 1, os.getpid())
    others = [helpers.submit(work) for _ in range(threads - 1)]
    return work() + sum(other.result() for other in others)


@cache
def _helpers(count: int, process: int) -> ThreadPoolExecutor:
    """Threads beside the caller's, for good: each begins with memory of its own, page by page.

    A process that was forked has none of its parent's.
    """
    del process
    return ThreadPoolExecutor(count, thread_name_prefix="bpqp")
