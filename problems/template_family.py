"""Start here: the nearest point of a random polyhedron. Copy this file to ``problems/NAME.py``."""

import numpy as np

from bpqp_bench import Family, Instance, Planted, Size
from bpqp_bench.errors import SpecError


def generate(size: Size, rng: np.random.Generator, slack: float) -> Instance:
    """Project a random point x onto {z: Az = b, Gz ≤ h}: minimize ½‖z − x‖².

    Parameters
    ----------
    size
        n variables, m equalities and m inequalities, m ≤ n.
    rng
        Source of all randomness: no seed and no other generator anywhere in this function.
    slack
        Scale of the distance between the planted feasible point and the inequalities.

    Raises
    ------
    SpecError
        If m > n.
    """
    n, m = size.n, size.m
    if m > n:
        raise SpecError(f"size {size} has dependent equalities; choose M ≤ N = {n}")
    x, inside = rng.standard_normal(n), rng.standard_normal(n)
    A, G = rng.standard_normal((m, n)), rng.standard_normal((m, n))
    return Instance(
        P=np.eye(n),
        q=-x,
        A=A,
        b=np.einsum("ij,j->i", A, inside),
        G=G,
        h=np.einsum("ij,j->i", G, inside) + slack * rng.random(m),
        problem_class="qp",
        planted=Planted(feasible=inside),
    )


def redraw_q(instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Draw another point to project."""
    return -rng.standard_normal(instance.n)


FAMILY = Family(
    name="nearest-point",
    label="Nearest point",
    problem_class="qp",
    source="this suite",
    generate=generate,
    parameters={"slack": 0.1},
    redraw_q=redraw_q,
)
