"""Problems as other people store them: rows l ≤ Ax ≤ u, and neighbours of a published problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance, Matrix

# Problems of other people are stored dense up to so many variables, sparse beyond.
DENSE_UP_TO = 700
_INFINITE = 1e19  # 1e20 means "none" in the field's files, and some have it with rounding
_NEAR = 1e-3


def one_sided(
    rows: Matrix,
    lower: Array,
    upper: Array,
    least: Array | None = None,
    most: Array | None = None,
    *,
    dense: bool,
) -> dict[str, Any]:
    """Write lower ≤ rows·z ≤ upper, least ≤ z ≤ most as Az = b, Gz ≤ h.

    Equal bounds give an equality. A finite upper bound gives a row of G, a finite lower bound its
    negative, in this order; bounds of the variables come after those of the rows. What has no
    finite bound disappears.

    Parameters
    ----------
    rows, lower, upper
        Shapes (m, n), (m,), (m,); magnitudes from 1e19 on mean that there is no bound.
    least, most
        Bounds of the variables, shape (n,); None for none.
    dense
        Whether to return arrays or CSC matrices.

    Returns
    -------
    dict
        A, b, G, h as `Instance` takes them.
    """
    n = rows.shape[1]
    stacked = sp.csr_matrix(rows, dtype=np.float64)
    lo, up = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if least is not None or most is not None:
        stacked = sp.vstack([stacked, sp.eye(n, format="csr")], format="csr")
        lo = np.concatenate([lo, np.full(n, -np.inf) if least is None else least])
        up = np.concatenate([up, np.full(n, np.inf) if most is None else most])
    stacked.sum_duplicates()
    equal = (lo == up) & (np.abs(lo) < _INFINITE)
    above, below = ~equal & (up < _INFINITE), ~equal & (lo > -_INFINITE)
    A = stacked[equal]
    G = sp.vstack([stacked[above], -stacked[below]], format="csr")
    return {
        "A": A.toarray() if dense else sp.csc_matrix(A),
        "b": lo[equal],
        "G": G.toarray() if dense else sp.csc_matrix(G),
        "h": np.concatenate([up[above], -lo[below]]),
    }


def nearby_q(instance: Instance, rng: np.random.Generator) -> Array:
    """Draw q' near q with which the problem stays bounded: for `Family.neighbour`.

    q' = q + Pδ − Gᵀw with w ≥ 0, scaled to ‖q' − q‖∞ = 1e-3‖q‖∞ (1e-3 where q is zero). A convex
    QP is bounded if and only if qᵀd ≥ 0 for every d with Pd = 0, Ad = 0 and Gd ≤ 0, and for such d
    q'ᵀd = qᵀd − wᵀGd ≥ qᵀd. Feasibility does not depend on q.
    """
    lengths = np.asarray(abs(instance.G).sum(axis=1)).ravel()
    w = rng.random(instance.nineq) / np.where(lengths > 0.0, lengths, 1.0)
    delta = rng.standard_normal(instance.n)
    step = _transposed(instance.P, delta) - _transposed(instance.G, w)
    largest = float(np.abs(step).max(initial=0.0))
    scale = float(np.abs(instance.q).max(initial=0.0)) or 1.0
    return np.asarray(instance.q + (_NEAR * scale / largest if largest else 0.0) * step)


def _transposed(M: Matrix, x: Array) -> Array:
    # einsum and not BLAS, whose last bits depend on the number of threads
    return np.asarray(M.T @ x) if sp.issparse(M) else np.einsum("ij,i->j", M, x)
