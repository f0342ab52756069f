"""The active-set method for dense problems on the CPU, compiled by Numba.

The mathematics is that of `bpqp_bench.layers.primal_dual`. For a small problem the overhead of
calling operators one by one would be most of the time, in torch as in NumPy. Each kernel runs over
the instances lo, …, hi − 1 of a batch and holds no lock of the interpreter.

Where the first dimension of an array is 1, all instances share it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from bpqp_bench.layers.primal_dual.blas import (
    FAST,
    cholesky,
    place,
    solve_lower,
    subtract_gram,
    workspace,
)
from bpqp_bench.layers.primal_dual.rules import (
    ENOUGH,
    EPS,
    FINE,
    MOST_REFINEMENTS,
    MOST_STEPS,
    PATIENCE,
    PIVOT,
    PLAIN_STEPS,
    RESIDUAL,
    ROUGH,
    SHORT,
    WEAK,
)

__all__ = [
    "State",
    "adjoint",
    "allocate",
    "everything",
    "factorize_objective",
    "factorize_rows",
    "outer_sums",
    "room",
    "solve",
]


class State(NamedTuple):
    """What the kernels read and write; m = neq + nineq.

    Attributes
    ----------
    q, b, h
        (., n), (., neq), (., nineq).
    Q, L
        (., n, n), the symmetric part of P, and its Cholesky factor.
    C, W, widths
        The rows [A; G], (., m, n); W with rows Wᵢ = L⁻¹Cᵢ; and their lengths (., m).
    D
        (., m, m): the factor of the equalities' block of WWᵀ, what stands below it, and the
        dual's matrix S on the inequalities, after elimination of the equalities.
    sound_p, sound
        Whether P, and the equalities' block, are safely positive definite, (.,).
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
    L: Any
    C: Any
    W: Any
    widths: Any
    D: Any
    sound_p: Any
    sound: Any
    T: Any
    order: Any
    z: Any
    y: Any
    active: Any
    weak: Any
    numbers: Any


# Numba's decorators are untyped, and its functions know their types by themselves.
_compiled = njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")


@_compiled
def _lower(L: Any, x: Any, n: int) -> None:
    """X ← L⁻¹x."""
    for i in range(n):
        value = x[i]
        for j in range(i):
            value -= L[i, j] * x[j]
        x[i] = value / L[i, i]


@_compiled
def _upper(L: Any, x: Any, n: int) -> None:
    """X ← L⁻ᵀx."""
    for i in range(n - 1, -1, -1):
        value = x[i] / L[i, i]
        x[i] = value
        for j in range(i):
            x[j] -= L[i, j] * value


@_compiled
def _dot(x: Any, y: Any) -> float:
    value = 0.0
    for j in range(x.shape[0]):
        value += x[j] * y[j]
    return value


@_compiled
def _add(x: Any, factor: float, y: Any) -> None:
    """X ← x + factor·y."""
    for j in range(x.shape[0]):
        x[j] += factor * y[j]


@_compiled
def _largest(x: Any) -> float:
    """Largest absolute value; NaN if any is."""
    value = 0.0
    for j in range(x.shape[0]):
        size = abs(x[j])
        if not size <= value:
            value = size
        if np.isnan(size):
            break
    return value


@_compiled
def _symmetric(P: Any) -> bool:
    """Whether every matrix is its own transpose, to the last bit; in blocks that stay in cache."""
    n, block = P.shape[1], 32
    for i in range(P.shape[0]):
        for top in range(0, n, block):
            for left in range(0, top + 1, block):
                for a in range(top, min(top + block, n)):
                    for c in range(left, min(left + block, a)):
                        if P[i, a, c] != P[i, c, a]:
                            return False
    return True


def room(count: int, own: int, objectives: int, rows: int, n: int, m: int) -> int:
    """Numbers that `allocate` needs: L, C, W, D and T."""
    return objectives * n * n + (rows + own) * m * n + (own + count) * m * m


@_compiled
def allocate(data: Any, start: Any, count: int, buffer: Any) -> Any:
    """Divide the buffer, of `room` numbers; ``start`` is (batch, nineq), or (0, 0) for none."""
    P, q, A, b, G, h = data
    n, neq, nineq = q.shape[1], b.shape[1], h.shape[1]
    m, objectives, rows = neq + nineq, P.shape[0], max(A.shape[0], G.shape[0])
    own = max(objectives, rows)
    Q = P
    if not _symmetric(P):
        Q = np.empty(P.shape)
        for i in range(objectives):
            Q[i] = 0.5 * (P[i] + P[i].T)
    ends = np.cumsum(
        np.array([objectives * n * n, rows * m * n, own * m * n, own * m * m, count * m * m])
    )
    C = buffer[ends[0] : ends[1]].reshape((rows, m, n))
    for i in range(rows):
        C[i, :neq] = A[min(i, A.shape[0] - 1)]
        C[i, neq:] = G[min(i, G.shape[0] - 1)]
    active = np.zeros((count, nineq), dtype=np.bool_)
    if start.shape[0]:
        active[:] = start
    return State(
        q, b, h, Q, buffer[: ends[0]].reshape((objectives, n, n)), C,
        buffer[ends[1] : ends[2]].reshape((own, m, n)), np.empty((own, m)),
        buffer[ends[2] : ends[3]].reshape((own, m, m)),
        np.ones(objectives, dtype=np.bool_), np.ones(own, dtype=np.bool_),
        buffer[ends[3] : ends[4]].reshape((count, m, m)), np.empty((count, m), dtype=np.int32),
        np.empty((count, n)), np.zeros((count, m)),
        active, np.zeros((count, nineq), dtype=np.bool_), np.zeros((count, 5)),
    )  # fmt: skip


@_compiled
def factorize_objective(functions: Any, state: Any, lo: int, hi: int) -> None:
    """Q = LLᵀ; ``sound_p`` says whether it is safely positive definite."""
    work, Q, L = workspace(functions), state.Q, state.L
    n = L.shape[1]
    for i in range(lo, hi):
        L[i] = Q[i]
        good = cholesky(work, place(L[i]), n, n)
        for a in range(n):
            good &= L[i, a, a] * L[i, a, a] > PIVOT * Q[i, a, a]
        state.sound_p[i] = good


@_compiled
def factorize_rows(functions: Any, state: Any, lo: int, hi: int) -> None:
    """W, D and ``widths``; ``sound`` becomes False where the equalities are nearly dependent."""
    work, L, C, W, D = workspace(functions), state.L, state.C, state.W, state.D
    m, n, neq = W.shape[1], W.shape[2], state.b.shape[1]
    for i in range(lo, hi):
        p, c = min(i, L.shape[0] - 1), min(i, C.shape[0] - 1)
        if not state.sound_p[p]:
            continue
        W[i] = C[c]
        rows, block = place(W[i]), place(D[i])
        solve_lower(work, place(L[p]), n, n, rows, m, n)
        subtract_gram(work, rows, m, n, n, block, m, True)
        for a in range(m):
            state.widths[i, a] = np.sqrt(D[i, a, a])
        good = cholesky(work, block, neq, m)
        for a in range(neq):
            good &= D[i, a, a] > np.sqrt(PIVOT) * state.widths[i, a]
        if not good:
            state.sound[i] = False
            continue
        below = block + 8 * neq * m
        solve_lower(work, block, neq, m, below, m - neq, m)
        subtract_gram(work, below, m - neq, neq, m, below + 8 * neq, m, False)
        for a in range(neq, m):
            for e in range(neq, a):
                D[i, e, a] = D[i, a, e]


@_compiled
def _saddle(
    L: Any, W: Any, T: Any, order: Any, k: int, r: Any, s: Any, x: Any, y: Any, t: Any
) -> Any:
    """Solve Px + Cᵀy = r, Cx = s on the k rows of ``order``.

    Returns the length of Lᵀx, and what it would be without rows; x, y and t are overwritten.
    """
    n = x.shape[0]
    t[:] = r
    _lower(L, t, n)
    free = np.sqrt(_dot(t, t))
    for a in range(k):
        y[a] = _dot(W[order[a]], t) - s[a]
    _lower(T, y, k)
    _upper(T, y, k)
    for a in range(k):
        _add(t, -y[a], W[order[a]])
    length = np.sqrt(_dot(t, t))
    x[:] = t
    _upper(L, x, n)
    return length, free


@_compiled
def _gradient(Q: Any, x: Any, C: Any, order: Any, k: int, y: Any, linear: Any, out: Any) -> float:
    """Out ← Qx + linear + Cᵀy; returns the largest entry of Qx."""
    size = 0.0
    for a in range(x.shape[0]):
        value = _dot(Q[a], x)
        size = max(size, abs(value))
        out[a] = value + linear[a]
    for a in range(k):
        _add(out, y[a], C[order[a]])
    return size


@_compiled
def _factorize(work: Any, D: Any, T: Any, order: Any, neq: int, k: int) -> bool:
    """Complete T by the rows order[neq:k]; the equalities' block is there."""
    m = D.shape[0]
    for a in range(neq, k):
        row = order[a]
        for e in range(neq):
            T[a, e] = D[row, e]
        for e in range(neq, a + 1):
            T[a, e] = D[row, order[e]]
    return bool(cholesky(work, place(T) + 8 * (neq * m + neq), k - neq, m))


@_compiled
def _bind(active: Any, order: Any, neq: int) -> int:
    """Write the rows that bind after the equalities; their number with these."""
    k = neq
    for j in range(active.shape[0]):
        if active[j]:
            order[k] = neq + j
            k += 1
    return k


@_compiled
def _misplaced(
    D: Any, T: Any, order: Any, neq: int, k: int, s0: Any, force: float, widths: Any,
    active: Any, y: Any, slack: Any, wrong: Any,
) -> int:  # fmt: skip
    """Mark the rows of wrong sign at the solution on the rows that bind; their number."""
    rest, S = k - neq, D[neq:, neq:]
    slack[:] = s0
    for a in range(rest):
        y[a] = -s0[order[neq + a] - neq]
    F = T[neq:, neq:]
    _lower(F, y, rest)
    _upper(F, y, rest)
    for a in range(rest):
        _add(slack, y[a], S[order[neq + a] - neq])
    for j in range(active.shape[0]):
        wrong[j] = not active[j] and slack[j] < -ROUGH * widths[neq + j] * force
    for a in range(rest):
        row = order[neq + a]
        wrong[row - neq] = y[a] * widths[row] < -ROUGH * force
    count = 0
    for j in range(active.shape[0]):
        count += wrong[j]
    return count


@_compiled
def solve(  # noqa: PLR0912, PLR0915 - in pieces, it would pass twenty arrays back and forth
    functions: Any, state: Any, active_tol: float, warm: bool, lo: int, hi: int
) -> None:
    """Solve instances lo, …, hi − 1 on their factorizations, from ``active`` where ``warm``."""
    (q, b, h, Q, L, C, W, widths, D, sound_p, sound, T, order, z, y, active, weak, numbers) = state
    work = workspace(functions)
    n, neq, m = q.shape[1], b.shape[1], W.shape[1]
    nineq = m - neq
    s0, slack, wrong = np.empty(nineq), np.empty(nineq), np.empty(nineq, dtype=np.bool_)
    t, linear, minus = np.empty(n), np.empty(n), np.empty(n)
    right, short = np.empty(m), np.empty(m)
    x, dx, grad = np.empty(n), np.empty(n), np.empty(n)
    dy, multipliers = np.empty(m), np.empty(m)
    for i in range(lo, hi):
        c, f, p = min(i, C.shape[0] - 1), min(i, W.shape[0] - 1), min(i, Q.shape[0] - 1)
        if not (sound_p[p] and sound[f]):
            continue
        Di, Ti, Wi, wide = D[f], T[i], W[f], widths[f]
        # The dual: s0 = h + W_G t − V a with t = L⁻¹q and a = T⁻¹(W_A t + b).
        t[:] = q[i if q.shape[0] > 1 else 0]
        _lower(L[p], t, n)
        force = np.sqrt(_dot(t, t))
        for a in range(neq):
            order[i, a] = a
            Ti[a, : a + 1] = Di[a, : a + 1]
            right[a] = b[i if b.shape[0] > 1 else 0, a]
            short[a] = _dot(Wi[a], t) + right[a]
        _lower(Ti, short, neq)
        for j in range(nineq):
            right[neq + j] = h[i if h.shape[0] > 1 else 0, j]
            s0[j] = right[neq + j] + _dot(Wi[neq + j], t) - _dot(Di[neq + j, :neq], short[:neq])
            if not warm:
                active[i, j] = s0[j] < 0.0
        for a in range(n):
            linear[a] = q[i if q.shape[0] > 1 else 0, a]
            minus[a] = -linear[a]

        fewest, patience, settled = nineq + 1, PATIENCE, False
        for step in range(1, MOST_STEPS + 1):
            k = _bind(active[i], order[i], neq)
            if not _factorize(work, Di, Ti, order[i], neq, k):
                break
            if not settled:
                count = _misplaced(
                    Di, Ti, order[i], neq, k, s0, force, wide, active[i], dy, slack, wrong
                )
                if count:
                    if count < fewest:
                        fewest, patience = count, PATIENCE
                    elif step > PLAIN_STEPS:
                        # Block pivoting: the last wrong row alone, until their number falls
                        # (Júdice and Pires, Comput. Oper. Res. 21 (1994)); it always ends.
                        patience -= 1
                        if patience < 0:
                            last = nineq - 1
                            while not wrong[last]:
                                last -= 1
                            wrong[:last] = False
                    for j in range(nineq):
                        active[i, j] ^= wrong[j]
                    continue
                settled = True
            safe = True
            for a in range(neq, k):
                width = wide[order[i, a]]
                safe &= Ti[a, a] * Ti[a, a] > PIVOT * width * width
            if not safe:
                break

            # Solve on these rows to rounding.
            for a in range(k):
                short[a] = right[order[i, a]]
            length, _ = _saddle(L[p], Wi, Ti, order[i], k, minus, short, x, multipliers, t)
            correction = length
            for _ in range(MOST_REFINEMENTS):
                _gradient(Q[p], x, C[c], order[i], k, multipliers, linear, grad)
                for a in range(n):
                    grad[a] = -grad[a]
                for a in range(k):
                    short[a] = right[order[i, a]] - _dot(C[c, order[i, a]], x)
                correction, _ = _saddle(L[p], Wi, Ti, order[i], k, grad, short, dx, dy, t)
                _add(x, 1.0, dx)
                for a in range(k):
                    multipliers[a] += dy[a]
                if correction <= ENOUGH * length:
                    break

            # Signs, decided again at this accuracy. Assertions are positive, so that whatever is
            # not finite fails them.
            size = _gradient(Q[p], x, C[c], order[i], k, multipliers, linear, grad)
            size = max(size, _largest(linear))
            steep = _largest(grad)
            good, primal = steep <= RESIDUAL * size, 0.0
            for a in range(neq):
                off = abs(right[a] - _dot(C[c, a], x))
                good &= off <= (RESIDUAL * length + EPS * force) * wide[a] + EPS * abs(right[a])
                primal = max(primal, off)
            for a in range(m):
                y[i, a] = 0.0
            for a in range(k):
                y[i, order[i, a]] = multipliers[a]
                short[order[i, a]] = abs(dy[a])  # error of the multiplier
            count = 0
            for j in range(nineq):
                row = neq + j
                width, lam = wide[row], y[i, row]
                left = right[row] - _dot(C[c, row], x)
                near = width * (correction + FINE * length) + FINE * abs(right[row])
                error = short[row] if active[i, j] else 0.0
                good &= np.isfinite(left)
                if active[i, j]:
                    wrong[j] = lam < -(error + FINE * force / (width if width > 0.0 else 1.0))
                    allowed = (RESIDUAL * length + EPS * force) * width + EPS * abs(right[row])
                    good &= abs(left) <= allowed
                    primal = max(primal, abs(left))
                else:
                    wrong[j] = left < -near
                    primal = max(primal, -left)
                tolerance = active_tol if active_tol > 0.0 else WEAK
                weak[i, j] = (
                    active[i, j] or abs(left) <= near + tolerance * width * length
                ) and lam * width <= error * width + tolerance * force
                y[i, row] = max(lam, 0.0)
                count += wrong[j]
            if not good:
                break
            if not count:
                z[i, :] = x
                numbers[i, 0], numbers[i, 1], numbers[i, 2] = 1.0, primal, steep
                numbers[i, 3], numbers[i, 4] = step, k - neq
                break
            for j in range(nineq):
                active[i, j] ^= wrong[j]


@_compiled
def everything(
    functions: Any, data: Any, start: Any, active_tol: float, count: int, buffer: Any
) -> Any:
    """All stages in one call, which costs a small problem less than one call for each."""
    state = allocate(data, start, count, buffer)
    factorize_objective(functions, state, 0, state.L.shape[0])
    factorize_rows(functions, state, 0, state.W.shape[0])
    solve(functions, state, active_tol, start.shape[0] > 0, 0, count)
    return state


@_compiled
def adjoint(state: Any, v: Any, x: Any, y: Any, residuals: Any, lo: int, hi: int) -> None:
    """Solve the backward QPs for v (batch, n): x, y (batch, m) and relative residuals (batch,).

    The residual is that of the adjoint equations, relative to v and to the rows; a first answer
    that is worse than 1e-11 is refined.
    """
    Q, L, C, W, widths, T = state.Q, state.L, state.C, state.W, state.widths, state.T
    order, numbers, neq = state.order, state.numbers, state.b.shape[1]
    n, m = v.shape[1], y.shape[1]
    t, right, dx, grad = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    off, found, dy = np.zeros(m), np.empty(m), np.empty(m)
    for i in range(lo, hi):
        y[i, :] = 0.0
        x[i, :] = 0.0
        residuals[i] = np.inf
        if not numbers[i, 0]:
            continue
        p, c, f = min(i, Q.shape[0] - 1), min(i, C.shape[0] - 1), min(i, W.shape[0] - 1)
        k = neq + int(numbers[i, 4])
        size = _largest(v[i])
        for a in range(n):
            right[a] = -v[i, a]
        off[:k] = 0.0
        length, free = _saddle(L[p], W[f], T[i], order[i], k, right, off, x[i], found, t)
        # Where rows hold x at zero, the scale is what it would be without them.
        scale = max(length, SHORT * free)
        for attempt in range(MOST_REFINEMENTS + 1):
            _gradient(Q[p], x[i], C[c], order[i], k, found, v[i], grad)
            residual = _largest(grad) / size if size > 0.0 else _largest(grad)
            for a in range(k):
                off[a] = -_dot(C[c, order[i, a]], x[i])
                if scale > 0.0:
                    residual = max(residual, abs(off[a]) / (widths[f, order[i, a]] * scale))
            residuals[i] = residual
            if residual <= RESIDUAL or attempt == MOST_REFINEMENTS:
                break
            for a in range(n):
                grad[a] = -grad[a]
            _saddle(L[p], W[f], T[i], order[i], k, grad, off, dx, dy, t)
            _add(x[i], 1.0, dx)
            for a in range(k):
                found[a] += dy[a]
        for a in range(k):
            y[i, order[i, a]] = found[a]


@_compiled
def outer_sums(scale: float, u: Any, v: Any, w: Any, s: Any, out: Any, lo: int, hi: int) -> None:
    """Write scale·(uvᵀ + wsᵀ) for every instance into ``out`` (batch, rows, n)."""
    for i in range(lo, hi):
        for a in range(out.shape[1]):
            first, second = scale * u[i, a], scale * w[i, a]
            for j in range(out.shape[2]):
                out[i, a, j] = first * v[i, j] + second * s[i, j]
