"""Problems by kind. Each is made by one function of a random generator, and says what it knows.

What is known comes from how the problem was made: a planted KKT point, a combination of rows that
contradicts itself, a ray. Where that has to be exact, data are small integers, or are scaled by
powers of two.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator
NAMES = ("P", "q", "A", "b", "G", "h")


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h, and what is known of it.

    Attributes
    ----------
    verdict
        "solution", "infeasible", "unbounded", "not convex", "not finite"; "" where unknown.
    gap
        Where there is no solution: the sum that proves it, relative to its terms, those of |z| = 1
        included.
    z
        The only solution, to rounding.
    active
        Mask of the rows of G that bind at a solution: a hint, which the truth checks.
    degenerate
        Whether the gradient does not exist, or is only one-sided; None where unknown.
    parts
        Where not empty, G and h are made of so many rows of h, l, ub and lb, and given as such.
    layout, single, skew
        How the tensors lie in memory, which of them are float32, and whether P has a skew part.
    """

    P: Array
    q: Array
    A: Array
    b: Array
    G: Array
    h: Array
    verdict: str = ""
    gap: float = 1.0
    z: Array | None = None
    active: NDArray[np.bool_] | None = None
    degenerate: bool | None = None
    parts: tuple[int, ...] = ()
    layout: str = "plain"
    single: str = ""
    skew: bool = False

    @property
    def n(self) -> int:
        return self.q.shape[0]


@dataclass(frozen=True, eq=False)
class Batch:
    """Problems of one shape; arguments in ``shared`` are the same for all and given once."""

    problems: tuple[Problem, ...]
    shared: frozenset[str] = frozenset()


def make(kind: str, seed: int) -> Problem | Batch:
    """Make problem ``seed`` of a kind."""
    return KINDS[kind](np.random.default_rng([zlib.crc32(kind.encode()), seed]))


def planted(
    rng: Rng,
    n: int | None = None,
    neq: int | None = None,
    active: int | None = None,
    inactive: int | None = None,
    P: Array | None = None,
    exact: bool = False,
) -> Problem:
    """Plant z*, ν*, λ* with slacks and multipliers far from zero.

    ``exact`` draws small integers, so that the KKT conditions hold without rounding; P must then
    consist of them, too.
    """
    n = _size(rng) if n is None else n
    neq = int(rng.integers(0, n)) if neq is None else neq
    active = int(rng.integers(0, n - neq + 1)) if active is None else active
    inactive = int(rng.integers(0, n + 3)) if inactive is None else inactive
    m = active + inactive
    if exact:
        P = _gram(_integers(rng, n, n)) + np.eye(n) if P is None else P
        A, z, nu = _integers(rng, neq, n), _integers(rng, n), _integers(rng, neq)
        G = np.array([_nonzero(rng, n) for _ in range(m)]).reshape(m, n)
        lam, slack = rng.integers(1, 4, (2, m)).astype(float)
    else:
        P = definite(rng, n) if P is None else P
        A, z, nu = rng.standard_normal((neq, n)), rng.standard_normal(n), rng.standard_normal(neq)
        G = rng.standard_normal((m, n))
        lam, slack = rng.uniform(0.5, 2.0, (2, m))
    binds = rng.permutation(m) < active
    lam, slack = np.where(binds, lam, 0.0), np.where(binds, 0.0, slack)
    q = -(P @ z + A.T @ nu + G.T @ lam)
    return Problem(P, q, A, A @ z, G, G @ z + slack, "solution", z=z, active=binds)


def definite(rng: Rng, n: int) -> Array:
    """Positive definite, of condition up to some thousands."""
    root = rng.standard_normal((n, n))
    return root @ root.T / n + rng.choice([0.01, 0.1, 1.0]) * np.eye(n)


def _size(rng: Rng, most: int = 12) -> int:
    return int(rng.integers(1, most + 1)) if rng.random() < 0.9 else int(rng.integers(12, 41))


def _integers(rng: Rng, *shape: int, most: int = 3) -> Array:
    return rng.integers(-most, most + 1, shape).astype(float)


def _gram(rows: Array) -> Array:
    return rows.T @ rows


def _none(n: int) -> tuple[Array, Array]:
    return np.zeros((0, n)), np.zeros(0)


def _with_rows(problem: Problem, G: Array, h: Array, binds: bool = False) -> Problem:
    """Append rows to G."""
    active = problem.active
    if active is not None:
        active = np.concatenate([active, np.full(len(h), binds)])
    return replace(
        problem,
        G=np.concatenate([problem.G, G]),
        h=np.concatenate([problem.h, h]),
        active=active,
    )


# -- kinds ------------------------------------------------------------------------------------


def strict(rng: Rng) -> Problem:
    """Positive definite, strictly complementary: everything exists."""
    return planted(rng)


def scalar(rng: Rng) -> Problem:
    """One variable, coefficients of any size: the solution is a quotient of two of them."""
    p = 0.0 if rng.random() < 0.3 else 10.0 ** rng.uniform(-8, 8)
    q = 0.0 if rng.random() < 0.2 else rng.choice([-1, 1]) * 10.0 ** rng.uniform(-8, 8)
    m = int(rng.integers(0, 4))
    G = rng.choice([-1.0, 1.0], (m, 1)) * 10.0 ** rng.uniform(-6, 6, (m, 1))
    far = rng.choice([0.0, 1.0, -1.0], m) * 10.0 ** rng.uniform(-6, 6, m)
    h = np.abs(G[:, 0]) * far
    A, b = _none(1)
    low = max((far[i] * -1.0 for i in range(m) if G[i, 0] < 0), default=-np.inf)
    high = min((far[i] for i in range(m) if G[i, 0] > 0), default=np.inf)
    problem = Problem(np.array([[p]]), np.array([q]), A, b, G, h)
    size = max(abs(low), abs(high))
    if low > high:
        # h is rounded, so that a gap in the last digits may be none.
        return replace(problem, verdict="infeasible" if low - high > 1e-6 * size else "")
    free = -q / p if p > 0.0 else -np.inf * np.sign(q) if q else 0.0
    z = min(max(free, low), high)
    if not np.isfinite(z):
        return replace(problem, verdict="unbounded")
    unique = p > 0.0 or q != 0.0 or low == high
    return replace(problem, verdict="solution", z=np.array([z]) if unique else None)


def units(rng: Rng) -> Problem:
    """A well-conditioned problem in other units of objective, rows and variables."""
    base = planted(rng)
    what = rng.choice(["objective", "rows", "variables", "all"])
    c, D, E, F = 1.0, np.ones(base.n), np.ones(len(base.b)), np.ones(len(base.h))

    def powers(*shape: int) -> Array:
        return 2.0 ** rng.integers(-26, 27, shape)

    if what in ("objective", "all"):
        c = float(powers(1)[0])
    if what in ("rows", "all"):
        E, F = powers(len(E)), powers(len(F))
    if what in ("variables", "all"):
        D = powers(base.n)
    assert base.z is not None
    return replace(
        base,
        P=c * D[:, None] * base.P * D,
        q=c * D * base.q,
        A=E[:, None] * base.A * D,
        b=E * base.b,
        G=F[:, None] * base.G * D,
        h=F * base.h,
        z=base.z / D,
    )


def contradictory(rng: Rng) -> Problem:
    """Rows of which a combination with small integers says 0 ≤ −gap."""
    base = planted(rng, n=int(rng.integers(1, 9)))
    n = base.n
    how = rng.choice(["pair", "combination", "equalities", "zero row", "infinite"])
    gap = 2.0 ** -int(rng.integers(0, 28))
    G, h, A, b = base.G, base.h, base.A, base.b
    terms = gap
    if how == "pair":
        g, at = _nonzero(rng, n), float(rng.integers(-64, 65))
        terms = 2.0 * abs(at) + gap + 2.0 * np.abs(g).sum()
        G, h = np.concatenate([G, [g, -g]]), np.concatenate([h, [at, -at - gap]])
    elif how == "combination":
        k = int(rng.integers(2, 5))
        rows, side = _integers(rng, k, n), _integers(rng, k, most=8)
        weights = rng.integers(1, 4, k).astype(float)
        terms = weights @ (np.abs(side) + 2.0 * np.abs(rows).sum(axis=1)) + gap
        G = np.concatenate([G, rows, [-weights @ rows]])
        h = np.concatenate([h, side, [-weights @ side - gap]])
    elif how == "equalities":
        k = int(rng.integers(1, 3))
        rows, side = _integers(rng, k, n), _integers(rng, k, most=8)
        weights = rng.integers(1, 4, k).astype(float)
        terms = weights @ (np.abs(side) + 2.0 * np.abs(rows).sum(axis=1)) + gap
        A = np.concatenate([A, rows, [weights @ rows]])
        b = np.concatenate([b, side, [weights @ side + rng.choice([-1, 1]) * gap]])
    elif how == "zero row":
        G, h = np.concatenate([G, np.zeros((1, n))]), np.concatenate([h, [-gap]])
    else:
        G, h = np.concatenate([G, [_nonzero(rng, n)]]), np.concatenate([h, [-np.inf]])
    known = {"verdict": "infeasible", "gap": float(gap / terms), "z": None, "active": None}
    return replace(base, A=A, b=b, G=G, h=h, **known)


def _nonzero(rng: Rng, n: int) -> Array:
    row = _integers(rng, n)
    row[rng.integers(n)] = rng.choice([-2.0, -1.0, 1.0, 3.0])
    return row


def box(rng: Rng) -> Problem:
    """A box, and P of condition up to 1e8; the solution is not planted."""
    n = _size(rng)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = 10.0 ** (rng.uniform(0, 8) * np.linspace(-1.0, 0.0, n))
    P = (Q * values) @ Q.T
    P = 0.5 * (P + P.T)
    q = P @ rng.uniform(-1.5, 1.5, n) + rng.choice([0.0, 1e-4, 0.1]) * rng.standard_normal(n)
    low, high = -rng.uniform(0.2, 1.0, n), rng.uniform(0.2, 1.0, n)
    A, b = _none(n)
    eye = np.eye(n)
    G, h = np.concatenate([eye, -eye]), np.concatenate([high, -low])
    parts = (0, 0, n, n) if rng.random() < 0.5 else ()
    return Problem(P, q, A, b, G, h, "solution", parts=parts)


def separable(rng: Rng) -> Problem:
    """A diagonal P and a box: each variable by itself, of any size; bounds may be infinite."""
    n = _size(rng)
    p = 10.0 ** rng.uniform(-8, 8, n)
    z = rng.standard_normal(n)
    q = -p * z
    low = np.where(rng.random(n) < 0.4, -np.inf, z + rng.uniform(-1.0, 0.5, n))
    high = np.where(rng.random(n) < 0.4, np.inf, np.maximum(z, low) + rng.uniform(-0.5, 1.0, n))
    far = rng.random(n) < 0.2
    high = np.where(far, 10.0 ** rng.integers(9, 31, n), np.maximum(high, low + 0.1))
    z = np.clip(z, low, high)
    eye, (A, b) = np.eye(n), _none(n)
    G, h = np.concatenate([eye, -eye]), np.concatenate([high, -low])
    parts = (0, 0, n, n) if rng.random() < 0.5 else ()
    return Problem(np.diag(p), q, A, b, G, h, "solution", z=z, parts=parts)


def unbounded(rng: Rng) -> Problem:
    """Small integers with a ray along which the objective falls, more or less steeply."""
    return _with_ray(rng, 0.0)


def faint(rng: Rng) -> Problem:
    """Small integers, and little curvature along what would be a ray: the solution is far away."""
    return _with_ray(rng, 2.0 ** -int(rng.integers(0, 27)))


def _with_ray(rng: Rng, curvature: float) -> Problem:
    n = int(rng.integers(1, 9))
    ray = _nonzero(rng, n)

    def across(rows: Array) -> Array:
        return rows * (ray @ ray) - np.outer(rows @ ray, ray)

    root = across(_integers(rng, n if curvature else int(rng.integers(0, n + 1)), n))
    A = across(_integers(rng, int(rng.integers(0, max(n - 1, 1))), n))
    m = int(rng.integers(0, n + 3))
    G = across(_integers(rng, m, n)) - np.outer(rng.integers(0, 3, m), ray)
    slope = 2.0 ** -int(rng.integers(0, 17))
    q = across(_integers(rng, 1, n))[0] - slope * ray
    # What q pulls at has to be curved, or there is another ray.
    if not root.size or np.linalg.matrix_rank(root) < n - 1:
        q = root.T @ _integers(rng, root.shape[0]) - slope * ray
    z = _integers(rng, n)
    P = _gram(root) + curvature * np.outer(ray, ray)
    verdict = "solution" if curvature else "unbounded"
    gap = float(-q @ ray / (np.abs(q) @ np.abs(ray)))
    return Problem(P, q, A, A @ z, G, G @ z + rng.integers(0, 4, m), verdict, gap)


def indefinite(rng: Rng) -> Problem:
    """P has a negative eigenvalue, clearly, but sometimes of 1e-6 only."""
    n = _size(rng)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = 10.0 ** rng.uniform(-3, 0, n)
    values[rng.integers(n)] = -(10.0 ** rng.uniform(-6, 0))
    P = (Q * values) @ Q.T
    base = planted(rng, n=n, P=0.5 * (P + P.T))
    return replace(base, verdict="not convex", z=None, active=None)


def singular(rng: Rng) -> Problem:
    """Small integers, P of any lower rank; the binding rows make the solution unique, or not."""
    n = int(rng.integers(2, 13))
    rank = int(rng.integers(0, n))
    P = _gram(_integers(rng, rank, n))
    if rng.random() < 0.6:
        held = int(rng.integers(n - rank, n + 1))
        neq = int(rng.integers(0, held + 1))
        base = planted(rng, n=n, neq=neq, active=held - neq, P=P, exact=True)
        return _checked(base)
    held = int(rng.integers(0, n - rank))
    neq = int(rng.integers(0, held + 1))
    base = planted(rng, n=n, neq=neq, active=held - neq, P=P, exact=True)
    return replace(base, z=None, degenerate=True)


def _checked(problem: Problem) -> Problem:
    """Say whether the binding rows are dependent, or leave a flat direction, by ranks."""
    assert problem.active is not None
    C = np.concatenate([problem.A, problem.G[problem.active]])
    rank = np.linalg.matrix_rank
    unique = rank(np.concatenate([problem.P, C])) == problem.n
    independent = len(C) == 0 or rank(C) == len(C)
    z = problem.z if unique else None
    return replace(problem, z=z, degenerate=not (unique and independent))


def lp(rng: Rng) -> Problem:
    """No curvature: a vertex, a vertex with too many rows, or a whole face is optimal."""
    n = int(rng.integers(1, 13))
    held = n + int(rng.choice([0, 0, 1, 2, -1]))
    neq = int(rng.integers(0, min(held, n) + 1))
    exact = held != n or rng.random() < 0.5
    P = np.zeros((n, n))
    return _checked(planted(rng, n=n, neq=neq, active=held - neq, P=P, exact=exact))


def vertex(rng: Rng) -> Problem:
    """As many binding rows as variables, or more: nothing depends on q."""
    n = int(rng.integers(1, 13))
    more = int(rng.choice([0, 0, 1, 2]))
    neq = int(rng.integers(0, n + 1))
    return _checked(planted(rng, n=n, neq=neq, active=n + more - neq, exact=more > 0))


def weak(rng: Rng) -> Problem:
    """Rows with neither slack nor multiplier, exactly."""
    n = int(rng.integers(1, 13))
    base = planted(rng, n=n, exact=True)
    k = int(rng.integers(1, 4))
    rows = np.array([_nonzero(rng, n) for _ in range(k)])
    return replace(_with_rows(base, rows, rows @ base.z), degenerate=True)


def redundant(rng: Rng) -> Problem:
    """Binding rows that repeat, in other units or as a sum of others; exactly."""
    n = int(rng.integers(2, 13))
    neq = int(rng.integers(0, n))
    base = planted(rng, n=n, neq=neq, active=int(rng.integers(neq == 0, n - neq + 1)), exact=True)
    assert base.active is not None
    G, h = base.G[base.active], base.h[base.active]
    A, b = base.A, base.b
    scale = 2.0 ** int(rng.integers(-3, 4))
    how = rng.choice(["equality", "inequality", "both sides", "sum"])
    if how == "equality" and len(b):
        i = rng.integers(len(b))
        base = replace(base, A=np.concatenate([A, [scale * A[i]]]), b=np.append(b, scale * b[i]))
    elif how == "both sides" and len(b):
        i = rng.integers(len(b))
        base = _with_rows(base, np.array([A[i], -A[i]]), np.array([b[i], -b[i]]))
    elif how == "sum" and len(h):
        base = _with_rows(base, G.sum(axis=0)[None], np.array([h.sum()]))
    elif len(h):
        i = rng.integers(len(h))
        base = _with_rows(base, scale * G[i][None], scale * h[i][None])
    else:
        base = replace(base, A=np.concatenate([A, [A[0]]]), b=np.append(b, b[0]))
    return replace(base, degenerate=True)


def near(rng: Rng) -> Problem:
    """A binding row, or an equality, nearly repeats: at a distance of 1e-16 to 1e-6."""
    n = int(rng.integers(2, 13))
    neq = int(rng.integers(0, n - 1))
    base = planted(rng, n=n, neq=neq, active=int(rng.integers(neq == 0, n - neq)))
    assert base.active is not None
    away = 10.0 ** rng.uniform(-16, -6) * rng.standard_normal(n)
    if neq and rng.random() < 0.5:
        row = base.A[rng.integers(neq)] + away
        A, b = np.concatenate([base.A, [row]]), np.append(base.b, row @ base.z)
        return replace(base, A=A, b=b, z=None)
    rows = base.G[base.active] if base.active.any() else base.A
    row = rows[rng.integers(len(rows))] + away
    base = _with_rows(base, row[None], np.array([row @ base.z]))
    return replace(base, z=None)


def bounds(rng: Rng) -> Problem:
    """Rows whose bound is infinite or huge, two-sided rows and boxes as arguments of their own."""
    n = _size(rng)
    base = planted(rng, n=n, active=0, neq=int(rng.integers(0, n)), inactive=0)
    z = base.z
    far = np.array([np.inf, np.inf, 1e9, 1e12, 1e15, 1e19, 1e20, 1e30, 1e300])
    m = int(rng.integers(0, n + 1))
    G = rng.standard_normal((m, n))
    eye = np.eye(n)
    rows = np.concatenate([G, -G, eye, -eye])
    total = len(rows)
    slack = np.where(rng.random(total) < 0.5, rng.uniform(0.5, 2.0, total), rng.choice(far, total))
    binds = np.zeros(total, dtype=bool)
    binds[rng.permutation(total)[: int(rng.integers(0, n - len(base.b) + 1))]] = True
    both = binds[:m] & binds[m : 2 * m]
    binds[m : 2 * m] &= ~both
    binds[2 * m + n :] &= ~binds[2 * m : 2 * m + n]
    lam = np.where(binds, rng.uniform(0.5, 2.0, total), 0.0)
    h = rows @ z + np.where(binds, 0.0, slack)
    problem = replace(base, q=base.q - rows.T @ lam, G=rows, h=h, active=binds, parts=(m, m, n, n))
    if rng.random() < 0.5:
        problem = replace(problem, parts=())
    if rng.random() < 0.1:
        h = h.copy()
        h[rng.integers(total)] = -np.inf
        problem = replace(problem, h=h, verdict="infeasible", z=None, active=None)
    return problem


def single(rng: Rng) -> Problem:
    """Some or all arguments in float32."""
    base = planted(rng)
    names = rng.choice(["PqAbGh", "PqAbGh", "P", "qbh", "AG", "Pq"])
    data = {name: getattr(base, name).astype(np.float32).astype(float) for name in names}
    return replace(base, **data, z=None, single=str(names))


def strides(rng: Rng) -> Problem:
    """Arguments that do not lie in memory one after the other, and P not symmetric."""
    layout = rng.choice(["columns", "sliced", "offset"])
    return replace(planted(rng), layout=str(layout), skew=bool(rng.random() < 0.5))


def negated(rng: Rng) -> Problem:
    """Arguments that torch negates only when they are read (the imaginary part of a conjugate)."""
    return replace(planted(rng), layout="negative")


def sparse(rng: Rng) -> Problem:
    """A problem of another kind, its P, A and G sparse tensors (COO or CSR)."""
    others = (strict, random, integers, scalar, units, singular, lp, vertex, weak, redundant, near)
    others += (faint, unbounded, contradictory, bounds)
    base = others[int(rng.integers(len(others)))](rng)
    return replace(base, layout=str(rng.choice(["coo", "csr"])), parts=())


def batch(rng: Rng) -> Batch:
    """Several problems of one shape; mostly one of them has no solution."""
    n, count = int(rng.integers(1, 9)), int(rng.integers(2, 6))
    neq = int(rng.integers(0, n))
    active, inactive = int(rng.integers(0, n - neq + 1)), int(rng.integers(0, 4))
    P, row = definite(rng, n), rng.standard_normal(n)
    shared = frozenset("P") if rng.random() < 0.5 else frozenset()
    problems = []
    for _ in range(count):
        own = P if shared else definite(rng, n)
        base = planted(rng, n=n, neq=neq, active=active, inactive=inactive, P=own)
        problems.append(
            _with_rows(base, np.array([row, -row]), row @ base.z * np.array([1.0, -1.0]) + 1.0)
        )
    return Batch(_with_a_bad_one(rng, problems, convex=bool(shared)), shared)


def together(rng: Rng) -> Batch:
    """Problems that share P, A and G, as in a network whose constraints never change."""
    n = int(rng.integers(1, 13))
    count = int(rng.integers(2, 6) if rng.random() < 0.9 else rng.integers(33, 40))
    base = planted(rng, n=n, neq=int(rng.integers(0, n)), inactive=int(rng.integers(0, n + 3)))
    P, A, row, (neq, m) = base.P, base.A, rng.standard_normal(n), (len(base.b), len(base.h))
    G = np.vstack([base.G, row, -row])
    problems = []
    for _ in range(count):
        z, nu = rng.standard_normal(n), rng.standard_normal(neq)
        lam, slack = rng.uniform(0.5, 2.0, (2, m + 2))
        binds = np.append(rng.permutation(m) < rng.integers(0, min(n - neq, m) + 1), [False] * 2)
        lam, slack = np.where(binds, lam, 0.0), np.where(binds, 0.0, slack)
        q = -(P @ z + A.T @ nu + G.T @ lam)
        problems.append(Problem(P, q, A, A @ z, G, G @ z + slack, "solution", z=z, active=binds))
    return Batch(_with_a_bad_one(rng, problems, convex=True), frozenset("PAG"))


def _with_a_bad_one(rng: Rng, problems: list[Problem], convex: bool) -> tuple[Problem, ...]:
    """Mostly take its solution from one problem; the last two rows of all are opposite."""
    how = str(rng.choice(["none", "infeasible", "infinite", "not finite", "not convex"]))
    which = int(rng.integers(len(problems)))
    problem = problems[which]
    bad: dict[str, Array] = {}
    if how == "infeasible":
        # The two sides add up to the distance between the two planes.
        apart = problem.h[-2:] - 0.5 * problem.h[-2:].sum() - 1.0
        bad["h"] = np.concatenate([problem.h[:-2], apart])
    elif how == "infinite":
        bad["h"] = np.concatenate([problem.h[:-1], [-np.inf]])
    elif how == "not finite":
        bad["q"] = np.where(np.arange(problem.n) == 0, np.nan, problem.q)
    elif how == "not convex" and not convex:
        bad["P"] = problem.P - 2.0 * np.linalg.norm(problem.P, 2) * np.eye(problem.n)
    if bad:
        verdict = "infeasible" if "h" in bad else how
        problems[which] = replace(problem, **bad, verdict=verdict, z=None, active=None)
    return tuple(problems)


def integers(rng: Rng) -> Problem:
    """Few and small integers, anything may happen; HiGHS knows whether there is a solution."""
    n = int(rng.integers(1, 5))
    P = _gram(_integers(rng, int(rng.integers(0, n + 2)), n))
    neq, m = int(rng.integers(0, min(n, 2) + 1)), int(rng.integers(0, 7))
    A, b = _integers(rng, neq, n), _integers(rng, neq)
    return Problem(P, _integers(rng, n), A, b, _integers(rng, m, n), _integers(rng, m))


def random(rng: Rng) -> Problem:
    """Dense normal data, positive definite; HiGHS knows whether there is a solution."""
    n = _size(rng)
    neq, m = int(rng.integers(0, n)), int(rng.integers(0, 2 * n + 2))
    A, b = rng.standard_normal((neq, n)), rng.standard_normal(neq)
    G, h = rng.standard_normal((m, n)), rng.standard_normal(m) + rng.choice([0.0, 1.0])
    return Problem(definite(rng, n), rng.standard_normal(n), A, b, G, h)


_ALL: tuple[Callable[[Rng], Problem | Batch], ...] = (
    strict,
    random,
    integers,
    scalar,
    separable,
    box,
    units,
    singular,
    lp,
    vertex,
    weak,
    redundant,
    near,
    faint,
    unbounded,
    contradictory,
    indefinite,
    bounds,
    single,
    strides,
    negated,
    sparse,
    batch,
    together,
)
KINDS: dict[str, Callable[[Rng], Problem | Batch]] = {made.__name__: made for made in _ALL}
