"""Projections onto sparse polyhedra: the probability simplex, and chains of bounded steps."""

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp

from bpqp_bench import DENSE_UP_TO, Family, Instance, Size
from bpqp_bench.errors import SpecError

_STEP = 0.5


def generate(size: Size, rng: np.random.Generator, onto: str, n: int) -> Instance:
    """Draw a point y and ask for its projection, minimize ½|z − y|².

    Parameters
    ----------
    size
        As `size_of` says; not used.
    rng
        Source of all randomness.
    onto
        "simplex", {z : 1ᵀz = 1, z ≥ 0}, with y standard normal; or "chain",
        {z : |z_{i+1} − z_i| ≤ ½}, with y a random walk.
    n
        Variables; sparse beyond what the dense methods take.

    Notes
    -----
    Both sets are the standard examples of projections as layers at sizes that dense methods do not
    reach (Duchi et al., ICML 2008, for the simplex; fused or isotonic steps for chains). Feasible
    at z = (1, 0, …, 0) and z = 0; the solution is unique, since P is the identity.
    """
    del size
    eye = sp.eye(n, format="csc")
    if onto == "simplex":
        y = rng.standard_normal(n)
        A, b, G, h = sp.csc_matrix(np.ones((1, n))), np.ones(1), -eye, np.zeros(n)
    else:
        y = np.cumsum(rng.standard_normal(n))
        steps = sp.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
        A, b = sp.csc_matrix((0, n)), np.zeros(0)
        G, h = sp.vstack([steps, -steps], format="csc"), np.full(2 * (n - 1), _STEP)
    P, A, G = (M.toarray() if n <= DENSE_UP_TO else sp.csc_matrix(M) for M in (eye, A, G))
    return Instance(P=P, q=-y, A=A, b=b, G=G, h=h, problem_class="qp")


def size_of(onto: str, n: int) -> Size:
    """Size of the projection in n variables."""
    if onto not in ("simplex", "chain"):
        raise SpecError(f"projection has no {onto!r}; onto is simplex or chain")
    if n < 2:
        raise SpecError(f"projection[onto={onto}] needs n ≥ 2, got {n}")
    return Size.of(n, 1, n) if onto == "simplex" else Size.of(n, 0, 2 * (n - 1))


def members() -> Iterable[dict[str, object]]:
    """Both sets at a size that every dense method takes."""
    return [{"onto": "simplex"}, {"onto": "chain"}]


FAMILY = Family(
    name="projection",
    label="Projections",
    problem_class="qp",
    source="Duchi, Shalev-Shwartz, Singer, Chandra, ICML 2008 (simplex)",
    generate=generate,
    parameters={"onto": "simplex", "n": 50},
    size_of=size_of,
    members=members,
    # 1ᵀz is constant on the simplex.
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
)
