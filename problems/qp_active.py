"""Strictly convex QP with a planted solution, multipliers and active set."""

import numpy as np
import scipy.fft
import scipy.sparse as sp

from bpqp_bench import Family, Instance, Planted, Size
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array, Matrix

# Size of the random part of an active constraint row beside its orthonormal part.
_NOISE = 0.25


def generate(
    size: Size,
    rng: np.random.Generator,
    *,
    active_share: float,
    margin: float,
    condition: float,
    density: float,
) -> Instance:
    """Plant z*, ν*, λ* and the active set, then choose q, b and h to make them optimal.

    Parameters
    ----------
    size
        n variables, m equalities and m inequalities.
    rng
        Source of all randomness.
    active_share
        Share of inequalities that are active at z*, in [0, 1]; m(1 + active_share) ≤ n.
    margin
        Strict complementarity: multipliers of active and slacks of inactive inequalities are
        log-uniform between ``margin`` and 1; in (0, 1].
    condition
        Condition number κ ≥ 1 of P, whose eigenvalues are log-spaced from 1/κ to 1.
    density
        1 for dense arrays; a smaller share of non-zeros gives CSC matrices.

    Raises
    ------
    SpecError
        If a parameter is out of its range, or more constraints would be active than there are
        variables.

    Notes
    -----
    q = −Pz* − Aᵀν* − Gᵀλ*, b = Az*, h = Gz* + slack; z*, ν* ~ N(0, 1). P is positive definite, so
    z* is the only solution.

    P = T diag(eigenvalues) Tᵀ with an orthogonal T that needs no n³ operations: discrete cosine
    transforms and random signs if dense; if sparse, random Givens rotations of disjoint pairs of
    coordinates until the density is reached (condition 1 leaves it diagonal).

    The Jacobian [A; G₊] of the active constraints is a matrix with orthonormal rows plus Gaussian
    noise of a quarter of their size. Its condition number is about 2, also where it is square (at
    most 3.5 in 2280 draws from 4x2 to 200x100).
    """
    n, m = size.n, size.m
    _check(active_share, margin, condition, density)
    k = round(active_share * m)
    if m + k > n:
        remedy = f"active_share ≤ {np.floor(100 * (n - m) / m) / 100:g}" if n >= m else f"M ≤ {n}"
        raise SpecError(
            f"qp-active at size {size} with active_share={active_share:g} has {m} equalities and "
            f"{k} active inequalities for {n} variables; choose {remedy}"
        )
    eigenvalues = rng.permutation(condition ** -np.linspace(0.0, 1.0, n))
    if density < 1.0:
        P: Matrix = _sparse_positive(eigenvalues, rng, density)
        J, loose = _sparse_rows(n, m + k, rng, density), _sparse_noise(m - k, n, rng, density)
        order = rng.permutation(m)
        A: Matrix = J[:m].tocsc()
        G: Matrix = sp.vstack([J[m:], loose]).tocsr()[order].tocsc()
    else:
        P = _dense_positive(eigenvalues, rng)
        rows = _dense_rows(n, m + k, rng)
        A, G = rows[:m].copy(), np.empty((m, n))
        G[:k] = rows[m:]
        del rows
        G[k:] = rng.standard_normal((m - k, n)) / np.sqrt(n)
        order = rng.permutation(m)
        G = G[order]
    active = order < k
    z, nu = rng.standard_normal(n), rng.standard_normal(m)
    size_of = margin ** rng.random(m)
    lam = np.where(active, size_of, 0.0)
    return Instance(
        P=P,
        q=-_times(P, z) - _transposed_times(A, nu) - _transposed_times(G, lam),
        A=A,
        b=_times(A, z),
        G=G,
        h=_times(G, z) + np.where(active, 0.0, size_of),
        problem_class="qp",
        planted=Planted(z=z, nu=nu, lam=lam, active=active, feasible=z),
    )


def _check(active_share: float, margin: float, condition: float, density: float) -> None:
    if not 0.0 <= active_share <= 1.0:
        raise SpecError(f"qp-active needs 0 ≤ active_share ≤ 1, got {active_share:g}")
    if not 0.0 < margin <= 1.0:
        raise SpecError(f"qp-active needs 0 < margin ≤ 1, got {margin:g}")
    if not 1.0 <= condition < np.inf:
        raise SpecError(f"qp-active needs condition ≥ 1, got {condition:g}")
    if not 0.0 < density <= 1.0:
        raise SpecError(f"qp-active needs 0 < density ≤ 1, got {density:g}")


def _signs(rng: np.random.Generator, n: int) -> Array:
    signs: Array = rng.choice(np.array([-1.0, 1.0]), size=n)
    return signs


def _cosine(M: Array, axis: int) -> Array:
    transformed: Array = scipy.fft.dct(M, axis=axis, norm="ortho", overwrite_x=True)
    return transformed


def _dense_positive(eigenvalues: Array, rng: np.random.Generator) -> Array:
    # Two rounds: after one, P is the sum of a Toeplitz and a Hankel matrix.
    P = np.diag(eigenvalues)
    for _ in range(2):
        signs = _signs(rng, eigenvalues.size)
        P *= signs
        P *= signs[:, None]
        P = _cosine(_cosine(P, 0), 1)
    n = eigenvalues.size
    for start in range(0, n, 512):  # exact symmetry, in blocks to save a copy of P
        rows = slice(start, min(start + 512, n))
        half = 0.5 * (P[rows, start:] + P[start:, rows].T)
        P[rows, start:], P[start:, rows] = half, half.T
    return P


def _dense_rows(n: int, count: int, rng: np.random.Generator) -> Array:
    rows = np.zeros((count, n))
    rows[np.arange(count), rng.permutation(n)[:count]] = 1.0
    for _ in range(2):
        rows = _cosine(rows, 1)
        rows *= _signs(rng, n)
    for i in range(count):  # one at a time: the noise needs no second matrix
        rows[i] += _NOISE / np.sqrt(n) * rng.standard_normal(n)
    return rows


def _sparse_positive(eigenvalues: Array, rng: np.random.Generator, density: float) -> Matrix:
    n = eigenvalues.size
    P = sp.csc_matrix(sp.diags(eigenvalues, format="csc"))
    if eigenvalues.min() == eigenvalues.max():
        return P  # a multiple of I, which no rotation fills
    pairs = max(1, n // 16)  # rotating all n/2 pairs at once would make four times the non-zeros
    for _ in range(1000):  # about 50 do; rounding may stop the filling if the condition is near 1
        if P.nnz >= density * n * n:
            break
        order = rng.permutation(n)
        first, second, others = np.split(order, [pairs, 2 * pairs])
        angle = rng.uniform(0.0, 2.0 * np.pi, size=pairs)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = sp.csc_matrix(
            (
                np.concatenate([cos, cos, sin, -sin, np.ones(others.size)]),
                (
                    np.concatenate([first, second, first, second, others]),
                    np.concatenate([first, second, second, first, others]),
                ),
            ),
            shape=(n, n),
        )
        P = rotation @ P @ rotation.T
    P = sp.csc_matrix(0.5 * (P + P.T))
    P.sort_indices()
    return P


def _sparse_noise(count: int, n: int, rng: np.random.Generator, density: float) -> Matrix:
    # A row norm near one, as in the dense case; never an empty row.
    per_row = max(1, round(density * n))
    columns = rng.integers(0, n, size=(count, per_row))
    values = rng.standard_normal((count, per_row)) / np.sqrt(per_row)
    indptr = np.arange(0, count * per_row + 1, per_row)
    return sp.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=(count, n))


def _sparse_rows(n: int, count: int, rng: np.random.Generator, density: float) -> Matrix:
    columns = rng.permutation(n)[:count]
    base = sp.csr_matrix((_signs(rng, count), (np.arange(count), columns)), shape=(count, n))
    return sp.csr_matrix(base + _NOISE * _sparse_noise(count, n, rng, density))


def _times(M: Matrix, x: Array) -> Array:
    # einsum and not BLAS, whose last bits depend on the number of threads
    return np.asarray(M @ x) if sp.issparse(M) else np.einsum("ij,j->i", M, x)


def _transposed_times(M: Matrix, x: Array) -> Array:
    return np.asarray(M.T @ x) if sp.issparse(M) else np.einsum("ij,i->j", M, x)


FAMILY = Family(
    name="qp-active",
    label="QP, active",
    problem_class="qp",
    source="this suite",
    generate=generate,
    parameters={"active_share": 0.5, "margin": 0.1, "condition": 100.0, "density": 1.0},
    # No redraw_q: the active set is planted for this q, and another q has another one.
)
