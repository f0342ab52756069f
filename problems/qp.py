"""The paper's random dense QP."""

import numpy as np

from bpqp_bench import Family, Instance, Size
from bpqp_bench.errors import SpecError


def generate(size: Size, rng: np.random.Generator, delta: float) -> Instance:
    """P = P'ᵀP' + δI, h = Gz', and P', q, A, b, G, z' all U(0, 1).

    Parameters
    ----------
    size
        n variables, m equalities and m inequalities, 2m ≤ n.
    rng
        Source of all randomness.
    delta
        δ > 0; the paper's text has 1e-6, its notebook 1e-3.

    Raises
    ------
    SpecError
        If 2m > n or δ ≤ 0.

    Notes
    -----
    Bounded, because P is positive definite. h = Gz' alone says nothing about feasibility, for
    Az' ≠ b. It is 2m ≤ n that gives it: the square or wide matrix [A; G] of continuous random
    entries has full row rank with probability one, so some z has Az = b and Gz = h at once. All
    sizes of the paper satisfy 2m ≤ n (10x5 with equality). Beyond it instances may be infeasible,
    by a linear program 5 of 200 at 10x8 and 94 of 200 at 10x10, and are refused.

    The entries of P' are multiples of 2⁻²⁰ (of less beyond n = 8192). Every sum in P'ᵀP' is then
    exact in float64, so that P is exactly symmetric and has the same bits whatever the BLAS, its
    number of threads and the processor; otherwise these decide about the last bits and with them
    about the hash. For the same reason Gz' does not go through BLAS.
    """
    n, m = size.n, size.m
    if 2 * m > n:
        raise SpecError(
            f"qp at size {size} need not be feasible; choose M ≤ N/2, here M ≤ {n // 2}"
        )
    if not 0.0 < delta < np.inf:
        raise SpecError(f"qp needs a finite delta > 0, to be strictly convex, and got {delta:g}")
    bits = min(20, (53 - int(n - 1).bit_length()) // 2)
    root = rng.integers(0, 2**bits, size=(n, n), dtype=np.int32).astype(np.float64)
    root *= 2.0**-bits
    P = root.T @ root
    del root  # before A and G are drawn: at 5000x2000 it is as large as P
    P[np.diag_indices(n)] += delta
    q, A, b, G = rng.random(n), rng.random((m, n)), rng.random(m), rng.random((m, n))
    h = np.einsum("ij,j->i", G, rng.random(n))
    return Instance(P=P, q=q, A=A, b=b, G=G, h=h, problem_class="qp")


def redraw_q(instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Draw q ~ U(0, 1) again: P is positive definite, so any q keeps the problem bounded."""
    return rng.random(instance.n)


FAMILY = Family(
    name="qp",
    label="QP",
    problem_class="qp",
    source="Pan et al., NeurIPS 2024, section 5.1",
    generate=generate,
    parameters={"delta": 1e-6},
    redraw_q=redraw_q,
)
