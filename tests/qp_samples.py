"""Small QPs whose solution is known without solving them."""

import numpy as np
import scipy.sparse as sp


def planted_qp(n=12, neq=3, nineq=6, active=3, seed=0):
    """Strictly convex and complementary QP; its first ``active`` inequalities bind.

    Returns the data by name, and z*, ν*, λ*.
    """
    rng = np.random.default_rng(seed)
    root, A, G = (rng.standard_normal(shape) for shape in ((n, n), (neq, n), (nineq, n)))
    P = root @ root.T + np.eye(n)
    z, nu = rng.standard_normal(n), rng.standard_normal(neq)
    lam, slack = rng.uniform(0.5, 1.5, nineq), rng.uniform(0.5, 1.5, nineq)
    lam[active:], slack[:active] = 0.0, 0.0
    q = -(P @ z + A.T @ nu + G.T @ lam)
    return {"P": P, "q": q, "A": A, "b": A @ z, "G": G, "h": G @ z + slack}, z, nu, lam


def dense(matrix):
    """Return a matrix as an array."""
    return matrix.toarray() if sp.issparse(matrix) else matrix
