"""Which inequalities bind: from slack and multiplier, and by polishing.

A row of Gz ≤ h binds if its multiplier outweighs its slack, λᵢ‖Gᵢ‖/f > sᵢ/(‖Gᵢ‖ℓ): both are
brought to one scale by the length of the row, by the size ℓ of the solution and by the size f of
the forces in the stationarity condition. That is the rule of the primal-dual active-set method
(Hintermüller, Ito, Kunisch, SIAM J. Optim. 13 (2002)), and unlike λ > 1e-8 it needs no absolute
constant: of two numbers whose product vanishes at the solution, the larger one decides.
Where both are within the solver's own error of zero the row is *weakly active*: the solution's
derivative is then one-sided, and the answer carries a flag.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bpqp_bench.layers.kkt import KKTFactor, factorize_kkt
from bpqp_bench.layers.problem import (
    ConvexQP,
    Phase,
    QPSolution,
    force_scale,
    natural_scales,
    no_clock,
    residuals,
    row_lengths,
    violations,
)
from bpqp_bench.problem.instance import Array, Matrix

Mask = NDArray[np.bool_]

_SAFETY = 10.0  # errors of slack and multiplier over the residuals that the solver left
_ROUNDING = 64.0 * float(np.finfo(float).eps)
_PATIENCE = 3
_MOST_STEPS = 30
_LARGEST_ERROR = 1e-8
_CONSISTENT = 1e-11
_LEAST_TRUSTED = 1e-3
_SENSITIVE = 1e4  # times the error of the forces: the largest multiplier that is doubted
_MOST_DOUBTFUL = 16
_CHEAP = 1e7  # multiplications of a sparse factorization up to which they are
_BLURRED = 1e-7  # rounding of Pz over the forces at which a point says nothing


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """Binding rows.

    Attributes
    ----------
    rows
        Mask (nineq,) of the inequalities taken as equalities in the backward pass.
    weak
        Mask (nineq,) of those whose slack and multiplier both vanish to within the tolerances.
    tolerance
        The two tolerances that decided ``weak``, for slack (in units of length) and multiplier (in
        units of force).
    """

    rows: Mask
    weak: Mask
    tolerance: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Polished:
    """Result of polishing: the exact solution on the right active rows, and its factorization.

    ``steps`` counts factorizations; ``converged`` says whether every row passed the test of sign.
    If not, ``solution`` is the one that came in and ``factor`` is None.
    """

    solution: QPSolution
    active: ActiveSet
    factor: KKTFactor | None
    steps: int
    converged: bool


def active_rows(qp: ConvexQP, solution: QPSolution, tolerance: float = 0.0) -> ActiveSet:
    """Decide which rows of Gz ≤ h bind at a solution.

    Parameters
    ----------
    qp, solution
        Problem and what a solver said.
    tolerance
        Slack and multiplier (both relative to the scale of the data) below which a row counts as
        weakly active; 0 takes ten times the residuals that the solver achieved.
    """
    if qp.nineq == 0:
        nothing = np.zeros(0, dtype=bool)
        return ActiveSet(nothing, nothing, (0.0, 0.0))
    return decide_active(
        qp.h - qp.G @ solution.z,
        solution.lam,
        row_lengths(qp.G),
        _scales(qp, solution),
        (solution.primal, solution.dual),
        tolerance,
    )


def decide_active(
    slack: Array,
    lam: Array,
    lengths: Array,
    scales: tuple[float, float],
    achieved: tuple[float, float],
    tolerance: float = 0.0,
) -> ActiveSet:
    """Decide which inequalities g(z) ≤ 0 bind.

    Parameters
    ----------
    slack, lam, lengths
        −g(z), λ and the length of ∇g of every inequality, (m,).
    scales
        Size ℓ of the solution and size f of the forces that the constraints balance.
    achieved
        Primal and dual residual.
    tolerance
        As in `active_rows`.
    """
    if len(slack) == 0:
        nothing = np.zeros(0, dtype=bool)
        return ActiveSet(nothing, nothing, (0.0, 0.0))
    lengths = np.where(lengths > 0.0, lengths, 1.0)
    size, push = scales[0] or 1.0, scales[1] or 1.0
    distance, force = slack / lengths, lam * lengths
    if tolerance > 0.0:
        near, light = tolerance * size, tolerance * push
    else:
        near = _SAFETY * max(achieved[0] / float(lengths.min()), _ROUNDING * size)
        light = _SAFETY * max(achieved[1], _ROUNDING * push)
    rows = force / push > distance / size
    weak = (np.abs(distance) <= near) & (force <= light)
    return ActiveSet(rows, weak, (near, light))


def _scales(qp: ConvexQP, solution: QPSolution) -> tuple[float, float]:
    size = float(np.abs(solution.z).max(initial=0.0))
    push = max(float(np.abs(part).max(initial=0.0)) for part in (qp.q, qp.P @ solution.z))
    distances = np.abs(qp.b) / row_lengths(qp.A), np.abs(qp.h) / row_lengths(qp.G)
    achieved = solution.primal, solution.dual
    return natural_scales(size, push, float(abs(qp.P).max()), np.concatenate(distances), achieved)


def active_cones(qp: ConvexQP, solution: QPSolution) -> Mask:
    """Decide which cones bind: multiplier against slack, by the same rule."""
    size, push = _scales(qp, solution)
    values = [-cone.value(solution.z) for cone in qp.cones]
    return np.array(
        [mu / push > s / size for mu, s in zip(solution.mu, values, strict=True)], dtype=bool
    )


def stack_rows(A: Matrix, G: Matrix, rows: Mask) -> Matrix:
    """C = [A; G₊], dense or CSC like its parts."""
    if sp.issparse(A) or sp.issparse(G):
        picked = sp.csr_matrix(G)[np.flatnonzero(rows)]
        return sp.vstack([sp.csr_matrix(A), picked], format="csc")
    if not rows.any():
        return A
    return np.concatenate([A, G[rows]])


def polish_qp(
    qp: ConvexQP,
    solution: QPSolution,
    tolerance: float = 0.0,
    clock: Phase = no_clock,
    *,
    iterative: bool = False,
    falling: bool = False,
    deadline: float = np.inf,
) -> Polished:
    """Solve the QP on its active rows exactly, correcting the rows until all signs are right.

    Each step solves the equality-constrained QP of the present guess by factorization; rows with a
    negative multiplier leave, violated ones enter (primal-dual active-set method). It stops when
    nothing changes: the KKT conditions then hold to rounding error. Changing all wrong rows at once
    can cycle; when their number has not fallen for three steps, only the last of them changes until
    it does (block principal pivoting: Júdice and Pires, Comput. Oper. Res. 21 (1994)). Where rows
    are dependent, their multipliers are not unique, and those of least norm may have wrong signs
    although others have none: the ones nearest to what came in are tried, too. After thirty steps,
    at the ``deadline`` (of `time.monotonic`), with ``falling`` as soon as the number of wrong rows
    does not fall, or on rows that contradict one another, the solution that came in is returned,
    with ``converged`` False.
    """
    with clock("setup"):
        guess = active_rows(qp, solution, tolerance).rows
        lengths = row_lengths(qp.G) if qp.nineq else np.zeros(0)
        curvature = float(abs(qp.P).max())
        # How far the forces alone would go: what rounding leaves of a solution at the origin.
        step = float(np.abs(qp.q).max()) / curvature if curvature > 0.0 else 0.0
    fewest, patience, steps = qp.nineq + 1, _PATIENCE, 0
    while steps < _MOST_STEPS and time.monotonic() < deadline:
        steps += 1
        factor = factorize_kkt(qp.P, stack_rows(qp.A, qp.G, guess), clock, iterative=iterative)
        found = factor.solve(-qp.q, np.concatenate([qp.b, qp.h[guess]]), clock)
        x, y = found.x, found.y
        with clock("solve"):
            lam, changed, push = _signs(qp, lengths, step, guess, x, y, found.residual)
        if found.least_squares and changed.any():
            near_x, near_y, residual = _nearest(qp, solution, guess, factor, clock)
            with clock("solve"):
                other = _signs(qp, lengths, step, guess, near_x, near_y, residual)
            # Rows that contradict one another have no such solution.
            if residual <= _CONSISTENT and other[1].sum() < changed.sum():
                (lam, changed, push), x, y = other, near_x, near_y
        wrong = int(changed.sum())
        if wrong < fewest:
            fewest, patience = wrong, _PATIENCE
        elif falling:
            break
        elif patience > 0:
            patience -= 1
        else:
            changed[: np.flatnonzero(changed)[-1]] = False
        if wrong == 0:
            nu, lam = y[: qp.neq], np.maximum(lam, 0.0)
            with clock("extract"):
                primal, dual = residuals(qp, x, nu, lam, solution.mu)
                counted = solution.iterations
                better = QPSolution(x, nu, lam, solution.mu, "solved", counted, primal, dual)
                weak = active_rows(qp, better, tolerance)
            # Rows that nearly repeat others have multipliers that nearly cancel.
            of_rows = float(np.abs(nu * row_lengths(qp.A)).max(initial=push))
            strong = max(of_rows, force_scale(qp, x, nu, lam))
            # Binding rows have to be met as equations: where they contradict one another, least
            # squares may leave some of them with a slack.
            sides = np.concatenate([qp.b, qp.h[guess]])
            held = replace(qp, A=factor.C, b=sides)
            off = float(violations(held, x).max(initial=0.0))
            # Least squares meet what has a solution to rounding; the rest contradicts itself.
            allowed = _CONSISTENT if found.least_squares else _LARGEST_ERROR
            if off > allowed or dual > allowed * strong:
                break
            # So far out along a flat direction that rounding of Pz hides what the objective does.
            pull = max(float(np.abs(part).max()) for part in (qp.q, qp.P @ x))
            blur = _ROUNDING * curvature * float(np.abs(x).max())
            if blur > _BLURRED * pull > 0.0:
                break
            masked = weak.weak | uncertain_rows(factor, guess, lam * lengths, lengths, weak)
            return Polished(
                better, ActiveSet(guess, masked, weak.tolerance), factor, steps, converged=True
            )
        guess = guess ^ changed
    return Polished(solution, _doubted(qp, solution, tolerance), None, steps, False)


def _doubted(qp: ConvexQP, solution: QPSolution, tolerance: float) -> ActiveSet:
    """Decide which rows bind where polishing did not end.

    Where rows nearly repeat others or the objective is nearly flat, a solver's point is further off
    than its residuals; half of their digits are trusted.
    """
    size, push = _scales(qp, solution)
    residual = max(solution.primal / (size or 1.0), solution.dual / (push or 1.0), _ROUNDING)
    half = min(float(np.sqrt(residual)), _LEAST_TRUSTED)
    return active_rows(qp, solution, tolerance or half)


def uncertain_rows(
    factor: KKTFactor, guess: Mask, force: Array, lengths: Array, decided: ActiveSet
) -> Mask:
    """Binding rows whose multiplier may be rounding, by how strongly forces change it.

    With Px + Cᵀy = 0 and Cx = eᵢ, a change r of the forces moves yᵢ by xᵀr. Where rows nearly
    repeat one another, that is many times r. Only the smallest multipliers are looked at.
    """
    light, found = decided.tolerance[1], np.zeros(len(guess), dtype=bool)
    doubtful = guess & ~decided.weak & (force <= _SENSITIVE * light)
    if factor.work > _CHEAP:
        return found
    count = len(factor.weights) - int(guess.sum())
    for row in np.flatnonzero(doubtful)[np.argsort(force[doubtful])][:_MOST_DOUBTFUL]:
        unit = np.zeros(len(factor.weights))
        unit[count + int(guess[:row].sum())] = 1.0
        reach = float(np.abs(factor.solve(np.zeros(factor.P.shape[0]), unit).x).sum())
        found[row] = force[row] <= light * lengths[row] * reach
    return found


def _signs(
    qp: ConvexQP, lengths: Array, step: float, guess: Mask, x: Array, y: Array, residual: float
) -> tuple[Array, Mask, float]:
    """Return λ, the rows of wrong sign, and the size of the forces of a solution on some rows."""
    lam = np.zeros(qp.nineq)
    lam[guess] = y[qp.neq :]
    slack, force = qp.h - qp.G @ x, lam * lengths
    push = max(float(np.abs(force).max(initial=0.0)), float(np.abs(qp.q).max()))
    error = min(max(_ROUNDING, 100.0 * residual), _LARGEST_ERROR)
    terms = lengths * np.linalg.norm(x) + np.abs(qp.h)
    violated = ~guess & (slack < -10.0 * error * terms - _ROUNDING * lengths * step)
    return lam, (guess & (force < -error * push)) | violated, push


def _nearest(
    qp: ConvexQP, solution: QPSolution, guess: Mask, factor: KKTFactor, clock: Phase
) -> tuple[Array, Array, float]:
    """Correct a point and its multipliers by as little as solves the QP on the guessed rows."""
    C = stack_rows(qp.A, qp.G, guess)
    x, y = solution.z, np.concatenate([solution.nu, solution.lam[guess]])
    sides = np.concatenate([qp.b, qp.h[guess]])
    found = factor.solve(-(qp.P @ x + qp.q + C.T @ y), sides - C @ x, clock)
    return x + found.x, y + found.y, found.residual
