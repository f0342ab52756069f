"""The active-set method for dense problems on the CPU, one or a batch, by compiled kernels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpqp_bench.layers.primal_dual import compiled
from bpqp_bench.layers.primal_dual.blas import addresses, one_thread
from bpqp_bench.layers.primal_dual.rules import Summary, Three

__all__ = ["Point", "solve"]

Array = NDArray[np.float64]

#: Matrices up to this order gain nothing from a second thread in BLAS.
_SMALL = 256
#: Multiplications for which starting a thread pays.
_WORTH_A_THREAD = 2_000_000
#: Numbers from which on a buffer comes from the system, and the most that are kept for reuse.
_PAGED, _KEPT = 1 << 14, 1 << 25
_COLD = np.zeros((0, 0), dtype=np.bool_)


class _Buffers:
    """Memory of factors that nobody needs any more, for the next call of the same size.

    Fresh memory costs more than the arithmetic: the system hands it out page by page, at the first
    touch, and takes it back as soon as it is freed.
    """

    def __init__(self) -> None:
        self._free: list[Array] = []
        # Reentrant, since a garbage collection may come at any moment and give a buffer.
        self._lock = threading.RLock()

    def take(self, size: int) -> Array:
        """Return room for ``size`` numbers."""
        with self._lock:
            for k, buffer in enumerate(self._free):
                if buffer.size == size:
                    return self._free.pop(k)
        return np.empty(size)

    def give(self, buffer: Array) -> None:
        """Keep a buffer, and drop the oldest ones where that is more than the limit."""
        if buffer.size < _PAGED:
            return
        with self._lock:
            self._free.append(buffer)
            while sum(kept.size for kept in self._free) > _KEPT:
                self._free.pop(0)


_BUFFERS = _Buffers()


@dataclass(frozen=True, eq=False, slots=True)
class Point:
    """Solutions of a batch, as `batched.BatchPoint`, with their factorizations."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    active: Tensor
    state: compiled.State
    threads: int
    buffer: Array

    def __del__(self) -> None:
        """Leave the memory of the factors to the next call."""
        _BUFFERS.give(self.buffer)

    @property
    def left(self) -> list[int]:
        """Instances that are not solved."""
        found: list[int] = np.flatnonzero(self.state.numbers[:, 0] == 0.0).tolist()
        return found

    @property
    def summary(self) -> Summary:
        """Facts about each instance; holds no factorization."""
        return partial(_summary, self.state.numbers, self.state.weak)

    def adjoint(self, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Array]:
        """Solve the backward QPs for v (batch, n): z̃, ν̃, λ̃ and the relative residuals (batch,)."""
        v, state = _array(upstream, 2), self.state
        x, y, residuals = np.empty(v.shape), np.empty(state.y.shape), np.empty(len(v))
        if self.threads == 1:
            compiled.adjoint(state, v, x, y, residuals, 0, len(v))
        else:
            _share(partial(compiled.adjoint, state, v, x, y, residuals), len(v), self.threads)
        neq, duals = state.b.shape[1], torch.from_numpy(y)
        return torch.from_numpy(x), duals[:, :neq], duals[:, neq:], residuals

    def outer_sums(
        self, at: Three, adjoint: Three, wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """∇P, ∇A and ∇G of every instance, (batch, rows, n), where ``wanted``."""
        (z, nu, lam), (x, nu_adjoint, lam_adjoint) = at, adjoint
        found: list[Tensor | None] = []
        triples = ((0.5, x, z), (1.0, nu_adjoint, nu), (1.0, lam_adjoint, lam))
        for (scale, u, w), want in zip(triples, wanted, strict=True):
            if not want:
                found.append(None)
                continue
            arrays = u.numpy(), z.numpy(), w.numpy(), x.numpy()
            out = np.empty((len(u), u.shape[1], z.shape[1]))
            if self.threads == 1:
                compiled.outer_sums(scale, *arrays, out, 0, len(u))
            else:
                _share(partial(compiled.outer_sums, scale, *arrays, out), len(u), self.threads)
            found.append(torch.from_numpy(out))
        return found


def _summary(numbers: Array, weak: NDArray[np.bool_]) -> list[tuple[float, ...]]:
    return [
        (int(row[3]), row[1], row[2], int(row[4]), int(mask.sum()))
        for row, mask in zip(numbers.tolist(), weak, strict=True)
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
    """Solve a batch; instances where the plain method does not end well are not ``verified``.

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
    data = _array(P, 3), _array(q, 2), _array(A, 3), _array(b, 2), _array(G, 3), _array(h, 2)
    sizes = [len(part) for part in data]
    count, own = max(sizes) if min(sizes) else 0, max(sizes[0], sizes[2], sizes[4])
    n, neq, m = q.shape[-1], b.shape[-1], b.shape[-1] + h.shape[-1]
    given = _COLD if start is None else start.contiguous().numpy()
    work = count * (n * n + m * m) + own * n * n * (n + m)
    threads = min(torch.get_num_threads(), count, 1 + work // _WORTH_A_THREAD)
    rows = max(len(data[2]), len(data[4]))
    buffer = _BUFFERS.take(compiled.room(count, own, len(data[0]), rows, n, m))
    with one_thread() if n <= _SMALL or threads > 1 else nullcontext():
        if threads == 1:
            state = compiled.everything(addresses(), data, given, active_tol, count, buffer)
        else:
            state = _in_threads(data, given, active_tol, count, buffer, threads)
    y = torch.from_numpy(state.y)
    z, active = torch.from_numpy(state.z), torch.from_numpy(state.active)
    return Point(z, y[:, :neq], y[:, neq:], active, state, threads, buffer)


def _array(part: Tensor, ndim: int) -> Array:
    """View of a tensor as a C-contiguous array with a first dimension for the batch."""
    array: Array = (part.resolve_neg() if part.is_neg() else part).numpy()
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array if array.ndim == ndim else array[None]


def _in_threads(
    data: tuple[Array, ...],
    start: NDArray[np.bool_],
    active_tol: float,
    count: int,
    buffer: Array,
    threads: int,
) -> compiled.State:
    functions = addresses()
    state: compiled.State = compiled.allocate(data, start, count, buffer)

    factorize_rows = partial(compiled.factorize_rows, functions, state)
    instances = partial(compiled.solve, functions, state, active_tol, len(start) > 0)
    _share(partial(compiled.factorize_objective, functions, state), len(state.L), threads)
    _share(factorize_rows, len(state.W), threads)
    _share(instances, count, threads)
    return state


def _share(run: Callable[[int, int], None], count: int, threads: int) -> None:
    """Call run(lo, hi) so that 0, …, count − 1 are covered, in some threads."""
    threads = min(threads, count)
    if threads <= 1:
        run(0, count)
        return
    ends = [count * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, *span) for span in pairwise(ends)]:
            done.result()
