"""Factorizations of P and of the rows' dual matrix, for the kernels on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpqp_bench.layers.primal_dual.blas import (
    address_of,
    cholesky,
    doubles,
    kernel,
    masks,
    piece,
    solve_lower,
    subtract_gram,
)
from bpqp_bench.layers.primal_dual.memory import (
    arrays_of,
    functions_of,
    objective_of,
    read_table,
)
from bpqp_bench.layers.primal_dual.pieces import copy, copy_matrix, near_singular
from bpqp_bench.layers.primal_dual.rules import (
    CLOSE,
    CONVEX,
    FAR,
    PIVOT,
)


@piece
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


@kernel
def prepare(table: int, lo: int, hi: int) -> None:
    """Symmetric parts of P, rows [A; G], and the rows to begin with."""
    at, sizes = read_table(table)
    n, neq, nineq = sizes.n, sizes.neq, sizes.nineq
    state = arrays_of(at, sizes)
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
            copy_matrix(state.C[i, :neq], A[min(i, sizes.A - 1)])
            copy_matrix(state.C[i, neq:], G[min(i, sizes.G - 1)])
        if at.start and i < sizes.batch:
            copy(state.active[i], start[i])


@piece
def _shifted(work: Any, Q: Any, factor: float, metric: Any, L: Any) -> bool:
    """Factorize Q + factor·M."""
    copy_matrix(L, Q)
    for a in range(len(metric)):
        L[a, a] += factor * metric[a]
    return bool(cholesky(work, L, 0, len(metric)))


@piece
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


@kernel
def factorize_objective(table: int, lo: int, hi: int) -> None:
    """Q = LLᵀ; ``sound_p`` says whether it is safely positive definite."""
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    n, L, C, roots = sizes.n, state.L, state.C, np.empty(sizes.n)
    for i in range(lo, hi):
        Q = objective_of(state, i)
        copy_matrix(L[i], Q)
        good = cholesky(work, L[i], 0, n)
        if good:
            for a in range(n):
                roots[a] = np.sqrt(Q[a, a])
            good = not near_singular(L[i], n, roots)
        state.sound_p[i] = 1.0 if good else 0.0
        if not good:
            q = state.q[min(i, state.q.shape[0] - 1)]
            _measure(Q, C[min(i, C.shape[0] - 1)], q, state.metric[i])
            # Convex to rounding, as elsewhere, and then a factor that is well conditioned.
            if _shifted(work, Q, CONVEX, state.metric[i], L[i]) and _shifted(
                work, Q, FAR, state.metric[i], L[i]
            ):
                state.sound_p[i] = 2.0


@kernel
def firm_objective(table: int, lo: int, hi: int) -> None:
    """Factorize Q + ρM for a small ρ where P is singular, once `approach` has found the rows."""
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    for i in range(lo, hi):
        if state.sound_p[i] == 2.0:
            good = _shifted(work, objective_of(state, i), CLOSE, state.metric[i], state.L[i])
            state.sound_p[i] = 3.0 if good else 0.0


@kernel
def factorize_rows(table: int, again: bool, lo: int, hi: int) -> None:
    """W, D and ``widths``; ``sound`` becomes 0 where the equalities are nearly dependent.

    ``again`` skips those whose L has not changed.
    """
    at, sizes = read_table(table)
    state, work = arrays_of(at, sizes), functions_of(at)
    L, C, W, D = state.L, state.C, state.W, state.D
    m, n, neq = W.shape[1], sizes.n, sizes.neq
    for i in range(lo, hi):
        p, c = min(i, L.shape[0] - 1), min(i, C.shape[0] - 1)
        if again and state.sound_p[p] == 1.0:
            continue
        state.sound[i] = 0.0
        if state.sound_p[p] == 0.0:
            continue
        copy_matrix(W[i], C[c])
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
