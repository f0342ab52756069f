"""The paper's random dense QP."""

import numpy as np

from bpqp_bench import Family, Instance, Size


def generate(size: Size, rng: np.random.Generator, delta: float) -> Instance:
    """P = P'ᵀP' + δI, everything U(0, 1), h = Gz' feasible at z' by construction.

    Parameters
    ----------
    size
        n variables, m equalities and m inequalities.
    rng
        Source of all randomness.
    delta
        δ; the paper's text has 1e-6, its notebook 1e-3.

    Notes
    -----
    h = Gz' makes the inequalities feasible at z' alone; equalities Az = b are feasible because
    n > m and A has full row rank almost surely, and the two together because the all-positive rows
    of G leave room in the null space of A.
    """
    n, m = size.n, size.m
    root = rng.random((n, n))
    P = root.T @ root
    P[np.diag_indices(n)] += delta
    q, A, b, G = rng.random(n), rng.random((m, n)), rng.random(m), rng.random((m, n))
    return Instance(P=P, q=q, A=A, b=b, G=G, h=G @ rng.random(n), problem_class="qp")


FAMILY = Family(
    name="qp",
    label="QP",
    problem_class="qp",
    source="Pan et al., NeurIPS 2024, section 5.1",
    generate=generate,
    parameters={"delta": 1e-6},
    redraw_q=lambda instance, rng: rng.random(instance.n),
)
