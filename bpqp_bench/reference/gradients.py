"""Gradients from the backward QP: one linear system, then outer products.

Differentiating the KKT conditions of min ½zᵀPz + qᵀz, Az = b, G₊z = h₊ gives

    K (dz, dν, dλ₊) = −(dP z + dq + dAᵀν + dG₊ᵀλ₊,  dA z − db,  dG₊ z − dh₊)

and, with K (z̃, ν̃, λ̃₊) = −(v, 0, 0) and K symmetric,

    dL = vᵀdz = z̃ᵀ(dP z + dq + dAᵀν + dG₊ᵀλ₊) + ν̃ᵀ(dA z − db) + λ̃₊ᵀ(dG₊ z − dh₊),

the formulas of Pan et al., NeurIPS 2024, Theorem 1, with one scaling throughout. Second-order
cones enter K through the Hessian of the Lagrangian and their gradients; these lines stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance, Matrix
from bpqp_bench.reference.extended import DD, outer_sum


@dataclass(frozen=True, eq=False)
class Triple:
    """z (n,), ν (neq,), λ (nineq,): the solution, or z̃, ν̃, λ̃ with λ̃ zero on inactive rows."""

    z: DD
    nu: DD
    lam: DD


def assemble_gradients(
    instance: Instance, solution: Triple, adjoint: Triple, wrt: Sequence[str]
) -> dict[str, Matrix]:
    """Return {name: gradient}: dense, or CSC on the stored entries where the data are sparse."""
    z, nu, lam = solution.z, solution.nu, solution.lam
    half = DD(0.5 * adjoint.z.hi, 0.5 * adjoint.z.lo)
    outer = {
        "P": (half, z, z, half),
        "A": (adjoint.nu, z, nu, adjoint.z),
        "G": (adjoint.lam, z, lam, adjoint.z),
    }
    vectors = {"q": adjoint.z.hi, "b": -adjoint.nu.hi, "h": -adjoint.lam.hi}
    gradients: dict[str, Matrix] = {}
    for name in wrt:
        if name in vectors:
            gradients[name] = vectors[name] + 0.0  # no negative zeros
        else:
            gradients[name] = _outer(getattr(instance, name), *outer[name])
    return gradients


def _outer(data: Matrix, a: DD, b: DD, c: DD, d: DD) -> Matrix:
    if not sp.issparse(data):
        return outer_sum(a, b, c, d)
    stored = data.tocsc()
    columns = np.repeat(np.arange(stored.shape[1]), np.diff(stored.indptr))
    values: Array = (a[stored.indices] * b[columns] + c[stored.indices] * d[columns]).hi
    return sp.csc_matrix((values, stored.indices, stored.indptr), shape=stored.shape)
