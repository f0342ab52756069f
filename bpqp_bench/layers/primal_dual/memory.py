"""The memory that the kernels on the CPU share: addresses, sizes, and arrays on it.

A call has nothing but numbers as arguments: where a ``table`` of int64 lies that holds `Addresses`
of memory, then `Sizes`. Checking an array takes longer than reading an address, and the memory is
divided in here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bpqp_bench.layers.primal_dual.blas import (
    doubles,
    integers,
    masks,
    piece,
    workspace,
)


class Addresses(NamedTuple):
    """Where the kernels find four functions of BLAS, the data, and room for what they write.

    ``start``, a mask (batch, nineq), is 0 where there is none; ``buffer`` has `room` numbers, and
    ``found`` those of `results`.
    """

    dpotrf: int
    dtrsm: int
    dsyrk: int
    dgemm: int
    P: int
    q: int
    A: int
    b: int
    G: int
    h: int
    start: int
    buffer: int
    found: int


class Sizes(NamedTuple):
    """Instances, dimensions, and how many of each argument there are: one where it is shared."""

    batch: int
    n: int
    neq: int
    nineq: int
    P: int
    q: int
    A: int
    b: int
    G: int
    h: int


class State(NamedTuple):
    """The memory as arrays; m = neq + nineq, and a first dimension of 1 is shared by the batch.

    Attributes
    ----------
    q, b, h
        (., n), (., neq), (., nineq).
    Q, where, L
        (., n, n), room for the symmetric part of P; the addresses (.,) of these parts, which is P
        itself where it is symmetric: see `objective_of`; and Cholesky factors (., n, n).
    C, W, widths
        The rows [A; G], (., m, n); W with rows Wᵢ = L⁻¹Cᵢ; and their lengths (., m).
    D
        (., m, m): the factor of the equalities' block of WWᵀ, what stands below it, and the
        dual's matrix S on the inequalities, after elimination of the equalities.
    sound_p, sound
        Whether P, and the equalities' block, are safely positive definite, 1 or 0, (.,); where P is
        singular, L is the factor of P + ρM, and ``sound_p`` is 2 for the large ρ, 3 for the small.
    metric
        The diagonal M, (., n), in the units of P; only where P is singular.
    T, order
        (batch, m, m), the factor of WWᵀ on the rows ``order`` (batch, m): the equalities, then
        those that bind.
    z, y
        Solutions (batch, n) and multipliers [ν; λ] (batch, m).
    active, weak
        Masks (batch, nineq) of the rows that bind, and of those with neither slack nor multiplier.
    numbers
        (batch, 5): whether the solution is verified, largest violation of a row, largest entry of
        the Lagrangian's gradient, factorizations on an active set, binding inequalities.
    """

    q: Any
    b: Any
    h: Any
    Q: Any
    where: Any
    L: Any
    C: Any
    W: Any
    widths: Any
    D: Any
    sound_p: Any
    sound: Any
    metric: Any
    T: Any
    order: Any
    z: Any
    y: Any
    active: Any
    weak: Any
    numbers: Any


def room(sizes: Sizes) -> int:
    """Numbers that a buffer needs."""
    count, n, m = sizes.batch, sizes.n, sizes.neq + sizes.nineq
    rows = max(sizes.A, sizes.G)
    own = max(sizes.P, rows)
    per_objective, per_own = 2 * n * n + n + 2, m * n + m * m + m + 1
    return sizes.P * per_objective + rows * m * n + own * per_own + count * (m * m + m)


def results(sizes: Sizes) -> int:
    """Numbers that the results take: z, y, ``numbers``, then the masks ``active`` and ``weak``."""
    count, nineq = sizes.batch, sizes.nineq
    return count * (sizes.n + sizes.neq + nineq + 5) + (2 * count * nineq + 7) // 8


@piece
def read_table(table: int) -> Any:
    """Read addresses and sizes."""
    t = integers(table, (23,))
    at = Addresses(
        *(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11], t[12])
    )
    return at, Sizes(t[13], t[14], t[15], t[16], t[17], t[18], t[19], t[20], t[21], t[22])


@piece
def functions_of(at: Any) -> Any:
    """Return a workspace for the functions of BLAS."""
    return workspace((at.dpotrf, at.dtrsm, at.dsyrk, at.dgemm))


@piece
def arrays_of(at: Any, sizes: Any) -> Any:
    """View the memory as arrays."""
    count, n, neq, nineq = sizes.batch, sizes.n, sizes.neq, sizes.nineq
    m, rows = neq + nineq, max(sizes.A, sizes.G)
    own = max(sizes.P, rows)
    where = integers(at.buffer, (sizes.P,))
    place = at.buffer + 8 * sizes.P
    L = doubles(place, (sizes.P, n, n))
    place += 8 * sizes.P * n * n
    Q = doubles(place, (sizes.P, n, n))
    place += 8 * sizes.P * n * n
    C = doubles(place, (rows, m, n))
    place += 8 * rows * m * n
    W = doubles(place, (own, m, n))
    place += 8 * own * m * n
    D = doubles(place, (own, m, m))
    place += 8 * own * m * m
    T = doubles(place, (count, m, m))
    place += 8 * count * m * m
    widths = doubles(place, (own, m))
    place += 8 * own * m
    order = integers(place, (count, m))
    place += 8 * count * m
    sound_p, sound = doubles(place, (sizes.P,)), doubles(place + 8 * sizes.P, (own,))
    metric = doubles(place + 8 * (sizes.P + own), (sizes.P, n))
    y = at.found + 8 * count * n
    numbers = y + 8 * count * m
    active = numbers + 8 * count * 5
    return State(
        doubles(at.q, (sizes.q, n)), doubles(at.b, (sizes.b, neq)), doubles(at.h, (sizes.h, nineq)),
        Q, where, L, C, W, widths, D, sound_p, sound, metric, T, order,
        doubles(at.found, (count, n)), doubles(y, (count, m)),
        masks(active, (count, nineq)), masks(active + count * nineq, (count, nineq)),
        doubles(numbers, (count, 5)),
    )  # fmt: skip


@piece
def objective_of(state: Any, i: int) -> Any:
    """Symmetric part of the matrix P with number i."""
    n = state.Q.shape[1]
    return doubles(state.where[i], (n, n))
