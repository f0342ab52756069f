"""The paper's second-order cone form of a robust LP, its equation (20)."""

import numpy as np
import scipy.sparse as sp

from bpqp_bench import Family, Instance, Planted, SecondOrderCone, Size
from bpqp_bench.errors import SpecError

# Largest ‖aᵢ‖. Below one, each constraint alone confines z to an ellipsoid.
_STEEPEST = 0.9


def generate(size: Size, rng: np.random.Generator, active_share: float, margin: float) -> Instance:
    """Minimize qᵀz subject to aᵢᵀz + ‖z‖₂ ≤ bᵢ, i = 1 … m, with a planted solution.

    Parameters
    ----------
    size
        n variables, m cones; there are no linear constraints.
    rng
        Source of all randomness.
    active_share
        Share of active cones at the solution, in (0, 1]; at least one cone is active, and at most
        n may be.
    margin
        Least multiplier of an active cone and least slack of another, in (0, 1].

    Raises
    ------
    SpecError
        If m = 0, or a parameter is out of its range or asks for more than n active cones.

    Notes
    -----
    This is the robust counterpart of (aᵢ + u)ᵀz ≤ bᵢ for all ‖u‖₂ ≤ 1 (Boyd and Vandenberghe,
    *Convex Optimization*, 4.4.2). The paper names the problem and no data; these are ours:

    - aᵢ has a random direction and ‖aᵢ‖ ~ U(0, 0.9). As (1 − ‖aᵢ‖)‖z‖ ≤ bᵢ on the feasible set,
      the latter is compact, so that the problem is bounded whatever q.
    - z* ~ N(0, 1), bᵢ = aᵢᵀz* + ‖z*‖ + slack. So bᵢ ≥ 0.1‖z*‖ > 0 and z = 0 is strictly
      feasible: Slater's condition holds, no optimum for q ≠ 0 lies at the tip z = 0, and every
      constraint is smooth at z*.
    - q = −Σ μᵢ(aᵢ + z*/‖z*‖) with μᵢ > 0 on the active cones, which makes z* optimal. It is the
      only optimum: the feasible set, an intersection of ellipsoids, is strictly convex.

    Multipliers and slacks are log-uniform between ``margin`` and 1.
    """
    n, m = size.n, size.m
    if m == 0:
        raise SpecError(f"socp-robust at size {size} has no cone; choose M ≥ 1")
    if not 0.0 < active_share <= 1.0:
        raise SpecError(f"socp-robust needs 0 < active_share ≤ 1, got {active_share:g}")
    if not 0.0 < margin <= 1.0:
        raise SpecError(f"socp-robust needs 0 < margin ≤ 1, got {margin:g}")
    k = max(1, round(active_share * m))
    if k > n:
        raise SpecError(
            f"socp-robust at size {size} with active_share={active_share:g} has {k} active cones "
            f"for {n} variables; choose active_share ≤ {np.floor(100 * n / m) / 100:g}"
        )
    a = rng.standard_normal((m, n))
    a *= (_STEEPEST * rng.random(m) / np.sqrt(np.einsum("ij,ij->i", a, a)))[:, None]
    z = rng.standard_normal(n)
    norm = float(np.sqrt(np.sum(z * z)))
    active = np.zeros(m, dtype=bool)
    active[rng.choice(m, size=k, replace=False)] = True
    size_of = margin ** rng.random(m)
    mu = np.where(active, size_of, 0.0)
    # einsum and not BLAS, whose last bits depend on the number of threads
    d = np.einsum("ij,j->i", a, z) + norm + np.where(active, 0.0, size_of)
    identity, zero = sp.csc_matrix(sp.identity(n, format="csc")), np.zeros(n)
    return Instance(
        P=np.zeros((n, n)),
        q=-np.einsum("ij,i->j", a, mu) - np.sum(mu) / norm * z,
        A=np.zeros((0, n)),
        b=np.zeros(0),
        G=np.zeros((0, n)),
        h=np.zeros(0),
        cones=tuple(
            SecondOrderCone(F=identity, g=zero, c=-row, d=float(bound))
            for row, bound in zip(a, d, strict=True)
        ),
        problem_class="socp",
        planted=Planted(
            z=z, nu=np.zeros(0), lam=np.zeros(0), mu=mu, active=active, feasible=np.zeros(n)
        ),
    )


def redraw_q(instance: Instance, rng: np.random.Generator) -> np.ndarray:
    """Draw q ~ N(0, 1): the feasible set is compact. Chance decides how many cones are active."""
    return rng.standard_normal(instance.n)


FAMILY = Family(
    name="socp-robust",
    label="Robust SOCP",
    problem_class="socp",
    source="Pan et al., NeurIPS 2024, equation (20); data of this suite",
    generate=generate,
    parameters={"active_share": 0.5, "margin": 0.1},
    redraw_q=redraw_q,
)
