"""Conversions that several solvers need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.layers.problem import ConvexQP, QPSolution, no_solution, residuals
from bpqp_bench.problem.instance import Array, Matrix

_NEARLY_FULL = 0.9


def csc(M: Matrix) -> sp.csc_matrix:
    """Sparse form; a full array keeps its (few) zeros, which spares scanning for them."""
    if sp.issparse(M):
        return sp.csc_matrix(M)
    rows, columns = M.shape
    if np.count_nonzero(M) < _NEARLY_FULL * M.size:
        return sp.csc_matrix(M)
    indices = np.tile(np.arange(rows, dtype=np.int32), columns)
    indptr = np.arange(0, rows * columns + 1, max(rows, 1), dtype=np.int32)[: columns + 1]
    return sp.csc_matrix((M.ravel(order="F"), indices, indptr), shape=M.shape)


def csc_upper(P: Matrix) -> sp.csc_matrix:
    """Upper triangle of a symmetric matrix in CSC."""
    n = P.shape[0]
    if sp.issparse(P) or np.count_nonzero(P) < _NEARLY_FULL * P.size:
        return sp.triu(P, format="csc")
    # Row j of the lower triangle is column j of the upper one, stored in order.
    column, row = np.tril_indices(n)
    lengths = np.arange(n + 1, dtype=np.int64)
    indptr = (lengths * (lengths + 1) // 2).astype(np.int32)
    return sp.csc_matrix((P[column, row], row.astype(np.int32), indptr), shape=P.shape)


def dense(M: Matrix) -> Array:
    """Dense form, for solvers that know no other and were asked for by name."""
    return np.asarray(M.toarray() if sp.issparse(M) else M)


def stack_dense(*blocks: Matrix) -> Array:
    """Blocks above one another, dense and C-contiguous."""
    return np.ascontiguousarray(np.concatenate([dense(M) for M in blocks]))


def stack_sparse(*blocks: Matrix) -> sp.csc_matrix:
    """Blocks above one another in CSC; empty ones are skipped."""
    filled = [M for M in blocks if M.shape[0]]
    if not filled:
        return sp.csc_matrix((0, blocks[0].shape[1]))
    if not any(sp.issparse(M) for M in filled):
        return csc(np.concatenate(filled))
    return sp.vstack([csc(M) for M in filled], format="csc")


def answer(
    qp: ConvexQP,
    status: str,
    iterations: int | None,
    z: Array,
    nu: Array,
    lam: Array,
    mu: Array | None = None,
) -> QPSolution:
    """Bring a solver's answer into one form: λ and μ cut off at zero, residuals measured.

    Splitting methods leave multipliers of the wrong sign that are as large as their tolerance.
    """
    z = np.array(z, dtype=np.float64).ravel()
    nu = np.array(nu, dtype=np.float64).ravel()
    lam = np.maximum(np.array(lam, dtype=np.float64).ravel(), 0.0)
    mu = np.zeros(len(qp.cones)) if mu is None else mu
    if not all(np.isfinite(part).all() for part in (z, nu, lam, mu)):
        return failed(qp, status if status != "solved" else "failed (not finite)", iterations)
    primal, dual = residuals(qp, z, nu, lam, mu)
    return QPSolution(z, nu, lam, mu, status, iterations, primal, dual)


def failed(qp: ConvexQP, status: str, iterations: int | None = None) -> QPSolution:
    """Answer of a solver that has no point to give."""
    return no_solution(qp, status, iterations)


def quietly(act: Callable[[], Any]) -> Any:
    """Run something that prints from C, where Python cannot replace stdout, with no output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        return act()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
