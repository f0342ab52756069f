"""Instances that share P, A and G: the steps of `compiled` on some instances at once.

Their products with P, L, C and W are products of matrices then, which take a third of the time of
as many products with vectors. What is left over goes one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpqp_bench.layers.primal_dual.blas import kernel, multiply, piece, solve_rows
from bpqp_bench.layers.primal_dual.memory import (
    arrays_of,
    functions_of,
    objective_of,
    read_table,
)
from bpqp_bench.layers.primal_dual.pieces import (
    add_to,
    balance,
    begin_with_equalities,
    copy,
    copy_matrix,
    dependent,
    dot,
    judge,
    largest,
    largest_ratio,
    lower,
    reduce_rows,
    settle,
    upper,
)
from bpqp_bench.layers.primal_dual.rules import (
    ENOUGH,
    EPS,
    MOST_REFINEMENTS,
    RESIDUAL,
    SHORT,
)

#: Instances at once: with these, vectors of n = 100 stay in the processor's cache.
_BLOCK = 32


@kernel
def solve(table: int, active_tol: float, lo: int, hi: int) -> int:
    """Solve instances lo, …, hi − 1 on the factorizations that they share; how many are left."""
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    state.numbers[lo:hi] = 0.0
    if state.sound_p[0] != 1.0 or state.sound[0] != 1.0:
        return hi - lo
    left = 0
    for first in range(lo, hi, _BLOCK):
        end = min(first + _BLOCK, hi)
        left += _solve_block(state, work, at.start != 0, active_tol, first, end)
    return left


@piece
def _solve_block(state: Any, work: Any, started: bool, active_tol: float, lo: int, hi: int) -> int:
    L, W, neq = state.L[0], state.W[0], state.b.shape[1]
    count, n, m = hi - lo, L.shape[0], W.shape[0]
    q, x = np.empty((count, n)), np.empty((count, n))
    right, Wt = np.empty((count, m)), np.empty((count, m))
    for e in range(count):
        i = lo + e
        copy(q[e], state.q[min(i, state.q.shape[0] - 1)])
        copy(right[e, :neq], state.b[min(i, state.b.shape[0] - 1)])
        copy(right[e, neq:], state.h[min(i, state.h.shape[0] - 1)])
        for j in range(n):
            x[e, j] = -q[e, j]
    solve_rows(work, L, x, False)
    multiply(work, x, W, True, Wt, -1, False)
    bound, force = np.empty(count, dtype=np.int64), np.empty(count)
    for e in range(count):
        force[e] = np.sqrt(dot(x[e], x[e]))
        bound[e] = _settle(state, work, lo + e, Wt[e], right[e], force[e], started)
    Y, dY, length = np.empty((count, m)), np.empty((count, m)), np.empty(count)
    _saddle(state, work, lo, bound, right, x, Y, length)
    rest = _refine(state, work, lo, bound, q, right, length, x, Y, dY)

    # Judged one by one, as those that are solved alone.
    P, C, unsolved = objective_of(state, 0), state.C[0], count
    grad, sizes, left = np.empty((count, n)), np.empty((count, n)), np.empty((count, m))
    copy_matrix(left, right)
    _gradients(work, P, C, x, Y, q, grad, sizes)
    multiply(work, x, C, True, left, -1, True)
    y, dy, wrong = np.empty(m), np.empty(m), np.empty(m - neq, dtype=np.bool_)
    for e in range(count):
        i, k = lo + e, bound[e]
        state.y[i] = 0.0
        if k < 0:
            continue
        order, numbers = state.order[i], state.numbers[i]
        for a in range(k):
            y[a], dy[a] = Y[e, order[a]], dY[e, order[a]]
        good, primal, number = judge(
            *(right[e], left[e], state.widths[0], state.T[i], order, neq, k, y, dy),
            *(state.active[i], (force[e], length[e], rest[e], 0.0, active_tol)),
            *(state.y[i], state.weak[i], wrong),
        )
        if good and not largest_ratio(grad[e], sizes[e]) <= RESIDUAL:
            good = balance(P, x[e], C, order, k, y, q[e], grad[e], sizes[e]) <= RESIDUAL
        if good and not number:
            copy(state.z[i], x[e])
            unsolved -= 1
            numbers[0], numbers[1], numbers[2], numbers[4] = 1.0, primal, largest(grad[e]), k - neq
    return unsolved


@piece
def _refine(
    state: Any, work: Any, lo: int, bound: Any, q: Any, right: Any, length: Any, x: Any, Y: Any,
    dY: Any,
) -> Any:  # fmt: skip
    """Correct x and Y to rounding, all as often as the worst needs; what would be next of each."""
    C, L, count = state.C[0], state.L[0], len(length)
    correction, before, rest = np.empty(count), np.empty(count), np.empty(count)
    copy(correction, length)
    t, sizes, left = np.empty_like(x), np.empty_like(x), np.empty_like(right)
    for _ in range(MOST_REFINEMENTS):
        _gradients(work, objective_of(state, 0), C, x, Y, q, t, sizes)
        for e in range(count):
            for j in range(t.shape[1]):
                t[e, j] = -t[e, j]
        solve_rows(work, L, t, False)
        copy_matrix(left, right)
        multiply(work, x, C, True, left, -1, True)
        copy(before, correction)
        _saddle(state, work, lo, bound, left, t, dY, correction)
        enough = True
        for e in range(count):
            add_to(x[e], 1.0, t[e])
            add_to(Y[e], 1.0, dY[e])
            # What the next correction would be, by how this one follows the one before.
            ratio = min(correction[e] / before[e], 1.0) if before[e] > 0.0 else 0.0
            rest[e] = correction[e] * ratio
            small = correction[e] <= ENOUGH * length[e] and rest[e] <= EPS * length[e]
            enough &= small or bound[e] < 0
        if enough:
            break
    return rest


@piece
def _saddle(
    state: Any, work: Any, lo: int, bound: Any, s: Any, x: Any, Y: Any, length: Any
) -> None:
    """Solve Px + Cᵀy = r, Cx = s on the binding rows of each; ``x`` comes in as L⁻¹r.

    Y gets the multipliers of all rows, zero where they do not bind, and ``length`` |Lᵀx|.
    """
    W, (count, m) = state.W[0], s.shape
    y = np.empty(m)
    multiply(work, x, W, True, Y, 1, False)
    for e in range(count):
        order, T, k = state.order[lo + e], state.T[lo + e], bound[e]
        for a in range(k):
            y[a] = Y[e, order[a]] - s[e, order[a]]
        lower(T, y, k)
        upper(T, y, k)
        Y[e] = 0.0
        for a in range(k):
            Y[e, order[a]] = y[a]
    multiply(work, Y, W, False, x, -1, True)
    for e in range(count):
        length[e] = np.sqrt(dot(x[e], x[e]))
    solve_rows(work, state.L[0], x, True)


@piece
def _settle(state: Any, work: Any, i: int, Wt: Any, right: Any, force: float, started: bool) -> int:
    """Find the rows of instance i that bind; their number, or −1 where they do not rest."""
    D, T, wide, order, active = (
        *(state.D[0], state.T[i], state.widths[0], state.order[i], state.active[i]),
    )
    m, nineq = len(right), len(active)
    neq, short, y = m - nineq, np.empty(m), np.empty(m)
    s0, slack, wrong = np.empty(nineq), np.empty(nineq), np.empty(nineq, dtype=np.bool_)
    begin_with_equalities(D, T, order, neq)
    reduce_rows(D, T, Wt, neq, right, short, s0)
    if not started:
        for j in range(nineq):
            active[j] = s0[j] < 0.0
    k, step = settle(work, D, T, order, neq, s0, force, wide, active, y, slack, wrong)
    if k < 0 or dependent(T, order, k, wide, short):
        return -1
    state.numbers[i, 3] = step
    return int(k)


@piece
def _gradients(
    work: Any, P: Any, C: Any, x: Any, Y: Any, linear: Any, out: Any, sizes: Any
) -> None:
    """Write Px + linear + Cᵀy of every row into ``out``, and the sizes of the three terms.

    |Px| is at most |P||x|: what is small against these sizes is so against those of `balance`.
    """
    rows, n = x.shape
    multiply(work, x, P, False, out, 1, False)
    multiply(work, Y, C, False, sizes, 1, False)
    for e in range(rows):
        for j in range(n):
            first, second, third = out[e, j], linear[e, j], sizes[e, j]
            out[e, j] = first + second + third
            sizes[e, j] = abs(first) + abs(second) + abs(third)


@piece
def adjoint(table: int, v: Any, x: Any, y: Any, residuals: Any, lo: int, hi: int) -> None:
    """Solve the backward QPs of instances lo, …, hi − 1; a residual over 1e-12 asks for more.

    Residuals are never smaller than those of an instance alone: see `_gradients`.
    """
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    for first in range(lo, hi, _BLOCK):
        _adjoint_block(state, work, v, x, y, residuals, first, min(first + _BLOCK, hi))


@piece
def _adjoint_block(
    state: Any, work: Any, v: Any, x: Any, y: Any, residuals: Any, lo: int, hi: int
) -> None:
    C, wide, order, numbers = state.C[0], state.widths[0], state.order, state.numbers
    count, m, given, found = hi - lo, len(wide), v[lo:hi], x[lo:hi]
    neq, bound = state.b.shape[1], np.empty(count, dtype=np.int64)
    length, free = np.empty(count), np.empty(count)
    for e in range(count):
        solved = numbers[lo + e, 0] == 1.0
        bound[e] = neq + int(numbers[lo + e, 4]) if solved else -1
        for j in range(found.shape[1]):
            found[e, j] = -given[e, j] if solved else 0.0
    solve_rows(work, state.L[0], found, False)
    for e in range(count):
        free[e] = np.sqrt(dot(found[e], found[e]))
    off = np.zeros((count, m))
    _saddle(state, work, lo, bound, off, found, y[lo:hi], length)
    grad, sizes = np.empty_like(given), np.empty_like(given)
    _gradients(work, objective_of(state, 0), C, found, y[lo:hi], given, grad, sizes)
    multiply(work, found, C, True, off, 1, False)
    for e in range(count):
        if bound[e] < 0:
            residuals[lo + e] = np.inf
            continue
        # Where rows hold x at zero, the scale is what it would be without them.
        scale, residual = max(length[e], SHORT * free[e]), largest_ratio(grad[e], sizes[e])
        for a in range(bound[e]):
            row = order[lo + e, a]
            if scale > 0.0:
                residual = max(residual, abs(off[e, row]) / (wide[row] * scale))
        residuals[lo + e] = residual
