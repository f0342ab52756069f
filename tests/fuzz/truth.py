"""What is true of a problem, found without any layer.

A point is optimal if it satisfies the KKT conditions, by convexity: every answer is checked in
extended precision on the caller's data, each sum relative to its own terms, so that units do not
matter. A guess of the binding rows, from anywhere, gives a point by one linear system, which the
same conditions then prove; its derivatives solve the adjoint of that system and are compared with
differences of proved solutions. Where nothing is planted, Clarabel guesses, on another formulation.
That a problem has no solution is known by construction, or from HiGHS with a margin. What none of
these can decide is "undecided".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import clarabel
import mpmath
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve
from scipy.optimize import linprog

from .kinds import NAMES, Array, Problem

Mask = NDArray[np.bool_]
Wide = np.longdouble
mpmath.mp.dps = 60

RIGHT = 1e-9  # KKT residual of a right answer, relative to its terms
PROVED = 1e-13  # and of a point that is proved
DECIDED = 1e-8  # gap in a proof that there is no solution, beyond which an answer is wrong
CLEAR = 1e-7  # slack or multiplier that is surely not zero, relative
WIDE = 1e8  # condition number from which a system is factorized in extended precision
PIVOT = 1e-40  # of an equilibrated matrix that is singular
WIDER = 1e13  # and from which with 60 digits


@dataclass(frozen=True, eq=False)
class Optimum:
    """A proved solution on its binding rows.

    Attributes
    ----------
    z, nu, lam
        The point, and its multipliers.
    rows
        Mask of the rows of G that bind.
    margin
        Smallest slack or multiplier, relative, of those that should not be zero.
    condition
        Of the equilibrated KKT matrix.
    weights
        Units of the variables, and of the rows of A and G.
    """

    z: Array
    nu: Array
    lam: Array
    rows: Mask
    margin: float
    condition: float
    weights: tuple[Array, Array, Array]
    system: System

    @property
    def strict(self) -> bool:
        """Whether the gradient exists, beyond doubt."""
        return self.margin > CLEAR


class System:
    """The KKT matrix [P Cᵀ; C 0], equilibrated by powers of two, and solved to beyond float64."""

    def __init__(self, P: Array, C: Array) -> None:
        n, m = P.shape[0], C.shape[0]
        K = np.zeros((n + m, n + m))
        K[:n, :n], K[n:, :n], K[:n, n:] = P, C, C.T
        scale = np.ones(n + m)
        for _ in range(12):
            size = np.abs(scale[:, None] * K * scale).max(axis=1)
            scale /= np.sqrt(np.where(size > 0.0, size, 1.0))
        self.scale = 2.0 ** np.round(np.log2(scale))
        self.scaled = self.scale[:, None] * K * self.scale
        values = np.linalg.svd(self.scaled, compute_uv=False)
        self.condition = float(values[0] / values[-1]) if values[-1] > 0.0 else np.inf
        self.precision: type = float
        if self.condition > WIDE:
            self.precision = Wide if self.condition < WIDER else object
        self.matrix = _cast(self.scaled, Wide if self.precision is float else self.precision)
        try:
            hard = self.precision is not float
            self.factor = _factor(self.matrix) if hard else lu_factor(self.scaled)
        except ZeroDivisionError:
            self.factor = None

    def solve(self, right: NDArray[Wide]) -> NDArray[Wide]:
        """Solve, refined to the last digits of an extended precision."""
        kind = self.matrix.dtype.type
        right = _cast(right * self.scale, kind)
        x = _cast(np.zeros(len(right)), kind)
        for _ in range(8):
            left = right - self.matrix @ x
            if self.precision is float:
                step = lu_solve(self.factor, left.astype(float))
            else:
                step = _solve(self.factor, left)
            x = x + step
            if np.abs(step).max(initial=0) <= 1e-17 * np.abs(x).max(initial=0):
                break
        return (
            np.array([Wide(str(value)) for value in x]) * self.scale
            if kind is np.object_
            else (x * self.scale)
        )


def _cast(value: NDArray[Any], kind: type) -> NDArray[Any]:
    if kind in (object, np.object_):
        flat = [
            mpmath.mpf(str(part)) if isinstance(part, Wide) else mpmath.mpf(part)
            for part in value.ravel()
        ]
        return np.array(flat, dtype=object).reshape(value.shape)
    return value.astype(kind)


def _factor(K: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """LU factorization with partial pivoting in any arithmetic."""
    M, order = K.copy(), np.arange(len(K))
    for k in range(len(K)):
        i = k + int(np.abs(M[k:, k]).argmax())
        M[[k, i]], order[[k, i]] = M[[i, k]], order[[i, k]]
        if abs(M[k, k]) <= PIVOT:
            raise ZeroDivisionError
        M[k + 1 :, k] /= M[k, k]
        M[k + 1 :, k + 1 :] -= np.outer(M[k + 1 :, k], M[k, k + 1 :])
    return M, order


def _solve(factor: tuple[NDArray[Any], NDArray[np.intp]], right: NDArray[Any]) -> NDArray[Any]:
    M, order = factor
    x = right[order]
    for i in range(1, len(x)):
        x[i] -= M[i, :i] @ x[:i]
    for i in reversed(range(len(x))):
        x[i] = (x[i] - M[i, i + 1 :] @ x[i + 1 :]) / M[i, i]
    return x


def _over(part: NDArray[Wide], terms: NDArray[Wide]) -> NDArray[Wide]:
    """Divide by the sizes of the terms; nothing over nothing is nothing."""
    return np.where(part == 0.0, 0.0, part / np.where(terms > 0.0, terms, 1e-300))


def conditions(
    problem: Problem, z: Array, nu: Array, lam: Array
) -> tuple[float, NDArray[Wide], NDArray[Wide]]:
    """Check the KKT conditions.

    A force that vanishes is judged as if it were a ten-thousandth of the largest, as for lengths
    (see `_sizes`). Returns the largest violation, and slack and multiplier of each row of G, all
    relative.
    """
    P, q, A, b, G, h = (getattr(problem, name).astype(Wide) for name in NAMES)
    z, nu, lam = z.astype(Wide), nu.astype(Wide), lam.astype(Wide)
    if not all(np.isfinite(part).all() for part in (z, nu, lam)):
        return float("inf"), np.zeros(len(h), dtype=Wide), np.zeros(len(h), dtype=Wide)
    finite = np.isfinite(problem.h)
    G, h = np.where(finite[:, None], G, 0.0), np.where(finite, h, np.sign(h))
    size = np.clip(np.abs(z), *_sizes(problem, z))
    forces = np.abs(P) @ size + np.abs(q) + np.abs(A.T) @ np.abs(nu) + np.abs(G.T) @ np.abs(lam)
    D = _reach(problem)[0]
    enough = np.maximum(forces, 1e-4 * (D * forces).max() / D)
    off = _over(np.abs(P @ z + q + A.T @ nu + G.T @ lam), enough)
    gap = _over(np.abs(A @ z - b), np.abs(A) @ size + np.abs(b))
    slack = _over(h - G @ z, np.abs(G) @ size + np.abs(h))
    pushes = [
        _over(np.abs(lam)[:, None] * np.abs(G), by).max(axis=1, initial=0.0) * np.sign(lam)
        for by in (enough, forces)
    ]
    parts = [off, gap, -slack, -pushes[0], np.minimum(np.abs(slack), np.abs(pushes[0]))]
    return max(float(part.max(initial=0.0)) for part in parts), slack, pushes[1]


def prove(problem: Problem, rows: Mask) -> Optimum | None:
    """Solve on the given rows and check: proved optimal, or None."""
    if not np.isfinite(problem.h[rows]).all():
        return None
    n, neq = problem.n, len(problem.b)
    C = np.concatenate([problem.A, problem.G[rows]])
    if len(C) > n:
        return None
    system = System(problem.P, C)
    if system.factor is None:
        return None
    right = np.concatenate([-problem.q, problem.b, problem.h[rows]]).astype(Wide)
    found = system.solve(right)
    z, nu, lam = found[:n], found[n : n + neq], np.zeros(len(problem.h), dtype=Wide)
    lam[rows] = found[n + neq :]
    worst, slack, push = conditions(problem, z, nu, lam)
    if not worst <= PROVED:
        return None
    margin = np.where(rows, push, slack)[np.isfinite(problem.h)].min(initial=1.0)
    D, E = system.scale[:n], system.scale[n : n + neq]
    reach = np.abs(problem.G * D).max(axis=1)
    F = 1.0 / np.where(reach > 0.0, reach, 1.0)
    F[rows] = system.scale[n + neq :]
    return Optimum(
        z.astype(float),
        nu.astype(float),
        lam.astype(float),
        rows,
        float(margin),
        system.condition,
        (D, E, F),
        system,
    )


def optimum(problem: Problem, *guesses: Mask | None) -> Optimum | None:
    """Find a proved solution from guesses of the binding rows, the last of them Clarabel's."""
    for rows in (problem.active, *guesses):
        found = None if rows is None else prove(problem, rows)
        if found is not None:
            return found
    point = by_clarabel(problem)
    if point is None:
        return None
    z, nu, lam = point
    _, slack, push = conditions(problem, z, nu, lam)
    return prove(problem, push > np.abs(slack))


def by_clarabel(problem: Problem) -> tuple[Array, Array, Array] | None:
    """Solve by Clarabel with a slack for every row: Gz + s = h, s ≥ 0, rows of unit length."""
    n, neq = problem.n, len(problem.b)
    keep = np.isfinite(problem.h)
    C = np.concatenate([problem.A, problem.G[keep]])
    d = np.concatenate([problem.b, problem.h[keep]])
    m = len(d) - neq
    reach = np.abs(C).max(axis=1, initial=0.0)
    weight = 1.0 / np.where(reach > 0.0, reach, 1.0)
    slacks = np.concatenate([np.zeros((neq, m)), np.eye(m)])
    rows = np.block([[weight[:, None] * C, slacks], [np.zeros((m, n)), -np.eye(m)]])
    P = sp.block_diag([problem.P, sp.csc_matrix((m, m))], format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    solver = clarabel.DefaultSolver(
        sp.triu(P, format="csc"),
        np.concatenate([problem.q, np.zeros(m)]),
        sp.csc_matrix(rows),
        np.concatenate([weight * d, np.zeros(m)]),
        [clarabel.ZeroConeT(neq + m), clarabel.NonnegativeConeT(m)],
        settings,
    )
    found = solver.solve()
    x, y = np.array(found.x), np.array(found.z)
    if len(x) != n + m or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    lam = np.zeros(len(problem.h))
    lam[keep] = np.maximum(y[neq : neq + m] * weight[neq:], 0.0)
    return x[:n], y[:neq] * weight[:neq], lam


def _sizes(problem: Problem, z: Array) -> tuple[Array, Array]:
    """Sizes that an entry of z is at least and at most judged as if it had.

    At least a ten-thousandth of the whole of z, or, where that vanishes, of where the objective
    alone or the constraints would have it. At most 1e5 times the latter: far away, everything is
    small beside terms that cancel. Each is in the units of its variable.
    """
    D, reach = _reach(problem)
    least = 1e-4 * max(float(np.abs(z / D).max()), 1e-4 * reach)
    most = 1e5 * reach if reach > 0.0 else np.inf
    return np.minimum(least, most) * D, most * D


@lru_cache(maxsize=8)
def _reach(problem: Problem) -> tuple[Array, float]:
    D, _, b, _, h = _unit(problem)
    curve = float(np.abs(D[:, None] * problem.P * D).max())
    pull = float(np.abs(D * problem.q).max()) / curve if curve > 0.0 else 0.0
    sides = np.abs(np.concatenate([b, h]))
    return D, max(pull, float(sides[sides < 1e9].max(initial=0.0)))


# -- is there a solution? ---------------------------------------------------------------------


def verdict(problem: Problem) -> str:
    """Say "solution", "infeasible", "unbounded", "not convex" or "undecided"."""
    if problem.verdict:
        return problem.verdict
    if (problem.h == -np.inf).any():
        return "infeasible"
    margin = feasibility(problem)
    if margin < -CLEAR:
        return "infeasible"
    if optimum(problem) is not None:
        return "solution"
    return "unbounded" if margin >= 0.0 and descent(problem) > CLEAR else "undecided"


def _unit(problem: Problem) -> tuple[Array, Array, Array, Array, Array]:
    """Variables and rows in units of their own: column scale, A, b, G, h."""
    keep = np.isfinite(problem.h)
    A, G = problem.A, problem.G[keep]
    both = np.abs(np.concatenate([A, G, problem.P]))
    rows, columns = np.ones(len(both)), np.ones(problem.n)
    for _ in range(12):
        now = rows[:, None] * both * columns
        across, down = now.max(axis=1, initial=0.0), now.max(axis=0, initial=0.0)
        rows /= np.sqrt(np.where(across > 0.0, across, 1.0))
        columns /= np.sqrt(np.where(down > 0.0, down, 1.0))
    neq, m = len(A), len(G)
    E, F = rows[:neq], rows[neq : neq + m]
    return (
        columns,
        E[:, None] * A * columns,
        E * problem.b,
        F[:, None] * G * columns,
        (F * problem.h[keep]),
    )


def feasibility(problem: Problem) -> float:
    """How far inside (> 0) or outside (< 0) the best point is, relative to the rows' terms.

    HiGHS finds the z of least worst violation; its value is believed only as measured at z, and
    as far as the dual solution proves it.
    """
    _, A, b, G, h = _unit(problem)
    neq, m, n = len(b), len(h), problem.n
    if neq + m == 0:
        return 1.0
    size = np.concatenate([np.abs(b), np.abs(h)])
    size = np.where(size > 0.0, size, 1.0)
    C = np.concatenate([A, -A, G])
    d = np.concatenate([b, -b, h])
    sizes = np.concatenate([size[:neq], size[:neq], size[neq:]])
    cost = np.zeros(n + 1)
    cost[-1] = 1.0
    found = linprog(
        cost,
        A_ub=np.concatenate([C / sizes[:, None], -np.ones((len(d), 1))], axis=1),
        b_ub=d / sizes,
        bounds=[(None, None)] * n + [(-1.0 if neq == 0 else 0.0, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        return 0.0
    z = found.x[:n].astype(Wide)
    over = np.concatenate([np.abs(A @ z - b), G @ z - h])
    terms = np.concatenate([np.abs(A) @ np.abs(z) + np.abs(b), np.abs(G) @ np.abs(z) + np.abs(h)])
    worst = float(_over(over, terms).max(initial=-1.0))
    if worst <= PROVED:
        return 0.0 if neq else max(-worst, 0.0)
    # Infeasible if the multipliers say so: Cᵀy = 0 up to what no z of reasonable size makes up for.
    y = np.maximum(-found.ineqlin.marginals, 0.0) / sizes
    gap, left = float(d @ y), float(np.abs(C.T @ y).max())
    terms_d = float(np.abs(d) @ y)
    return gap / terms_d if gap < 0.0 and left * 1e3 < -gap else -1e-10


def descent(problem: Problem) -> float:
    """How steeply the objective falls along a ray of the feasible set; 0 if none was found.

    The ray is found by HiGHS, and checked to rounding.
    """
    D, A, _, G, _ = _unit(problem)
    P, q = D[:, None] * problem.P * D, D * problem.q
    curve, force = float(np.abs(P).max()), float(np.abs(q).max())
    if force == 0.0:
        return 0.0
    flat = np.concatenate([P / (curve or 1.0), A])
    found = linprog(
        q / force,
        A_ub=G if len(G) else None,
        b_ub=np.zeros(len(G)) if len(G) else None,
        A_eq=flat,
        b_eq=np.zeros(len(flat)),
        bounds=(-1.0, 1.0),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        return 0.0
    r = found.x
    rises = (G @ r - PROVED * (np.abs(G) @ np.abs(r))).max(initial=0.0)
    curved = (np.abs(flat @ r) - PROVED * (np.abs(flat) @ np.abs(r))).max()
    return -float(found.fun) if max(rises, curved) <= 0.0 else 0.0


# -- derivatives ------------------------------------------------------------------------------


def gradient(problem: Problem, at: Optimum, v: Array) -> tuple[dict[str, Array], float]:
    """Derivatives of vᵀz* with respect to all data, and the natural size of z̃ and ỹ."""
    n, neq = problem.n, len(problem.b)
    right = np.concatenate([-v, np.zeros(neq + int(at.rows.sum()))]).astype(Wide)
    found = at.system.solve(right)
    natural = float(np.abs(found / at.system.scale).max(initial=0.0))
    x, nu = found[:n], found[n : n + neq]
    lam = np.zeros(len(problem.h), dtype=Wide)
    lam[at.rows] = found[n + neq :]
    half = np.outer(x, at.z) / 2
    grads = {
        "P": half + half.T,
        "q": x,
        "A": np.outer(nu, at.z) + np.outer(at.nu, x),
        "b": -nu,
        "G": np.outer(lam, at.z) + np.outer(at.lam, x),
        "h": -lam,
    }
    return {name: part.astype(float) for name, part in grads.items()}, natural


def difference(
    problem: Problem, at: Optimum, v: Array, grads: dict[str, Array], rng: np.random.Generator
) -> float | None:
    """Compare the derivative along a random change of all data with differences of solutions.

    Returns the relative difference; None where a neighbour has other binding rows.
    """
    change: dict[str, Array] = {}
    for name in NAMES:
        data = np.where(np.isfinite(getattr(problem, name)), getattr(problem, name), 0.0)
        change[name] = data * rng.standard_normal(data.shape)
    change["P"] = np.tril(change["P"]) + np.tril(change["P"], -1).T
    eps = 1e-6 / max(1.0, at.condition * 1e-3)
    values = []
    for sign in (1.0, -1.0):
        data = {name: getattr(problem, name) + sign * eps * change[name] for name in NAMES}
        near = prove(replace(problem, **data), at.rows)
        if near is None:
            return None
        values.append(v @ (near.z - at.z))
    terms = [np.where(change[name] != 0.0, grads[name], 0.0) * change[name] for name in NAMES]
    expected = sum(float(part.sum()) for part in terms)
    size = sum(float(np.abs(part).sum()) for part in terms)
    noise = 1e-15 * float(np.abs(v) @ np.maximum(np.abs(at.z), _sizes(problem, at.z)[0])) / eps
    seen = (values[0] - values[1]) / (2.0 * eps)
    return max(abs(seen - expected) - noise, 0.0) / size if size else 0.0
