"""The active-set method for dense problems on the CPU, one or a batch, by compiled kernels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bpqp_bench.layers.primal_dual import compiled
from bpqp_bench.layers.primal_dual.blas import TINY, addresses, one_thread
from bpqp_bench.layers.primal_dual.rules import Summary

#: Matrices up to this order gain nothing from a second thread in BLAS.
_SMALL = 256
#: Multiplications for which starting a thread pays.
_WORTH_A_THREAD = 2_000_000
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
        if size < _PAGED:
            return torch.empty(size, dtype=torch.float64)
        with self._lock:
            for k, buffer in enumerate(self._free):
                if buffer.shape[0] == size:
                    return self._free.pop(k)
        return torch.empty(size, dtype=torch.float64)

    def give(self, buffer: Tensor) -> None:
        """Keep a buffer, and drop the oldest ones where that is more than the limit."""
        if buffer.shape[0] < _PAGED:
            return
        with self._lock:
            self._free.append(buffer)
            while sum(kept.shape[0] for kept in self._free) > _KEPT:
                self._free.pop(0)


_BUFFERS = _Buffers()


class Point:
    """Solutions of a batch, as `batched.BatchPoint`, with their factorizations.

    Attributes
    ----------
    z, duals
        (batch, n) and (batch, neq + nineq), [ν; λ].
    active, weak
        Masks (batch, nineq) of the rows that bind, and of those with neither slack nor multiplier.
    """

    __slots__ = (
        *("_at", "_buffer", "_data", "_numbers", "_sizes", "_threads"),
        *("active", "duals", "weak", "z"),
    )

    def __init__(
        self, data: Sequence[Tensor], sizes: compiled.Sizes, start: Tensor | None, threads: int
    ) -> None:
        count, nineq, double = sizes.batch, sizes.nineq, torch.float64
        self._sizes, self._threads = sizes, threads
        self._data = data, start  # the addresses are good for as long as these are there
        self._buffer = _BUFFERS.take(compiled.room(sizes))
        self.z = torch.empty((count, sizes.n), dtype=double)
        self.duals = torch.empty((count, sizes.neq + nineq), dtype=double)
        self.active = torch.empty((count, nineq), dtype=torch.bool)
        self.weak = torch.empty((count, nineq), dtype=torch.bool)
        self._numbers = torch.empty((count, 5), dtype=double)
        places = (*data, self._buffer, self.z, self.duals, self.active, self.weak, self._numbers)
        P, q, A, b, G, h, *room = [part.data_ptr() for part in places]
        begin = 0 if start is None else start.data_ptr()
        self._at = compiled.Addresses(*addresses(), P, q, A, b, G, h, begin, *room)

    def __del__(self) -> None:
        """Leave the memory of the factors to the next call."""
        _BUFFERS.give(self._buffer)

    def run(self, active_tol: float) -> None:
        """Solve."""
        at, sizes, threads = self._at, self._sizes, self._threads
        if threads == 1:
            compiled.everything(at, sizes, active_tol)
            return
        own = max(sizes.P, sizes.A, sizes.G)
        compiled.prepare(at, sizes)
        _share(partial(compiled.factorize_objective, at, sizes), sizes.P, threads)
        _share(partial(compiled.factorize_rows, at, sizes), own, threads)
        _share(partial(compiled.solve, at, sizes, active_tol), sizes.batch, threads)

    @property
    def nu(self) -> Tensor:
        """Multipliers of the equalities, (batch, neq)."""
        return self.duals[:, : self._sizes.neq]

    @property
    def lam(self) -> Tensor:
        """Multipliers of the inequalities, (batch, nineq)."""
        return self.duals[:, self._sizes.neq :]

    @property
    def left(self) -> list[int]:
        """Instances that are not solved."""
        rows = self._numbers.tolist()
        return [i for i, row in enumerate(rows) if row[0] == 0.0]

    @property
    def summary(self) -> Summary:
        """Facts about each instance; holds no factorization."""
        return partial(_summary, self._numbers, self.weak)

    def pullback(
        self, upstream: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor | None]]:
        """Solve the backward QPs for v (batch, n).

        Returns z̃, [ν̃; λ̃], the relative residuals (batch,), and where ``wanted`` ∇P, ∇A and ∇G of
        every instance, (batch, rows, n).
        """
        sizes, double = self._sizes, torch.float64
        v = upstream.resolve_neg().contiguous()
        x, y = torch.empty_like(self.z), torch.empty_like(self.duals)
        residuals = torch.empty(sizes.batch, dtype=double)
        found = [
            torch.empty((sizes.batch, rows, sizes.n), dtype=double) if want else None
            for rows, want in zip((sizes.n, sizes.neq, sizes.nineq), wanted, strict=True)
        ]
        places = tuple(
            0 if part is None else part.data_ptr() for part in (v, x, y, residuals, *found)
        )
        if self._threads == 1:
            compiled.pullback(self._at, sizes, places, 0, sizes.batch)
        else:
            run = partial(compiled.pullback, self._at, sizes, places)
            _share(run, sizes.batch, self._threads)
        return x, y, residuals, found


def _summary(numbers: Tensor, weak: Tensor) -> list[tuple[float, ...]]:
    return [
        (int(row[3]), row[1], row[2], int(row[4]), number)
        for row, number in zip(numbers.tolist(), weak.sum(-1).tolist(), strict=True)
    ]


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
    data, numbers = [], []
    for part, ndim in ((P, 2), (q, 1), (A, 2), (b, 1), (G, 2), (h, 1)):
        data.append(part if part.is_contiguous() else part.contiguous())
        numbers.append(part.shape[0] if part.ndim > ndim else 1)
    n, neq, nineq = q.shape[-1], b.shape[-1], h.shape[-1]
    count = max(numbers) if min(numbers) else 0
    sizes = compiled.Sizes(count, n, neq, nineq, *numbers)
    m, own = neq + nineq, max(numbers[0], numbers[2], numbers[4])
    work = count * (n * n + m * m) + own * n * n * (n + m)
    threads = min(torch.get_num_threads(), count, 1 + work // _WORTH_A_THREAD) or 1
    point = Point(data, sizes, None if start is None else start.contiguous(), threads)
    small = n <= TINY and m <= TINY  # no BLAS then
    with one_thread() if not small and (n <= _SMALL or threads > 1) else nullcontext():
        point.run(active_tol)
    return point


def _share(run: Callable[[int, int], Any], count: int, threads: int) -> None:
    """Call run(lo, hi) so that 0, …, count − 1 are covered, in some threads."""
    threads = min(threads, count)
    if threads <= 1:
        run(0, count)
        return
    ends = [count * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, *span) for span in pairwise(ends)]:
            done.result()
