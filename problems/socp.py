"""The paper's SOCP: a linear objective over one ball."""

import numpy as np
import scipy.sparse as sp

from bpqp_bench import Family, Instance, Planted, SecondOrderCone, Size


def generate(size: Size, rng: np.random.Generator) -> Instance:
    """Minimize qᵀz subject to ‖z‖₂ ≤ c, with q ~ N(0, 1) and c = ‖u‖₂, u ~ U(0, 1)ⁿ.

    Parameters
    ----------
    size
        n variables; m plays no part in this problem, there are no linear constraints.
    rng
        Source of all randomness.

    Notes
    -----
    z* = −c q/‖q‖ with the cone's multiplier μ* = ‖q‖, and ∂z*/∂q = −(c/‖q‖)(I − qqᵀ/‖q‖²). The
    constraint is always active, as q = 0 has probability zero. F = I is stored as CSC; P is a dense
    zero matrix, so that a dense solver meets no sparse objective.
    """
    n = size.n
    q = rng.standard_normal(n)
    u = rng.random(n)
    radius = float(np.sqrt(np.sum(u * u)))
    norm = float(np.sqrt(np.sum(q * q)))
    ball = SecondOrderCone(
        F=sp.csc_matrix(sp.identity(n, format="csc")), g=np.zeros(n), c=np.zeros(n), d=radius
    )
    return Instance(
        P=np.zeros((n, n)),
        q=q,
        A=np.zeros((0, n)),
        b=np.zeros(0),
        G=np.zeros((0, n)),
        h=np.zeros(0),
        cones=(ball,),
        problem_class="socp",
        planted=Planted(
            z=-radius / norm * q,
            nu=np.zeros(0),
            lam=np.zeros(0),
            mu=np.array([norm]),
            active=np.ones(1, dtype=bool),
            feasible=np.zeros(n),
        ),
    )


def redraw_q(instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Draw q ~ N(0, 1) again: the ball is bounded, so any q will do."""
    return rng.standard_normal(instance.n)


FAMILY = Family(
    name="socp",
    label="SOCP",
    problem_class="socp",
    source="Pan et al., NeurIPS 2024, section 5.1",
    generate=generate,
    redraw_q=redraw_q,
)
