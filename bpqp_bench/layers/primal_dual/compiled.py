"""The active-set method for dense problems on the CPU, compiled by Numba.

The mathematics is that of `bpqp_bench.layers.primal_dual`. For a small problem the overhead of
calling operators one by one would be most of the time, in torch as in NumPy. Each kernel runs over
the instances lo, …, hi − 1 of a batch and holds no lock of the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpqp_bench.layers.primal_dual import together
from bpqp_bench.layers.primal_dual.blas import (
    doubles,
    integers,
    kernel,
    piece,
)
from bpqp_bench.layers.primal_dual.factors import (
    factorize_objective,
    factorize_rows,
    prepare,
)
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
    binding_rows,
    copy,
    dependent,
    dot,
    factorize_binding,
    gradient,
    judge,
    largest,
    lower,
    reach,
    reduce_rows,
    reduced_rows,
    saddle,
    saddle_reduced,
    settle,
    span,
)
from bpqp_bench.layers.primal_dual.proximal import (
    is_flat,
)
from bpqp_bench.layers.primal_dual.rules import (
    ENOUGH,
    EPS,
    FINE,
    MOST_REFINEMENTS,
    MOST_STEPS,
    RESIDUAL,
    ROUGH_ADJOINT,
    SHORT,
)

#: Numbers that the cache of one core holds.
_CACHED = 1 << 15
#: Attempts of `solve` after the first.
OTHERS, AGAIN = 1, 2


@kernel
def solve(  # noqa: PLR0912, PLR0915 - in pieces, it would pass twenty arrays back and forth
    table: int, active_tol: float, attempt: int, lo: int, hi: int
) -> int:
    """Solve instances lo, …, hi − 1 on their factorizations; returns how many are left.

    The first ``attempt`` (0) takes all; 1 takes those that `together.solve` left, and 2 those that
    are left then, from the rows of `approach`.
    """
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    q, b, h, L, C, W, widths, D = (
        *(state.q, state.b, state.h, state.L, state.C, state.W, state.widths, state.D),
    )
    T, order, z, y, active, weak, numbers = (
        *(state.T, state.order, state.z, state.y, state.active, state.weak, state.numbers),
    )
    n, neq, m = q.shape[1], b.shape[1], W.shape[1]
    nineq = m - neq
    s0, slack, wrong = np.empty(nineq), np.empty(nineq), np.empty(nineq, dtype=np.bool_)
    t, linear = np.empty(n), np.empty(n)
    reduced = reduced_rows(work, L, q, lo, hi)
    right, short = np.empty(m), np.empty(m)
    x, dx, grad = np.empty(n), np.empty(n), np.empty(n)
    dy, multipliers, own_spans, left = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    unsolved = hi - lo
    for i in range(lo, hi):
        c, f, p = min(i, C.shape[0] - 1), min(i, W.shape[0] - 1), min(i, L.shape[0] - 1)
        before, again = 0.0, attempt == AGAIN
        if attempt and numbers[i, 0] == 1.0:
            unsolved -= 1
            continue
        if again:
            before = numbers[i, 3]
        numbers[i, :] = 0.0
        y[i, :] = 0.0
        if state.sound[f] == 0.0:
            active[i, :] = False
            continue
        if state.sound_p[p] == 2.0:
            continue
        Q, Di, Ti, Wi, wide = objective_of(state, p), D[f], T[i], W[f], widths[f]
        for a in range(n):
            linear[a] = q[i if q.shape[0] > 1 else 0, a]
        base = reduced[i - lo if L.shape[0] == 1 else 0]
        if L.shape[0] > 1:
            copy(base, linear)
            lower(L[p], base, n)
        force, spans = np.sqrt(dot(base, base)), wide
        # Where P is singular, what is judged has sizes in M.
        singular, metric = state.sound_p[p] > 1.0, state.metric[p]
        if singular:
            force, spans = span(linear, metric), own_spans
            for a in range(m):
                spans[a] = span(C[c, a], metric)
        begin_with_equalities(Di, Ti, order[i], neq)
        for a in range(neq):
            right[a] = b[i if b.shape[0] > 1 else 0, a]
        for j in range(nineq):
            right[neq + j] = h[i if h.shape[0] > 1 else 0, j]
        if again:
            k, step = binding_rows(active[i], order[i], neq), 1
            good = factorize_binding(work, Di, Ti, order[i], neq, k, 0.0, wide)
        else:
            for a in range(m):
                left[a] = dot(Wi[a], base)
            reduce_rows(Di, Ti, left, neq, right, short, s0)
            if not at.start:
                for j in range(nineq):
                    active[i, j] = s0[j] < 0.0
            k, step = settle(
                work, Di, Ti, order[i], neq, s0, force, wide, active[i], dy, slack, wrong
            )
            good = k >= 0
        while good and step <= MOST_STEPS and not dependent(Ti, order[i], k, wide, short):
            # Solve on these rows to rounding.
            for a in range(k):
                short[a] = right[order[i, a]]
            for a in range(n):
                t[a] = -base[a]
            length, _ = saddle_reduced(L[p], Wi, Ti, order[i], k, short, x, multipliers, t)
            if singular:
                length = reach(x, metric)
            correction = before_it = rest = length
            for _ in range(MOST_REFINEMENTS):
                before_it = correction
                gradient(Q, x, C[c], order[i], k, multipliers, linear, grad)
                for a in range(n):
                    grad[a] = -grad[a]
                for a in range(k):
                    short[a] = right[order[i, a]] - dot(C[c, order[i, a]], x)
                correction, _ = saddle(L[p], Wi, Ti, order[i], k, grad, short, dx, dy, t)
                add_to(x, 1.0, dx)
                for a in range(k):
                    multipliers[a] += dy[a]
                if singular:
                    correction = reach(dx, metric)
                    length = max(length, correction)
                # What the next correction would be, by how this one follows the one before.
                rest = correction * min(correction / before_it, 1.0) if before_it > 0.0 else 0.0
                if correction <= ENOUGH * length and rest <= EPS * length:
                    break

            # Signs, decided again at this accuracy.
            ratio = balance(Q, x, C[c], order[i], k, multipliers, linear, grad, t)
            # Along flat directions Px vanishes, and rounding of its terms stays.
            noise = FINE * span(t, metric) if singular else 0.0
            for a in range(m):
                left[a] = right[a] - dot(C[c, a], x)
            good, primal, count = judge(
                right, left, spans, Ti, order[i], neq, k, multipliers, dy, active[i],
                (force, length, rest, noise, active_tol), y[i], weak[i], wrong,
            )  # fmt: skip
            steep, good = largest(grad), good and ratio <= RESIDUAL
            if not good:
                break
            if not count:
                if singular and is_flat(L[p], Wi, Ti, order[i], k, metric, t, dx, dy, short):
                    break
                copy(z[i], x)
                unsolved -= 1
                numbers[i, 0], numbers[i, 1], numbers[i, 2] = 1.0, primal, steep
                numbers[i, 3], numbers[i, 4] = before + step, k - neq
                break
            for j in range(nineq):
                active[i, j] ^= wrong[j]
            k, step = binding_rows(active[i], order[i], neq), step + 1
            good = factorize_binding(work, Di, Ti, order[i], neq, k, 0.0, wide)
    return unsolved


@kernel
def prepare_and_solve(table: int, active_tol: float, lo: int, hi: int) -> int:
    """Do all of a first attempt where instances share no matrix, some at a time.

    These stay in the processor's cache from one step to the next. Returns how many are left.
    """
    _, sizes = read_table(table)
    m = sizes.neq + sizes.nineq
    some = max(1, _CACHED // (2 * sizes.n * (sizes.n + m) + 2 * m * m))
    # Of these types: for literals, Numba would compile versions of their own.
    first_attempt: Any = np.int64(0)
    again: Any = np.bool_(False)
    left = 0
    for first in range(lo, hi, some):
        end = min(first + some, hi)
        prepare(table, first, end)
        factorize_objective(table, first, end)
        factorize_rows(table, again, first, end)
        left += solve(table, active_tol, first_attempt, first, end)
    return left


@kernel
def pullback(table: int, where: int, lo: int, hi: int) -> None:
    """Solve the backward QPs, and write gradients, for instances lo, …, hi − 1.

    At ``where`` lie the addresses of v (batch, n), of y = [ν̃; λ̃] (batch, m) and, after it, the
    residuals (batch,), and of ∇P, ∇q = z̃, ∇A, ∇b = −ν̃, ∇G and ∇h = −λ̃ of every instance, 0 for
    those that nobody wants (never for ∇q). The residual is that of the adjoint equations, each
    relative to its own terms; an answer that is worse than 1e-12 is refined. Instances without
    a solution get zeros.
    """
    at, sizes = read_table(table)
    places = integers(where, (8,))
    state, count, n, neq = arrays_of(at, sizes), sizes.batch, sizes.n, sizes.neq
    m = neq + sizes.nineq
    v, y = doubles(places[0], (count, n)), doubles(places[1], (count, m))
    residuals = doubles(places[1] + 8 * count * m, (count,))
    x = doubles(places[3], (count, n))
    if max(sizes.P, sizes.A, sizes.G) == 1 < hi - lo and state.sound_p[0] == 1.0:
        together.adjoint(table, v, x, y, residuals, lo, hi)
        for i in range(lo, hi):
            if not residuals[i] <= ROUGH_ADJOINT:
                _adjoint(state, at, v, x, y, residuals, i, i + 1)
    else:
        _adjoint(state, at, v, x, y, residuals, lo, hi)
    z, duals = state.z, state.y
    if places[2]:
        _outer_sums(0.5, x, z, z, x, state.numbers, doubles(places[2], (count, n, n)), lo, hi)
    if places[4]:
        out = doubles(places[4], (count, neq, n))
        _outer_sums(1.0, y[:, :neq], z, duals[:, :neq], x, state.numbers, out, lo, hi)
    if places[5]:
        _minus(y[:, :neq], doubles(places[5], (count, neq)), lo, hi)
    if places[6]:
        out = doubles(places[6], (count, sizes.nineq, n))
        _outer_sums(1.0, y[:, neq:], z, duals[:, neq:], x, state.numbers, out, lo, hi)
    if places[7]:
        _minus(y[:, neq:], doubles(places[7], (count, sizes.nineq)), lo, hi)


@piece
def _minus(y: Any, out: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        for a in range(out.shape[1]):
            out[i, a] = -y[i, a]


@piece
def _adjoint(state: Any, at: Any, v: Any, x: Any, y: Any, residuals: Any, lo: int, hi: int) -> None:
    reduced, neq = reduced_rows(functions_of(at), state.L, v, lo, hi), state.b.shape[1]
    L, C, W, widths, T = state.L, state.C, state.W, state.widths, state.T
    order, numbers = state.order, state.numbers
    n, m = v.shape[1], y.shape[1]
    t, dx, grad = np.empty(n), np.empty(n), np.empty(n)
    off, found, dy = np.zeros(m), np.empty(m), np.empty(m)
    for i in range(lo, hi):
        y[i, :] = 0.0
        x[i, :] = 0.0
        residuals[i] = np.inf
        if not numbers[i, 0]:
            continue
        p, c, f = min(i, L.shape[0] - 1), min(i, C.shape[0] - 1), min(i, W.shape[0] - 1)
        Q, k = objective_of(state, p), neq + int(numbers[i, 4])
        if L.shape[0] > 1:
            copy(t, v[i])
            lower(L[p], t, n)
        else:
            copy(t, reduced[i - lo])
        for a in range(n):
            t[a] = -t[a]
        off[:k] = 0.0
        singular, metric = state.sound_p[p] > 1.0, state.metric[p]
        length, free = saddle_reduced(L[p], W[f], T[i], order[i], k, off, x[i], found, t)
        length = reach(x[i], metric) if singular else length
        free = span(v[i], metric) if singular else free
        # Where rows hold x at zero, the scale is what it would be without them.
        scale = max(length, SHORT * free)
        for attempt in range(MOST_REFINEMENTS + 1):
            residual = balance(Q, x[i], C[c], order[i], k, found, v[i], grad, t)
            for a in range(k):
                off[a] = -dot(C[c, order[i, a]], x[i])
                if scale > 0.0:
                    row = order[i, a]
                    width = span(C[c, row], metric) if singular else widths[f, row]
                    residual = max(residual, abs(off[a]) / (width * scale))
            residuals[i] = residual
            if residual <= ROUGH_ADJOINT or attempt == MOST_REFINEMENTS:
                break
            for a in range(n):
                grad[a] = -grad[a]
            saddle(L[p], W[f], T[i], order[i], k, grad, off, dx, dy, t)
            add_to(x[i], 1.0, dx)
            for a in range(k):
                found[a] += dy[a]
        for a in range(k):
            y[i, order[i, a]] = found[a]


@piece
def _outer_sums(
    scale: float, u: Any, v: Any, w: Any, s: Any, numbers: Any, out: Any, lo: int, hi: int
) -> None:
    """Write scale·(uvᵀ + wsᵀ) for every instance into ``out`` (batch, rows, n)."""
    for i in range(lo, hi):
        if numbers[i, 0] == 0.0:
            out[i] = 0.0
            continue
        for a in range(out.shape[1]):
            first, second = scale * u[i, a], scale * w[i, a]
            for j in range(out.shape[2]):
                out[i, a, j] = first * v[i, j] + second * s[i, j]
