"""Proximal method of multipliers: the binding rows where P is singular or rows are dependent."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpqp_bench.layers.primal_dual.blas import (
    kernel,
    piece,
)
from bpqp_bench.layers.primal_dual.memory import (
    arrays_of,
    functions_of,
    read_table,
)
from bpqp_bench.layers.primal_dual.pieces import (
    begin_with_equalities,
    binding_rows,
    copy,
    dot,
    factorize_binding,
    lower,
    onto_rows,
    reach,
    saddle_reduced,
    upper,
)
from bpqp_bench.layers.primal_dual.rules import (
    CLOSE,
    FAR,
    FIRST,
    LAST,
    MOST_CHANGES,
    PATIENCE,
    STEEP,
)


@piece
def _step_length(u: Any, to: Any, base: Any, r: Any, push: Any, weights: Any) -> float:
    """Minimize ½|u|² + baseᵀu + Σ max(r, 0)²/(2·weights) on the way from (u, r) to (to, push).

    The derivative is increasing and piecewise linear: it is followed from corner to corner (QPALM:
    Hermans, Themelis and Patrinos, Math. Program. Comput. 14 (2022), Algorithm 2).
    """
    value, slope, m = 0.0, 0.0, len(r)
    for a in range(len(u)):
        step = to[a] - u[a]
        value += step * (u[a] + base[a])
        slope += step * step
    corners = np.full(m, np.inf)
    for j in range(m):
        g = push[j] - r[j]
        if r[j] > 0.0:
            value += r[j] * g / weights[j]
            slope += g * g / weights[j]
        if r[j] * g < 0.0 or (r[j] == 0.0 and g > 0.0):
            corners[j] = -r[j] / g
    if not value < 0.0:
        return 1.0
    for j in np.argsort(corners):
        if not slope * corners[j] < -value:
            break
        g = push[j] - r[j]
        sign = 1.0 if g > 0.0 else -1.0
        value += sign * r[j] * g / weights[j]
        slope += sign * g * g / weights[j]
    return -value / slope


@kernel
def approach(  # noqa: PLR0912, PLR0915 - as `solve`
    table: int, lo: int, hi: int
) -> int:
    """Find the binding rows of instances that are not solved; returns how many it tried.

    The proximal method of multipliers (Rockafellar, Math. Oper. Res. 1 (1976)): every step solves
    the problem with ½ρ|z − zₖ|² in the metric M, where P is singular, and δ/2|y − yₖ|² in the dual,
    by Newton's method with exact line search, with the factors that are there. Newton's point
    solves it on the rows that would bind; thanks to δ, these may be more than are independent. It
    ends when they stay the same while δ falls.
    """
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    n, neq, nineq = sizes.n, sizes.neq, sizes.nineq
    m, handled = neq + nineq, 0
    x, base, t, u = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    right, short, y = np.empty(m), np.empty(m), np.empty(m)
    lam, weights, excess, push = np.empty(nineq), np.empty(nineq), np.empty(nineq), np.empty(nineq)
    for i in range(lo, hi):
        p, f = min(i, state.Q.shape[0] - 1), min(i, state.W.shape[0] - 1)
        if state.numbers[i, 0] == 1.0 or state.sound[f] == 0.0:
            continue
        handled += 1
        D, T, W, wide, L = state.D[f], state.T[i], state.W[f], state.widths[f], state.L[p]
        active, order, metric = state.active[i], state.order[i], state.metric[p]
        rho, delta = FAR if state.sound_p[p] == 2.0 else 0.0, FIRST
        q = state.q[min(i, state.q.shape[0] - 1)]
        copy(right[:neq], state.b[min(i, state.b.shape[0] - 1)])
        copy(right[neq:], state.h[min(i, state.h.shape[0] - 1)])
        begin_with_equalities(D, T, order, neq)
        active[:] = False
        x[:] = 0.0
        lam[:] = 0.0
        rest, steps = 0, 0
        while steps < MOST_CHANGES:
            for a in range(n):
                base[a] = q[a]
                if rho > 0.0:
                    base[a] -= rho * metric[a] * x[a]
            lower(L, base, n)
            for j in range(nineq):
                width = wide[neq + j]
                weights[j] = delta * width * width if width > 0.0 else 1.0
                if steps:
                    row = neq + j
                    excess[j] = dot(W[row], u) - right[row] + weights[j] * lam[j]
                    active[j] = excess[j] > 0.0
            rest += 1
            while steps < MOST_CHANGES:
                k = binding_rows(active, order, neq)
                steps += 1
                if not factorize_binding(work, D, T, order, neq, k, delta, wide):
                    steps = MOST_CHANGES
                    break
                for a in range(k):
                    row = order[a]
                    short[a] = right[row]
                    if a >= neq:
                        short[a] -= weights[row - neq] * lam[row - neq]
                for a in range(n):
                    t[a] = -base[a]
                onto_rows(W, T, order, k, short, y, t)
                same = True
                for j in range(nineq):
                    row = neq + j
                    push[j] = dot(W[row], t) - right[row] + weights[j] * lam[j]
                    same &= (push[j] > 0.0) == active[j]
                if same:
                    break
                rest, length = 0, 1.0
                if steps > 1:
                    length = _step_length(u, t, base, excess, push, weights)
                else:
                    copy(u, t)
                    copy(excess, push)
                for a in range(n):
                    u[a] += length * (t[a] - u[a])
                for j in range(nineq):
                    excess[j] += length * (push[j] - excess[j])
                    active[j] = excess[j] > 0.0
            copy(u, t)
            copy(x, u)
            upper(L, x, n)
            lam[:] = 0.0
            for a in range(neq, k):
                lam[order[a] - neq] = max(y[a], 0.0)
            if rest >= PATIENCE and delta <= LAST:
                break
            delta = max(0.1 * delta, LAST)
        state.numbers[i, 3] = steps
    return handled


@piece
def is_flat(
    L: Any, W: Any, T: Any, order: Any, k: int, metric: Any, t: Any, x: Any, y: Any, zero: Any
) -> bool:
    """Whether the objective is nearly flat along a direction that the k rows leave free.

    With the factor of P + ρM, x ← ρ(P + ρM)⁻¹Mx on these rows takes away all directions with a
    curvature over ρ, and keeps the flat ones.
    """
    n = len(metric)
    for a in range(n):
        x[a] = np.cos(a * a + 1.0) / np.sqrt(metric[a])
    first = before = reach(x, metric)
    for _ in range(3):
        for a in range(n):
            t[a] = CLOSE * metric[a] * x[a]
        lower(L, t, n)
        zero[:k] = 0.0
        saddle_reduced(L, W, T, order, k, zero, x, y, t)
        length = reach(x, metric)
        if length <= CLOSE * first:
            return False
        ratio, before = length / before, length
    return not ratio <= STEEP
