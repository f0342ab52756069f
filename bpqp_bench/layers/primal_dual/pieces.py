"""Steps that the kernels on the CPU have in common, compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpqp_bench.layers.primal_dual.blas import (
    cholesky,
    piece,
    solve_lower,
)
from bpqp_bench.layers.primal_dual.rules import (
    EPS,
    FINE,
    MOST_STEPS,
    PATIENCE,
    PIVOT,
    PLAIN_STEPS,
    RESIDUAL,
    ROUGH,
    SUSPECT,
    WEAK,
)


@piece
def _own_part(T: Any, order: Any, k: int, row: int) -> float:
    """Length of what a binding row has beyond the others: 1/√(M_JJ⁻¹)ᵢᵢ, where M_JJ = TTᵀ.

    Only with this part of the row does its multiplier change the point, so that rounding of the
    forces is larger by its reciprocal in the multiplier of a row that the others nearly make up.
    """
    x = np.zeros(k)
    for a in range(k):
        x[a] = 1.0 if order[a] == row else 0.0
    lower(T, x, k)
    return 1.0 / float(np.sqrt(dot(x, x)))


@piece
def lower(L: Any, x: Any, n: int) -> None:
    """Replace x by L⁻¹x."""
    for i in range(n):
        value = x[i]
        for j in range(i):
            value -= L[i, j] * x[j]
        x[i] = value / L[i, i]


@piece
def upper(L: Any, x: Any, n: int) -> None:
    """Replace x by L⁻ᵀx."""
    for i in range(n - 1, -1, -1):
        value = x[i] / L[i, i]
        x[i] = value
        for j in range(i):
            x[j] -= L[i, j] * value


@piece
def copy(x: Any, y: Any) -> None:
    """Write y into x; an assignment would bring text along for shapes that do not fit."""
    for j in range(x.shape[0]):
        x[j] = y[j]


@piece
def copy_matrix(X: Any, Y: Any) -> None:
    """Write Y into X."""
    for a in range(X.shape[0]):
        for j in range(X.shape[1]):
            X[a, j] = Y[a, j]


@piece
def dot(x: Any, y: Any) -> float:
    """xᵀy."""
    value = 0.0
    for j in range(x.shape[0]):
        value += x[j] * y[j]
    return value


@piece
def add_to(x: Any, factor: float, y: Any) -> None:
    """Add factor·y to x."""
    for j in range(x.shape[0]):
        x[j] += factor * y[j]


@piece
def largest(x: Any) -> float:
    """Largest absolute value; NaN if any is."""
    value = 0.0
    for j in range(x.shape[0]):
        size = abs(x[j])
        if not size <= value:
            value = size
        if np.isnan(size):
            break
    return value


@piece
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
    x, length = np.empty(k), 0.0
    for a in range(k):
        x[a] = np.cos(float(a * a))
    for _ in range(3):
        length = np.sqrt(dot(x, x))
        for a in range(k):
            x[a] *= sizes[a] / length
        lower(F, x, k)
        upper(F, x, k)
        for a in range(k):
            x[a] *= sizes[a]
        length = np.sqrt(dot(x, x))
    return not length * PIVOT < 1.0


@piece
def dependent(T: Any, order: Any, k: int, widths: Any, short: Any) -> bool:
    """Whether the k rows of ``order`` are dependent to within rounding; short is overwritten."""
    for a in range(k):
        short[a] = widths[order[a]]
    return bool(near_singular(T, k, short))


@piece
def span(row: Any, metric: Any) -> float:
    """|M^{-1/2}c|: how far cᵀx goes where x has length one."""
    value = 0.0
    for j in range(len(metric)):
        value += row[j] * row[j] / metric[j]
    return float(np.sqrt(value))


@piece
def reach(x: Any, metric: Any) -> float:
    """|M^{1/2}x|."""
    value = 0.0
    for j in range(len(metric)):
        value += metric[j] * x[j] * x[j]
    return float(np.sqrt(value))


@piece
def reduced_rows(work: Any, L: Any, right: Any, lo: int, hi: int) -> Any:
    """Rows L⁻¹rᵢ, at once for a shared L; room for one row where each instance has its own."""
    out = np.empty((hi - lo if L.shape[0] == 1 else 1, L.shape[1]))
    if L.shape[0] == 1:
        for i in range(lo, hi):
            copy(out[i - lo], right[min(i, right.shape[0] - 1)])
        if hi - lo == 1:  # nothing for BLAS to gain, whose threads would wait for a core
            lower(L[0], out[0], L.shape[1])
        else:
            solve_lower(work, L[0], L.shape[1], out, 0, hi - lo)
    return out


@piece
def saddle(
    L: Any, W: Any, T: Any, order: Any, k: int, r: Any, s: Any, x: Any, y: Any, t: Any
) -> Any:
    """Solve Px + Cᵀy = r, Cx = s on the k rows of ``order``.

    Returns the length of Lᵀx, and what it would be without rows; x, y and t are overwritten.
    """
    copy(t, r)
    lower(L, t, x.shape[0])
    return saddle_reduced(L, W, T, order, k, s, x, y, t)


@piece
def saddle_reduced(
    L: Any, W: Any, T: Any, order: Any, k: int, s: Any, x: Any, y: Any, t: Any
) -> Any:
    """Do as `saddle`, from t = L⁻¹r."""
    free = np.sqrt(dot(t, t))
    onto_rows(W, T, order, k, s, y, t)
    length = np.sqrt(dot(t, t))
    copy(x, t)
    upper(L, x, x.shape[0])
    return length, free


@piece
def onto_rows(W: Any, T: Any, order: Any, k: int, s: Any, y: Any, t: Any) -> None:
    """Take t = L⁻¹r to Lᵀx, where Wt = s on the k rows, and write their multipliers."""
    for a in range(k):
        y[a] = dot(W[order[a]], t) - s[a]
    lower(T, y, k)
    upper(T, y, k)
    for a in range(k):
        add_to(t, -y[a], W[order[a]])


@piece
def gradient(Q: Any, x: Any, C: Any, order: Any, k: int, y: Any, linear: Any, out: Any) -> None:
    """Write Qx + linear + Cᵀy into ``out``."""
    for a in range(x.shape[0]):
        out[a] = dot(Q[a], x) + linear[a]
    for a in range(k):
        add_to(out, y[a], C[order[a]])


@piece
def largest_ratio(x: Any, sizes: Any) -> float:
    """Largest |xⱼ| over its size; NaN if any is."""
    worst = 0.0
    for j in range(x.shape[0]):
        if not abs(x[j]) <= worst * sizes[j]:
            worst = abs(x[j]) / sizes[j]
            if np.isnan(worst):
                break
    return worst


@piece
def balance(
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
    return largest_ratio(out, sizes)


@piece
def factorize_binding(
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


@piece
def binding_rows(active: Any, order: Any, neq: int) -> int:
    """Write the rows that bind after the equalities; their number with these."""
    k = neq
    for j in range(active.shape[0]):
        if active[j]:
            order[k] = neq + j
            k += 1
    return k


@piece
def misplaced(
    D: Any, T: Any, order: Any, neq: int, k: int, s0: Any, force: float, widths: Any,
    active: Any, y: Any, slack: Any, wrong: Any,
) -> int:  # fmt: skip
    """Mark the rows of wrong sign at the solution on the rows that bind; their number."""
    rest, S = k - neq, D[neq:, neq:]
    copy(slack, s0)
    for a in range(rest):
        y[a] = -s0[order[neq + a] - neq]
    F = T[neq:, neq:]
    lower(F, y, rest)
    upper(F, y, rest)
    for a in range(rest):
        add_to(slack, y[a], S[order[neq + a] - neq])
    for j in range(active.shape[0]):
        wrong[j] = not active[j] and slack[j] < -ROUGH * widths[neq + j] * force
    for a in range(rest):
        row = order[neq + a]
        wrong[row - neq] = y[a] * widths[row] < -ROUGH * force
    count = 0
    for j in range(active.shape[0]):
        count += wrong[j]
    return count


@piece
def hold_back(step: int, count: int, fewest: int, patience: int, wrong: Any) -> Any:
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


@piece
def begin_with_equalities(D: Any, T: Any, order: Any, neq: int) -> None:
    """Put the equalities first in ``order``, and their factor into T."""
    for a in range(neq):
        order[a] = a
        for e in range(a + 1):
            T[a, e] = D[a, e]


@piece
def settle(
    work: Any, D: Any, T: Any, order: Any, neq: int, s0: Any, force: float, widths: Any,
    active: Any, y: Any, slack: Any, wrong: Any,
) -> Any:  # fmt: skip
    """Find the rows that bind, beginning with ``active``; y, slack and wrong are overwritten.

    Returns their number, the equalities' included, or −1 where they do not come to rest, and the
    factorizations that it took. T has the factor on these rows.
    """
    fewest, patience = len(active) + 1, PATIENCE
    for step in range(1, MOST_STEPS + 1):
        k = binding_rows(active, order, neq)
        if not factorize_binding(work, D, T, order, neq, k, 0.0, widths):
            return -1, step
        count = misplaced(D, T, order, neq, k, s0, force, widths, active, y, slack, wrong)
        if not count:
            return k, step
        fewest, patience = hold_back(step, count, fewest, patience, wrong)
        for j in range(len(active)):
            active[j] ^= wrong[j]
    return -1, MOST_STEPS


@piece
def reduce_rows(D: Any, T: Any, Wt: Any, neq: int, right: Any, short: Any, s0: Any) -> None:
    """Write the dual's s0 = h + W_G t − V a, where t = L⁻¹q and a = T⁻¹(W_A t + b)."""
    for a in range(neq):
        short[a] = Wt[a] + right[a]
    lower(T, short, neq)
    for j in range(len(s0)):
        row = neq + j
        s0[j] = right[row] + Wt[row] - dot(D[row, :neq], short[:neq])


@piece
def judge(
    right: Any, left: Any, spans: Any, T: Any, order: Any, neq: int, k: int, multipliers: Any,
    dy: Any, active: Any, scales: Any, y: Any, weak: Any, wrong: Any,
) -> Any:  # fmt: skip
    """Hold a point on k binding rows to the conditions on rows and signs.

    Parameters
    ----------
    right, left, spans
        [b; h], the slacks of all rows, and what their coefficients can make of a point of length 1.
    multipliers, dy
        Of the rows ``order``, and their last correction.
    scales
        Length of q and of the point, what the next correction would be, noise of the forces, and
        the caller's tolerance of weakly active rows or 0.
    y, weak, wrong
        Overwritten: multipliers of all rows, masks of weakly active inequalities and wrong signs.

    Returns
    -------
    Whether the binding rows are met, the largest violation, and the number of wrong signs.
    """
    force, length, rest, noise, active_tol = scales
    good, primal, count = True, 0.0, 0
    # Assertions are positive, so that whatever is not finite fails them.
    for a in range(neq):
        off = abs(left[a])
        allowed = (RESIDUAL * length + EPS * force) * spans[a]
        good &= off <= allowed + EPS * abs(right[a])
        primal = max(primal, off)
    errors = np.zeros(len(right))
    y[:] = 0.0
    for a in range(k):
        y[order[a]] = multipliers[a]
        errors[order[a]] = abs(dy[a])
    tolerance = active_tol if active_tol > 0.0 else WEAK
    for j in range(len(active)):
        row = neq + j
        width, lam, slack, error = spans[row], y[row], left[row], errors[row]
        near = width * (rest + FINE * length) + FINE * abs(right[row])
        good &= np.isfinite(slack)
        if active[j]:
            wrong[j] = lam < -(error + FINE * force / (width if width > 0.0 else 1.0))
            allowed = (RESIDUAL * length + EPS * force) * width + EPS * abs(right[row])
            good &= abs(slack) <= allowed
            primal = max(primal, abs(slack))
        else:
            wrong[j] = slack < -near
            primal = max(primal, -slack)
        # A solution at the origin is noise of the size of the forces.
        blurred = near + width * (tolerance * length + FINE * force)
        light, part = error * width + tolerance * force + noise, width
        if active[j] and light < lam * width <= light / SUSPECT:
            part = _own_part(T, order, k, row)
        weak[j] = (active[j] or abs(slack) <= blurred) and lam * part <= light
        y[row] = max(lam, 0.0)
        count += wrong[j]
    return good, primal, count
