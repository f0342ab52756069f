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
    rows: Array | None = None,
) -> Problem:
    """Plant z*, ν*, λ* with slacks and multipliers far from zero.

    ``rows`` are those of A and of G, the binding ones first.
    """
    n = _size(rng) if n is None else n
    neq = int(rng.integers(0, n)) if neq is None else neq
    active = int(rng.integers(0, n - neq + 1)) if active is None else active
    inactive = int(rng.integers(0, n + 3)) if inactive is None else inactive
    P = definite(rng, n) if P is None else P
    C = rng.standard_normal((neq + active + inactive, n)) if rows is None else rows
    A, G = C[:neq], C[neq:]
    z, nu = rng.standard_normal(n), rng.standard_normal(neq)
    lam, slack = rng.uniform(0.5, 2.0, (2, active + inactive))
    binds = np.arange(active + inactive) < active
    lam, slack = np.where(binds, lam, 0.0), np.where(binds, 0.0, slack)
    order = rng.permutation(len(binds))
    G, lam, slack, binds = G[order], lam[order], slack[order], binds[order]
    q = -(P @ z + A.T @ nu + G.T @ lam)
    return Problem(P, q, A, A @ z, G, G @ z + slack, "solution", z, binds)


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


def _more_rows(problem: Problem, G: Array, h: Array) -> Problem:
    """Append rows to G that bind nowhere near."""
    active = None
    if problem.active is not None:
        active = np.concatenate([problem.active, np.zeros(len(h), dtype=bool)])
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
    if how == "pair":
        g, at = _nonzero(rng, n), float(rng.integers(-64, 65))
        G, h = np.concatenate([G, [g, -g]]), np.concatenate([h, [at, -at - gap]])
    elif how == "combination":
        k = int(rng.integers(2, 5))
        rows, side = _integers(rng, k, n), _integers(rng, k, most=8)
        weights = rng.integers(1, 4, k).astype(float)
        G = np.concatenate([G, rows, [-weights @ rows]])
        h = np.concatenate([h, side, [-weights @ side - gap]])
    elif how == "equalities":
        k = int(rng.integers(1, 3))
        rows, side = _integers(rng, k, n), _integers(rng, k, most=8)
        weights = rng.integers(1, 4, k).astype(float)
        A = np.concatenate([A, rows, [weights @ rows]])
        b = np.concatenate([b, side, [weights @ side + rng.choice([-1, 1]) * gap]])
    elif how == "zero row":
        G, h = np.concatenate([G, np.zeros((1, n))]), np.concatenate([h, [-gap]])
    else:
        G, h = np.concatenate([G, [_nonzero(rng, n)]]), np.concatenate([h, [-np.inf]])
    return replace(base, A=A, b=b, G=G, h=h, verdict="infeasible", z=None, active=None)


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


KINDS: dict[str, Callable[[Rng], Problem | Batch]] = {
    "strict": strict,
    "scalar": scalar,
    "units": units,
    "contradictory": contradictory,
    "box": box,
}
