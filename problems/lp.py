"""The paper's random LP with a quadratic term that makes its solution unique."""

import numpy as np

from bpqp_bench import Family, Instance, Planted, Size
from bpqp_bench.errors import SpecError


def generate(size: Size, rng: np.random.Generator, eps: float) -> Instance:
    """Minimize θᵀz + ε‖z‖² subject to Az = b, Gz ≤ h; as a QP, P = 2εI and q = θ.

    x0, A, G ~ U(0, 1), b = A x0, s0 ~ N(0, 1), h = G x0 + max(s0, 0), θ = −Gᵀ max(−s0, 0).

    Parameters
    ----------
    size
        n variables, m equalities and m inequalities, m ≤ n.
    rng
        Source of all randomness.
    eps
        ε ≥ 0; 1e-6 in the paper, which gives CVXPY the problem with ε = 0.

    Raises
    ------
    SpecError
        If m > n or ε < 0.

    Notes
    -----
    Feasible at x0. Bounded, because λ = max(−s0, 0) ≥ 0 with ν = 0 is dual feasible for ε = 0.
    Slack max(s0, 0) and multiplier max(−s0, 0) are complementary, so x0 is optimal for ε = 0 and is
    planted with its multipliers then. For ε > 0 the optimum is another point, near the shortest
    vector of the LP's optimal face, and only feasibility of x0 is known.

    About m/2 inequalities are active at x0. With m equalities that leaves n − 3m/2 dimensions free
    (35 of 50 at 50x10): for ε = 0 the solution is not unique and has no gradient. ε picks one
    solution, whose gradient with respect to θ is of the order 1/(2ε).
    """
    n, m = size.n, size.m
    if m > n:
        raise SpecError(f"lp at size {size} has dependent equalities; choose M ≤ N = {n}")
    if not 0.0 <= eps < np.inf:
        raise SpecError(f"lp needs a finite eps ≥ 0, to be convex, and got {eps:g}")
    x0, A, G = rng.random(n), rng.random((m, n)), rng.random((m, n))
    s0 = rng.standard_normal(m)
    slack, lam = np.maximum(s0, 0.0), np.maximum(-s0, 0.0)
    P = np.zeros((n, n))
    P[np.diag_indices(n)] = 2.0 * eps
    planted = Planted(feasible=x0)
    if eps == 0.0:
        planted = Planted(z=x0, nu=np.zeros(m), lam=lam, active=slack == 0.0, feasible=x0)
    # einsum and not BLAS, whose last bits depend on the number of threads
    return Instance(
        P=P,
        q=-np.einsum("ij,i->j", G, lam),
        A=A,
        b=np.einsum("ij,j->i", A, x0),
        G=G,
        h=np.einsum("ij,j->i", G, x0) + slack,
        problem_class="lp",
        planted=planted,
    )


def redraw_q(instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Draw θ = −Gᵀ max(−s, 0) with new s ~ N(0, 1): dual feasible again, hence bounded."""
    lam = np.maximum(-rng.standard_normal(instance.nineq), 0.0)
    q: np.ndarray = -np.einsum("ij,i->j", instance.G, lam)
    return q


FAMILY = Family(
    name="lp",
    label="LP",
    problem_class="lp",
    source="Pan et al., NeurIPS 2024, section 5.1",
    generate=generate,
    parameters={"eps": 1e-6},
    redraw_q=redraw_q,
)
