"""The seven problem classes of the OSQP paper's benchmark."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from bpqp_bench import DENSE_UP_TO, Family, Instance, Size, one_sided
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array, Matrix

_DENSITY = 0.15
_HORIZON = 10
# The paper's n (k for portfolio) where none is given: what every dense method can still take.
_SMALL = {
    "random": 20,
    "equality": 50,
    "control": 6,
    "portfolio": 2,
    "lasso": 2,
    "huber": 1,
    "svm": 8,
}


def generate(size: Size, rng: np.random.Generator, kind: str, n: int) -> Instance:
    """Draw a problem of one class, with lower ≤ rows·z ≤ upper written as Az = b, Gz ≤ h.

    Parameters
    ----------
    size
        As `size_of` says; not used.
    rng
        Source of all randomness.
    kind
        random, equality, control, portfolio, lasso, huber or svm.
    n
        The paper's n: variables, states, factors (portfolio, whose k it is), or features; 0 for a
        small one.

    Notes
    -----
    Source: Stellato, Banjac, Goulart, Bemporad, Boyd, "OSQP: an operator splitting solver for
    quadratic programs", Math. Program. Comput. 12 (2020), appendix A. Two departures keep every
    draw feasible: a sparse random row has at least one entry, and in *control* the initial state
    is shrunk until the free response keeps the bounds.

    Feasible: random at 0, equality by b = Az, control with zero input, portfolio at equal weights,
    lasso and huber with any x, svm with x = 0 and t = 1. Bounded: P is positive definite (random,
    equality, portfolio), or the objective is a sum of non-negative terms.
    """
    P, q, rows, lower, upper = _CLASSES[kind](rng, _dimension(kind, n))
    dense = q.size <= DENSE_UP_TO
    return Instance(
        P=P.toarray() if dense else sp.csc_matrix(P),
        q=q,
        **one_sided(rows, lower, upper, dense=dense),
        problem_class="qp",
    )


def size_of(kind: str, n: int) -> Size:
    """Size of the problem in all its variables."""
    k = _dimension(kind, n)
    states, inputs, points, assets = k * (_HORIZON + 1), max(1, k // 2) * _HORIZON, 100 * k, 100 * k
    return {
        "random": Size.of(k, 0, 20 * k),
        "equality": Size.of(k, k // 2, 0),
        "control": Size.of(states + inputs, states, 2 * (states + inputs)),
        "portfolio": Size.of(assets + k, k + 1, assets),
        "lasso": Size.of(2 * k + points, points, 2 * k),
        "huber": Size.of(k + 3 * points, points, 2 * points),
        "svm": Size.of(k + points, 0, 2 * points),
    }[kind]


def members() -> Iterable[dict[str, object]]:
    """All classes at their small size."""
    return [{"kind": kind} for kind in _SMALL]


_Data = tuple[Matrix, Array, Matrix, Array, Array]


def _random(rng: np.random.Generator, n: int) -> _Data:
    m = 10 * n
    P, q = _positive(rng, n), rng.standard_normal(n)
    return P, q, _sparse(rng, m, n), -rng.random(m), rng.random(m)


def _equality(rng: np.random.Generator, n: int) -> _Data:
    P, q, A = _positive(rng, n), rng.standard_normal(n), _sparse(rng, n // 2, n)
    b = A @ rng.standard_normal(n)
    return P, q, A, b, b


def _control(rng: np.random.Generator, nx: int) -> _Data:
    nu, T = max(1, nx // 2), _HORIZON
    A = np.eye(nx) + 0.1 * rng.standard_normal((nx, nx))
    # Rounded: the last bits of LAPACK's results depend on the machine and its threads.
    radius = round(float(np.abs(np.linalg.eigvals(A)).max()), 6)
    A = np.round(A / max(1.0, radius + 0.01), 12)
    B = rng.standard_normal((nx, nu))
    Q = np.diag(10.0 * rng.random(nx) * (rng.random(nx) < 0.7))
    R = 0.1 * np.eye(nu)
    QT = _symmetric(np.round(scipy.linalg.solve_discrete_are(A, B, Q, R), 8))
    x_most, u_most = 1.0 + rng.random(nx), 0.1 * rng.random(nu)
    start = rng.uniform(-0.5, 0.5, nx) * x_most
    free, state = [start], start
    for _ in range(T):
        state = np.einsum("ij,j->i", A, state)
        free.append(state)
    start = start / max(1.0, 1.01 * float(np.max(np.abs(free) / x_most)))
    P = 2.0 * sp.block_diag([*[Q] * T, QT, *[R] * T], format="csc")
    shift = sp.eye(T + 1, k=-1)
    dynamics = sp.hstack(
        [
            sp.kron(shift, A) - sp.eye((T + 1) * nx),
            sp.kron(sp.eye(T + 1, T, k=-1), B),
        ]
    )
    n = P.shape[0]
    right = np.concatenate([-start, np.zeros(T * nx)])
    most = np.concatenate([np.tile(x_most, T + 1), np.tile(u_most, T)])
    return (
        P,
        np.zeros(n),
        sp.vstack([dynamics, sp.eye(n)]),
        np.concatenate([right, -most]),
        np.concatenate([right, most]),
    )


def _portfolio(rng: np.random.Generator, k: int) -> _Data:
    n = 100 * k
    F = _sparse(rng, n, k, density=0.5)
    D = rng.random(n) * np.sqrt(k)
    mu = rng.standard_normal(n)
    P = 2.0 * sp.diags(np.concatenate([D, np.ones(k)]))
    rows = sp.vstack(
        [
            sp.hstack([F.T, -sp.eye(k)]),
            sp.hstack([np.ones((1, n)), sp.csr_matrix((1, k))]),
            sp.hstack([sp.eye(n), sp.csr_matrix((n, k))]),
        ]
    )
    lower = np.concatenate([np.zeros(k), [1.0], np.zeros(n)])
    upper = np.concatenate([np.zeros(k), [1.0], np.full(n, np.inf)])
    return P, np.concatenate([-mu, np.zeros(k)]), rows, lower, upper


def _lasso(rng: np.random.Generator, n: int) -> _Data:
    m = 100 * n
    D = _sparse(rng, m, n)
    x = rng.standard_normal(n) / np.sqrt(n) * (rng.random(n) < 0.5)
    b = D @ x + rng.standard_normal(m)
    weight = 0.2 * float(np.abs(D.T @ b).max())
    P = 2.0 * sp.diags(np.concatenate([np.zeros(n), np.ones(m), np.zeros(n)]))
    q = np.concatenate([np.zeros(n + m), np.full(n, weight)])
    none = sp.csr_matrix((n, m))
    rows = sp.vstack(
        [
            sp.hstack([D, -sp.eye(m), sp.csr_matrix((m, n))]),
            sp.hstack([sp.eye(n), none, -sp.eye(n)]),
            sp.hstack([-sp.eye(n), none, -sp.eye(n)]),
        ]
    )
    lower = np.concatenate([b, np.full(2 * n, -np.inf)])
    return P, q, rows, lower, np.concatenate([b, np.zeros(2 * n)])


def _huber(rng: np.random.Generator, n: int) -> _Data:
    m = 100 * n
    D = _sparse(rng, m, n)
    x = rng.standard_normal(n) / np.sqrt(n)
    noise = np.where(rng.random(m) < 0.95, 0.5 * rng.standard_normal(m), 10.0 * rng.random(m))
    b = D @ x + noise
    P = 2.0 * sp.diags(np.concatenate([np.zeros(n), np.ones(m), np.zeros(2 * m)]))
    q = np.concatenate([np.zeros(n + m), np.full(2 * m, 2.0)])
    rows = sp.vstack(
        [
            sp.hstack([D, -sp.eye(m), -sp.eye(m), sp.eye(m)]),
            sp.hstack([sp.csr_matrix((2 * m, n + m)), sp.eye(2 * m)]),
        ]
    )
    lower = np.concatenate([b, np.zeros(2 * m)])
    return P, q, rows, lower, np.concatenate([b, np.full(2 * m, np.inf)])


def _svm(rng: np.random.Generator, n: int) -> _Data:
    m = 100 * n
    label = np.where(np.arange(m) < m // 2, 1.0, -1.0)
    D = _sparse(rng, m, n)
    D.data = D.data / np.sqrt(n) + np.repeat(label, np.diff(D.indptr)) / n
    P = 2.0 * sp.diags(np.concatenate([np.ones(n), np.zeros(m)]))
    q = np.concatenate([np.zeros(n), np.ones(m)])
    rows = sp.vstack(
        [
            sp.hstack([sp.diags(label) @ D, -sp.eye(m)]),
            sp.hstack([sp.csr_matrix((m, n)), sp.eye(m)]),
        ]
    )
    lower = np.concatenate([np.full(m, -np.inf), np.zeros(m)])
    return P, q, rows, lower, np.concatenate([-np.ones(m), np.full(m, np.inf)])


_CLASSES: dict[str, Callable[[np.random.Generator, int], _Data]] = {
    "random": _random,
    "equality": _equality,
    "control": _control,
    "portfolio": _portfolio,
    "lasso": _lasso,
    "huber": _huber,
    "svm": _svm,
}


def _dimension(kind: str, n: int) -> int:
    if kind not in _SMALL:
        raise SpecError(f"osqp-class has no kind {kind!r}; choose from {', '.join(_SMALL)}")
    least = 2 if kind in {"equality", "control"} else 1
    if n != 0 and n < least:
        raise SpecError(f"osqp-class[kind={kind}] needs n ≥ {least}, got {n}")
    return n or _SMALL[kind]


def _positive(rng: np.random.Generator, n: int) -> Matrix:
    M = _sparse(rng, n, n)
    return _symmetric(M @ M.T) + 0.01 * sp.eye(n)


def _symmetric(M: Any) -> Any:
    return 0.5 * (M + M.T)


def _sparse(rng: np.random.Generator, m: int, n: int, density: float = _DENSITY) -> Any:
    chosen = rng.random((m, n)) < density
    chosen[np.arange(m), rng.integers(0, n, m)] |= ~chosen.any(axis=1)
    return sp.csr_matrix(np.where(chosen, rng.standard_normal((m, n)), 0.0))


FAMILY = Family(
    name="osqp-class",
    label="OSQP classes",
    problem_class="qp",
    source="Stellato et al., Math. Program. Comput. 12 (2020), appendix A",
    generate=generate,
    parameters={"kind": "random", "n": 0},
    size_of=size_of,
    members=members,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
)
