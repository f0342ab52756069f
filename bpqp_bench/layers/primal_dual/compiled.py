"""The active-set method for dense problems on the CPU, compiled by Numba.

The mathematics is that of `bpqp_bench.layers.primal_dual`. For a small problem the overhead of
calling operators one by one would be most of the time, in torch as in NumPy. Each kernel runs over
the instances lo, …, hi − 1 of a batch and holds no lock of the interpreter.

A call has nothing but numbers as arguments: where a ``table`` of int64 lies that holds `Addresses`
of memory, then `Sizes`. Checking an array takes longer than reading an address, and the memory is
divided in here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from bpqp_bench.layers.primal_dual.blas import (
    FAST,
    address_of,
    cholesky,
    doubles,
    integers,
    masks,
    solve_lower,
    subtract_gram,
    workspace,
)
from bpqp_bench.layers.primal_dual.rules import (
    CLOSE,
    CONVEX,
    ENOUGH,
    EPS,
    FAR,
    FINE,
    FIRST,
    LAST,
    MOST_CHANGES,
    MOST_REFINEMENTS,
    MOST_STEPS,
    PATIENCE,
    PIVOT,
    PLAIN_STEPS,
    RESIDUAL,
    ROUGH,
    ROUGH_ADJOINT,
    SHORT,
    STEEP,
    SUSPECT,
    WEAK,
)

#: Numbers that the cache of one core holds.
_CACHED = 1 << 15


class Addresses(NamedTuple):
    """Where the kernels find dpotrf, dtrsm and dsyrk, the data, and room for what they write.

    ``start``, a mask (batch, nineq), is 0 where there is none; ``buffer`` has `room` numbers, and
    ``found`` those of `results`.
    """

    dpotrf: int
    dtrsm: int
    dsyrk: int
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
        itself where it is symmetric: see `_objective`; and Cholesky factors (., n, n).
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


# Numba's decorators are untyped, and its functions know their types by themselves.
_compiled = njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")


@_compiled
def _own_part(T: Any, order: Any, k: int, row: int) -> float:
    """Length of what a binding row has beyond the others: 1/√(M_JJ⁻¹)ᵢᵢ, where M_JJ = TTᵀ.

    Only with this part of the row does its multiplier change the point, so that rounding of the
    forces is larger by its reciprocal in the multiplier of a row that the others nearly make up.
    """
    x = np.zeros(k)
    for a in range(k):
        x[a] = 1.0 if order[a] == row else 0.0
    _lower(T, x, k)
    return 1.0 / float(np.sqrt(_dot(x, x)))


@_compiled
def _lower(L: Any, x: Any, n: int) -> None:
    """Replace x by L⁻¹x."""
    for i in range(n):
        value = x[i]
        for j in range(i):
            value -= L[i, j] * x[j]
        x[i] = value / L[i, i]


@_compiled
def _upper(L: Any, x: Any, n: int) -> None:
    """Replace x by L⁻ᵀx."""
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
    """Add factor·y to x."""
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
def near_singular(F: Any, k: int, sizes: Any) -> bool:
    """Whether a matrix is singular to within rounding, by its factor F and √ of its diagonal.

    The pivot of a dependent row is rounding times what eliminates the row, which depends on the
    order of rows. Where pivots are small at all, three steps of inverse iteration on the matrix
    with unit diagonal decide, from a vector that no simple dependency is orthogonal to.
    """
    smallest = 1.0
    for a in range(k):
        pivot = F[a, a] / sizes[a]
        if not pivot * pivot > PIVOT:
            return True
        smallest = min(smallest, pivot * pivot)
    if smallest > SUSPECT:
        return False
    x, length = np.cos(np.arange(k) ** 2.0), 0.0
    for _ in range(3):
        x *= sizes[:k] / np.sqrt(_dot(x, x))
        _lower(F, x, k)
        _upper(F, x, k)
        x *= sizes[:k]
        length = np.sqrt(_dot(x, x))
    return not length * PIVOT < 1.0


@_compiled
def _read(table: int) -> Any:
    """Read addresses and sizes."""
    t = integers(table, (22,))
    at = Addresses(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11])
    return at, Sizes(t[12], t[13], t[14], t[15], t[16], t[17], t[18], t[19], t[20], t[21])


@_compiled
def _arrays(at: Any, sizes: Any) -> Any:
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


@_compiled
def _symmetric(P: Any) -> bool:
    """Whether a matrix is its own transpose; in blocks that stay in cache."""
    n, block = P.shape[0], 32
    for top in range(0, n, block):
        for left in range(0, top + 1, block):
            for a in range(top, min(top + block, n)):
                for c in range(left, min(left + block, a)):
                    if P[a, c] != P[c, a]:
                        return False
    return True


@_compiled
def _objective(state: Any, i: int) -> Any:
    """Symmetric part of the matrix P with number i."""
    n = state.Q.shape[1]
    return doubles(state.where[i], (n, n))


@_compiled
def prepare(table: int, lo: int, hi: int) -> None:
    """Symmetric parts of P, rows [A; G], and the rows to begin with."""
    at, sizes = _read(table)
    n, neq, nineq = sizes.n, sizes.neq, sizes.nineq
    state = _arrays(at, sizes)
    P = doubles(at.P, (sizes.P, n, n))
    A, G = doubles(at.A, (sizes.A, neq, n)), doubles(at.G, (sizes.G, nineq, n))
    start = masks(at.start, (sizes.batch, nineq))
    for i in range(lo, hi):
        if i < sizes.P:
            state.where[i] = at.P + 8 * i * n * n
            if not _symmetric(P[i]):
                state.where[i] = address_of(state.Q[i])
                for a in range(n):
                    for c in range(n):
                        state.Q[i, a, c] = 0.5 * (P[i, a, c] + P[i, c, a])
        if i < state.C.shape[0]:
            state.C[i, :neq] = A[min(i, sizes.A - 1)]
            state.C[i, neq:] = G[min(i, sizes.G - 1)]
        if at.start and i < sizes.batch:
            state.active[i] = start[i]


@_compiled
def factorize_objective(table: int, lo: int, hi: int) -> None:
    """Q = LLᵀ; ``sound_p`` says whether it is safely positive definite."""
    at, sizes = _read(table)
    state, work = _arrays(at, sizes), workspace((at.dpotrf, at.dtrsm, at.dsyrk))
    n, L, C = sizes.n, state.L, state.C
    for i in range(lo, hi):
        Q = _objective(state, i)
        L[i] = Q
        good = cholesky(work, L[i], 0, n)
        if good:
            good = not near_singular(L[i], n, np.sqrt(np.diag(Q)))
        state.sound_p[i] = 1.0 if good else 0.0
        if not good:
            q = state.q[min(i, state.q.shape[0] - 1)]
            _measure(Q, C[min(i, C.shape[0] - 1)], q, state.metric[i])
            # Convex to rounding, as elsewhere, and then a factor that is well conditioned.
            if _shifted(work, Q, CONVEX, state.metric[i], L[i]) and _shifted(
                work, Q, FAR, state.metric[i], L[i]
            ):
                state.sound_p[i] = 2.0


@_compiled
def _shifted(work: Any, Q: Any, factor: float, metric: Any, L: Any) -> bool:
    """Factorize Q + factor·M."""
    L[:] = Q
    for a in range(len(metric)):
        L[a, a] += factor * metric[a]
    return bool(cholesky(work, L, 0, len(metric)))


@_compiled
def _measure(Q: Any, C: Any, q: Any, metric: Any) -> None:
    """Curvature that a variable of natural size would have: by scaling the KKT matrix.

    Ruiz's method (RAL-TR-2001-034) on [Q Cᵀ; C 0], three rounds; then the size of the objective.
    """
    n, m = C.shape[1], C.shape[0]
    e, f = np.ones(n), np.ones(m)
    for _ in range(3):
        above, across = np.zeros(n), np.zeros(m)
        for a in range(n):
            for j in range(n):
                above[j] = max(above[j], abs(Q[a, j]) * e[a] * e[j])
        for i in range(m):
            for j in range(n):
                size = abs(C[i, j]) * f[i] * e[j]
                above[j], across[i] = max(above[j], size), max(across[i], size)
        for j in range(n):
            e[j] /= np.sqrt(above[j]) if above[j] > 0.0 else 1.0
        for i in range(m):
            f[i] /= np.sqrt(across[i]) if across[i] > 0.0 else 1.0
    size = 0.0
    for a in range(n):
        size = max(size, abs(q[a]) * e[a])
        for j in range(n):
            size = max(size, abs(Q[a, j]) * e[a] * e[j])
    for a in range(n):
        metric[a] = (size if size > 0.0 else 1.0) / (e[a] * e[a])


@_compiled
def _span(row: Any, metric: Any) -> float:
    """|M^{-1/2}c|: how far cᵀx goes where x has length one."""
    value = 0.0
    for j in range(len(metric)):
        value += row[j] * row[j] / metric[j]
    return float(np.sqrt(value))


@_compiled
def _reach(x: Any, metric: Any) -> float:
    """|M^{1/2}x|."""
    value = 0.0
    for j in range(len(metric)):
        value += metric[j] * x[j] * x[j]
    return float(np.sqrt(value))


@_compiled
def firm_objective(table: int, lo: int, hi: int) -> None:
    """Factorize Q + ρM for a small ρ where P is singular, once `approach` has found the rows."""
    at, sizes = _read(table)
    state, work = _arrays(at, sizes), workspace((at.dpotrf, at.dtrsm, at.dsyrk))
    for i in range(lo, hi):
        if state.sound_p[i] == 2.0:
            good = _shifted(work, _objective(state, i), CLOSE, state.metric[i], state.L[i])
            state.sound_p[i] = 3.0 if good else 0.0


@_compiled
def factorize_rows(table: int, again: bool, lo: int, hi: int) -> None:
    """W, D and ``widths``; ``sound`` becomes 0 where the equalities are nearly dependent.

    ``again`` skips those whose L has not changed.
    """
    at, sizes = _read(table)
    state, work = _arrays(at, sizes), workspace((at.dpotrf, at.dtrsm, at.dsyrk))
    L, C, W, D = state.L, state.C, state.W, state.D
    m, n, neq = W.shape[1], sizes.n, sizes.neq
    for i in range(lo, hi):
        p, c = min(i, L.shape[0] - 1), min(i, C.shape[0] - 1)
        if again and state.sound_p[p] == 1.0:
            continue
        state.sound[i] = 0.0
        if state.sound_p[p] == 0.0:
            continue
        W[i] = C[c]
        solve_lower(work, L[p], n, W[i], 0, m)
        subtract_gram(work, W[i], 0, m, n, D[i], 0, True)
        for a in range(m):
            state.widths[i, a] = np.sqrt(D[i, a, a])
        good = cholesky(work, D[i], 0, neq)
        for a in range(neq):
            width = state.widths[i, a]
            good &= D[i, a, a] * D[i, a, a] > PIVOT * width * width
        if not good:
            continue
        state.sound[i] = 1.0
        solve_lower(work, D[i], neq, D[i], neq, m - neq)
        subtract_gram(work, D[i], neq, m - neq, neq, D[i], neq, False)
        for a in range(neq, m):
            for e in range(neq, a):
                D[i, e, a] = D[i, a, e]


@_compiled
def _reduced(work: Any, L: Any, right: Any, lo: int, hi: int) -> Any:
    """Rows L⁻¹rᵢ, at once for a shared L; room for one row where each instance has its own."""
    out = np.empty((hi - lo if L.shape[0] == 1 else 1, L.shape[1]))
    if L.shape[0] == 1:
        for i in range(lo, hi):
            out[i - lo] = right[min(i, right.shape[0] - 1)]
        if hi - lo == 1:  # nothing for BLAS to gain, whose threads would wait for a core
            _lower(L[0], out[0], L.shape[1])
        else:
            solve_lower(work, L[0], L.shape[1], out, 0, hi - lo)
    return out


@_compiled
def _saddle(
    L: Any, W: Any, T: Any, order: Any, k: int, r: Any, s: Any, x: Any, y: Any, t: Any
) -> Any:
    """Solve Px + Cᵀy = r, Cx = s on the k rows of ``order``.

    Returns the length of Lᵀx, and what it would be without rows; x, y and t are overwritten.
    """
    t[:] = r
    _lower(L, t, x.shape[0])
    return _saddle_reduced(L, W, T, order, k, s, x, y, t)


@_compiled
def _saddle_reduced(
    L: Any, W: Any, T: Any, order: Any, k: int, s: Any, x: Any, y: Any, t: Any
) -> Any:
    """Do as `_saddle`, from t = L⁻¹r."""
    free = np.sqrt(_dot(t, t))
    _onto_rows(W, T, order, k, s, y, t)
    length = np.sqrt(_dot(t, t))
    x[:] = t
    _upper(L, x, x.shape[0])
    return length, free


@_compiled
def _onto_rows(W: Any, T: Any, order: Any, k: int, s: Any, y: Any, t: Any) -> None:
    """Take t = L⁻¹r to Lᵀx, where Wt = s on the k rows, and write their multipliers."""
    for a in range(k):
        y[a] = _dot(W[order[a]], t) - s[a]
    _lower(T, y, k)
    _upper(T, y, k)
    for a in range(k):
        _add(t, -y[a], W[order[a]])


@_compiled
def _gradient(Q: Any, x: Any, C: Any, order: Any, k: int, y: Any, linear: Any, out: Any) -> None:
    """Write Qx + linear + Cᵀy into ``out``."""
    for a in range(x.shape[0]):
        out[a] = _dot(Q[a], x) + linear[a]
    for a in range(k):
        _add(out, y[a], C[order[a]])


@_compiled
def _balance(
    Q: Any, x: Any, C: Any, order: Any, k: int, y: Any, linear: Any, out: Any, sizes: Any
) -> float:
    """Write Qx + linear + Cᵀy into ``out``; returns the largest entry over the size of its terms.

    That ratio does not depend on units of variables or rows (componentwise backward error: Oettli
    and Prager, Numer. Math. 6 (1964)).
    """
    for a in range(x.shape[0]):
        value, size = linear[a], abs(linear[a])
        for j in range(x.shape[0]):
            term = Q[a, j] * x[j]
            value += term
            size += abs(term)
        out[a], sizes[a] = value, size
    for e in range(k):
        row, factor = C[order[e]], y[e]
        for j in range(x.shape[0]):
            out[j] += factor * row[j]
            sizes[j] += abs(factor * row[j])
    worst = 0.0
    for a in range(x.shape[0]):
        if not abs(out[a]) <= worst * sizes[a]:
            worst = abs(out[a]) / sizes[a]
            if np.isnan(worst):
                break
    return worst


@_compiled
def _factorize(
    work: Any, D: Any, T: Any, order: Any, neq: int, k: int, factor: float, widths: Any
) -> bool:
    """Complete T by the rows order[neq:k], with factor·widths² on their diagonal.

    The equalities' block is there.
    """
    for a in range(neq, k):
        row = order[a]
        for e in range(neq):
            T[a, e] = D[row, e]
        for e in range(neq, a + 1):
            T[a, e] = D[row, order[e]]
        T[a, a] += factor * widths[row] * widths[row]
    return bool(cholesky(work, T, neq, k - neq))


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
def _hold_back(step: int, count: int, fewest: int, patience: int, wrong: Any) -> Any:
    """Change only the last wrong row where their number does not fall; fewest and patience.

    Block pivoting (Júdice and Pires, Comput. Oper. Res. 21 (1994)); it always ends.
    """
    if count < fewest:
        return count, PATIENCE
    if step > PLAIN_STEPS:
        patience -= 1
        if patience < 0:
            last = len(wrong) - 1
            while not wrong[last]:
                last -= 1
            wrong[:last] = False
    return fewest, patience


@_compiled
def _reduce_rows(
    D: Any, T: Any, W: Any, base: Any, neq: int, right: Any, short: Any, s0: Any
) -> None:
    """Write the dual's s0 = h + W_G t − V a, where t = L⁻¹q is ``base`` and a = T⁻¹(W_A t + b)."""
    for a in range(neq):
        short[a] = _dot(W[a], base) + right[a]
    _lower(T, short, neq)
    for j in range(len(s0)):
        row = neq + j
        s0[j] = right[row] + _dot(W[row], base) - _dot(D[row, :neq], short[:neq])


@_compiled
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


@_compiled
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
    at, sizes = _read(table)
    state, work = _arrays(at, sizes), workspace((at.dpotrf, at.dtrsm, at.dsyrk))
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
        right[:neq] = state.b[min(i, state.b.shape[0] - 1)]
        right[neq:] = state.h[min(i, state.h.shape[0] - 1)]
        for a in range(neq):
            order[a] = a
            T[a, : a + 1] = D[a, : a + 1]
        active[:] = False
        x[:] = 0.0
        lam[:] = 0.0
        rest, steps = 0, 0
        while steps < MOST_CHANGES:
            for a in range(n):
                base[a] = q[a]
                if rho > 0.0:
                    base[a] -= rho * metric[a] * x[a]
            _lower(L, base, n)
            for j in range(nineq):
                width = wide[neq + j]
                weights[j] = delta * width * width if width > 0.0 else 1.0
                if steps:
                    row = neq + j
                    excess[j] = _dot(W[row], u) - right[row] + weights[j] * lam[j]
                    active[j] = excess[j] > 0.0
            rest += 1
            while steps < MOST_CHANGES:
                k = _bind(active, order, neq)
                steps += 1
                if not _factorize(work, D, T, order, neq, k, delta, wide):
                    steps = MOST_CHANGES
                    break
                for a in range(k):
                    row = order[a]
                    short[a] = right[row]
                    if a >= neq:
                        short[a] -= weights[row - neq] * lam[row - neq]
                for a in range(n):
                    t[a] = -base[a]
                _onto_rows(W, T, order, k, short, y, t)
                same = True
                for j in range(nineq):
                    row = neq + j
                    push[j] = _dot(W[row], t) - right[row] + weights[j] * lam[j]
                    same &= (push[j] > 0.0) == active[j]
                if same:
                    break
                rest, length = 0, 1.0
                if steps > 1:
                    length = _step_length(u, t, base, excess, push, weights)
                else:
                    u[:] = t
                    excess[:] = push
                for a in range(n):
                    u[a] += length * (t[a] - u[a])
                for j in range(nineq):
                    excess[j] += length * (push[j] - excess[j])
                    active[j] = excess[j] > 0.0
            u[:] = t
            x[:] = u
            _upper(L, x, n)
            lam[:] = 0.0
            for a in range(neq, k):
                lam[order[a] - neq] = max(y[a], 0.0)
            if rest >= PATIENCE and delta <= LAST:
                break
            delta = max(0.1 * delta, LAST)
        state.numbers[i, 3] = steps
    return handled


@_compiled
def _flat(
    L: Any, W: Any, T: Any, order: Any, k: int, metric: Any, t: Any, x: Any, y: Any, zero: Any
) -> bool:
    """Whether the objective is nearly flat along a direction that the k rows leave free.

    With the factor of P + ρM, x ← ρ(P + ρM)⁻¹Mx on these rows takes away all directions with a
    curvature over ρ, and keeps the flat ones.
    """
    n = len(metric)
    for a in range(n):
        x[a] = np.cos(a * a + 1.0) / np.sqrt(metric[a])
    first = before = _reach(x, metric)
    for _ in range(3):
        for a in range(n):
            t[a] = CLOSE * metric[a] * x[a]
        _lower(L, t, n)
        zero[:k] = 0.0
        _saddle_reduced(L, W, T, order, k, zero, x, y, t)
        length = _reach(x, metric)
        if length <= CLOSE * first:
            return False
        ratio, before = length / before, length
    return not ratio <= STEEP


@_compiled
def solve(  # noqa: PLR0912, PLR0915 - in pieces, it would pass twenty arrays back and forth
    table: int, active_tol: float, again: bool, lo: int, hi: int
) -> int:
    """Solve instances lo, …, hi − 1 on their factorizations; returns how many are left.

    ``again`` tries those that are left, from the rows of `approach`.
    """
    at, sizes = _read(table)
    state, work = _arrays(at, sizes), workspace((at.dpotrf, at.dtrsm, at.dsyrk))
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
    reduced = _reduced(work, L, q, lo, hi)
    right, short = np.empty(m), np.empty(m)
    x, dx, grad = np.empty(n), np.empty(n), np.empty(n)
    dy, multipliers, own_spans = np.empty(m), np.empty(m), np.empty(m)
    unsolved = hi - lo
    for i in range(lo, hi):
        c, f, p = min(i, C.shape[0] - 1), min(i, W.shape[0] - 1), min(i, L.shape[0] - 1)
        before = 0.0
        if again:
            before = numbers[i, 3]
            if numbers[i, 0] == 1.0:
                unsolved -= 1
                continue
        numbers[i, :] = 0.0
        y[i, :] = 0.0
        if state.sound[f] == 0.0:
            active[i, :] = False
            continue
        if state.sound_p[p] == 2.0:
            continue
        Q, Di, Ti, Wi, wide = _objective(state, p), D[f], T[i], W[f], widths[f]
        for a in range(n):
            linear[a] = q[i if q.shape[0] > 1 else 0, a]
        base = reduced[i - lo if L.shape[0] == 1 else 0]
        if L.shape[0] > 1:
            base[:] = linear
            _lower(L[p], base, n)
        force, spans = np.sqrt(_dot(base, base)), wide
        # Where P is singular, what is judged has sizes in M.
        singular, metric = state.sound_p[p] > 1.0, state.metric[p]
        if singular:
            force, spans = _span(linear, metric), own_spans
            for a in range(m):
                spans[a] = _span(C[c, a], metric)
        for a in range(neq):
            order[i, a] = a
            Ti[a, : a + 1] = Di[a, : a + 1]
            right[a] = b[i if b.shape[0] > 1 else 0, a]
        for j in range(nineq):
            right[neq + j] = h[i if h.shape[0] > 1 else 0, j]
        if not again:
            _reduce_rows(Di, Ti, Wi, base, neq, right, short, s0)
            if not at.start:
                for j in range(nineq):
                    active[i, j] = s0[j] < 0.0

        fewest, patience, settled = nineq + 1, PATIENCE, again
        for step in range(1, MOST_STEPS + 1):
            k = _bind(active[i], order[i], neq)
            if not _factorize(work, Di, Ti, order[i], neq, k, 0.0, wide):
                break
            if not settled:
                count = _misplaced(
                    Di, Ti, order[i], neq, k, s0, force, wide, active[i], dy, slack, wrong
                )
                if count:
                    fewest, patience = _hold_back(step, count, fewest, patience, wrong)
                    for j in range(nineq):
                        active[i, j] ^= wrong[j]
                    continue
                settled = True
            for a in range(k):
                short[a] = wide[order[i, a]]
            if near_singular(Ti, k, short):
                break

            # Solve on these rows to rounding.
            for a in range(k):
                short[a] = right[order[i, a]]
            for a in range(n):
                t[a] = -base[a]
            length, _ = _saddle_reduced(L[p], Wi, Ti, order[i], k, short, x, multipliers, t)
            if singular:
                length = _reach(x, metric)
            correction = before_it = rest = length
            for _ in range(MOST_REFINEMENTS):
                before_it = correction
                _gradient(Q, x, C[c], order[i], k, multipliers, linear, grad)
                for a in range(n):
                    grad[a] = -grad[a]
                for a in range(k):
                    short[a] = right[order[i, a]] - _dot(C[c, order[i, a]], x)
                correction, _ = _saddle(L[p], Wi, Ti, order[i], k, grad, short, dx, dy, t)
                _add(x, 1.0, dx)
                for a in range(k):
                    multipliers[a] += dy[a]
                if singular:
                    correction = _reach(dx, metric)
                    length = max(length, correction)
                # What the next correction would be, by how this one follows the one before.
                rest = correction * min(correction / before_it, 1.0) if before_it > 0.0 else 0.0
                if correction <= ENOUGH * length and rest <= EPS * length:
                    break

            # Signs, decided again at this accuracy. Assertions are positive, so that whatever is
            # not finite fails them.
            ratio = _balance(Q, x, C[c], order[i], k, multipliers, linear, grad, t)
            steep, good, primal = _largest(grad), ratio <= RESIDUAL, 0.0
            # Along flat directions Px vanishes, and rounding of its terms stays.
            noise = FINE * _span(t, metric) if singular else 0.0
            for a in range(neq):
                off = abs(right[a] - _dot(C[c, a], x))
                allowed = (RESIDUAL * length + EPS * force) * spans[a]
                good &= off <= allowed + EPS * abs(right[a])
                primal = max(primal, off)
            for a in range(m):
                y[i, a] = 0.0
            for a in range(k):
                y[i, order[i, a]] = multipliers[a]
                short[order[i, a]] = abs(dy[a])  # error of the multiplier
            count = 0
            for j in range(nineq):
                row = neq + j
                width, lam = spans[row], y[i, row]
                left = right[row] - _dot(C[c, row], x)
                near = width * (rest + FINE * length) + FINE * abs(right[row])
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
                # A solution at the origin is noise of the size of the forces.
                blurred = near + width * (tolerance * length + FINE * force)
                light, part = error * width + tolerance * force + noise, width
                if active[i, j] and light < lam * width <= light / SUSPECT:
                    part = _own_part(Ti, order[i], k, row)
                weak[i, j] = (active[i, j] or abs(left) <= blurred) and lam * part <= light
                y[i, row] = max(lam, 0.0)
                count += wrong[j]
            if not good:
                break
            if not count:
                if singular and _flat(L[p], Wi, Ti, order[i], k, metric, t, dx, dy, short):
                    break
                z[i, :] = x
                unsolved -= 1
                numbers[i, 0], numbers[i, 1], numbers[i, 2] = 1.0, primal, steep
                numbers[i, 3], numbers[i, 4] = before + step, k - neq
                break
            for j in range(nineq):
                active[i, j] ^= wrong[j]
    return unsolved


@_compiled
def prepare_and_solve(table: int, active_tol: float, lo: int, hi: int) -> int:
    """Do all of a first attempt where instances share no matrix, some at a time.

    These stay in the processor's cache from one step to the next. Returns how many are left.
    """
    _, sizes = _read(table)
    m = sizes.neq + sizes.nineq
    some = max(1, _CACHED // (2 * sizes.n * (sizes.n + m) + 2 * m * m))
    left = 0
    for first in range(lo, hi, some):
        end = min(first + some, hi)
        prepare(table, first, end)
        factorize_objective(table, first, end)
        factorize_rows(table, False, first, end)
        left += solve(table, active_tol, False, first, end)
    return left


@_compiled
def pullback(table: int, where: int, lo: int, hi: int) -> None:
    """Solve the backward QPs, and write gradients, for instances lo, …, hi − 1.

    At ``where`` lie the addresses of v (batch, n), of y = [ν̃; λ̃] (batch, m) and, after it, the
    residuals (batch,), and of ∇P, ∇q = z̃, ∇A, ∇b = −ν̃, ∇G and ∇h = −λ̃ of every instance, 0 for
    those that nobody wants (never for ∇q). The residual is that of the adjoint equations, each
    relative to its own terms; an answer that is worse than 1e-12 is refined. Instances without
    a solution get zeros.
    """
    at, sizes = _read(table)
    places = integers(where, (8,))
    state, count, n, neq = _arrays(at, sizes), sizes.batch, sizes.n, sizes.neq
    m = neq + sizes.nineq
    v, y = doubles(places[0], (count, n)), doubles(places[1], (count, m))
    residuals = doubles(places[1] + 8 * count * m, (count,))
    x = doubles(places[3], (count, n))
    reduced = _reduced(workspace((at.dpotrf, at.dtrsm, at.dsyrk)), state.L, v, lo, hi)
    _adjoint(state, reduced, neq, v, x, y, residuals, lo, hi)
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


@_compiled
def _minus(y: Any, out: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        for a in range(out.shape[1]):
            out[i, a] = -y[i, a]


@_compiled
def _adjoint(
    state: Any, reduced: Any, neq: int, v: Any, x: Any, y: Any, residuals: Any, lo: int, hi: int
) -> None:
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
        Q, k = _objective(state, p), neq + int(numbers[i, 4])
        if L.shape[0] > 1:
            t[:] = v[i]
            _lower(L[p], t, n)
        else:
            t[:] = reduced[i - lo]
        for a in range(n):
            t[a] = -t[a]
        off[:k] = 0.0
        singular, metric = state.sound_p[p] > 1.0, state.metric[p]
        length, free = _saddle_reduced(L[p], W[f], T[i], order[i], k, off, x[i], found, t)
        length = _reach(x[i], metric) if singular else length
        free = _span(v[i], metric) if singular else free
        # Where rows hold x at zero, the scale is what it would be without them.
        scale = max(length, SHORT * free)
        for attempt in range(MOST_REFINEMENTS + 1):
            residual = _balance(Q, x[i], C[c], order[i], k, found, v[i], grad, t)
            for a in range(k):
                off[a] = -_dot(C[c, order[i, a]], x[i])
                if scale > 0.0:
                    row = order[i, a]
                    width = _span(C[c, row], metric) if singular else widths[f, row]
                    residual = max(residual, abs(off[a]) / (width * scale))
            residuals[i] = residual
            if residual <= ROUGH_ADJOINT or attempt == MOST_REFINEMENTS:
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
