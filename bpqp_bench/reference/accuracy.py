"""How far a method's answer is from the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance, Matrix
from bpqp_bench.problem.solution import Solution
from bpqp_bench.reference.solution import ReferenceSolution

# A gradient is right up to here (docs/reading-the-tables.md).
COSINE_RIGHT = 1e-6  # 1 − cosine similarity
ERROR_RIGHT = 1e-3  # relative Euclidean error
# A reference gradient below it is zero: those of the families are 1e-3 and more, zero ones 1e-36.
ZERO_GRADIENT = 1e-20


@dataclass(frozen=True)
class Accuracy:
    """One gradient against its reference.

    ``one_minus_cos`` is 1 − cosine similarity, computed without cancellation; ``rel_l2`` the
    relative and ``l2`` the absolute Euclidean error (the 2023 paper's measure); ``norm`` the
    Euclidean norm of the reference gradient.
    """

    one_minus_cos: float
    rel_l2: float
    l2: float
    norm: float

    @property
    def right(self) -> bool | None:
        """Whether the gradient is right; None where the reference is zero and has no direction."""
        if self.norm < ZERO_GRADIENT:
            return None
        return self.one_minus_cos <= COSINE_RIGHT and self.rel_l2 <= ERROR_RIGHT


def gradient_accuracy(gradient: Matrix, reference_gradient: Matrix) -> Accuracy:
    """Compare a gradient with its reference.

    1 − cos is computed as ½‖a/‖a‖ − b/‖b‖‖², which has no cancellation: 1e-30 and 1e-12 differ.
    A gradient that is zero where the reference is not has no direction: its ``one_minus_cos`` is
    1, as for an orthogonal one; two zero gradients agree. NaN anywhere gives NaN.

    Parameters
    ----------
    gradient, reference_gradient
        Same shape, dense or sparse. Where only the reference is sparse (it then covers the stored
        entries of the data), the gradient is compared on its pattern.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if gradient.shape != reference_gradient.shape:
        raise ValueError(
            f"gradient has shape {gradient.shape}, its reference {reference_gradient.shape}"
        )
    a, b = _common_vectors(gradient, reference_gradient)
    scale_a, scale_b = (float(np.abs(x).max(initial=0.0)) for x in (a, b))
    if not (np.isfinite(scale_a) and np.isfinite(scale_b)):
        return Accuracy(one_minus_cos=np.nan, rel_l2=np.nan, l2=np.nan, norm=np.nan)
    norm = scale_b * float(np.linalg.norm(b / scale_b)) if scale_b else 0.0
    l2 = float(np.linalg.norm(a - b))
    if scale_a == 0.0 or scale_b == 0.0:
        one_minus_cos = 0.0 if scale_a == scale_b else 1.0
    else:
        # Dividing by the largest entry first keeps the squares in range.
        unit_a, unit_b = a / scale_a, b / scale_b
        unit_a = unit_a / np.linalg.norm(unit_a)
        unit_b = unit_b / np.linalg.norm(unit_b)
        one_minus_cos = 0.5 * float(np.sum((unit_a - unit_b) ** 2))
    with_reference = l2 / norm if norm > 0.0 else float("inf")
    rel_l2 = 0.0 if l2 == 0.0 else with_reference
    return Accuracy(one_minus_cos=one_minus_cos, rel_l2=rel_l2, l2=l2, norm=norm)


def solution_accuracy(
    instance: Instance, solution: Solution, reference: ReferenceSolution
) -> dict[str, float]:
    """Judge a forward pass.

    Returns
    -------
    dict
        ``primal_residual``, ``dual_residual`` and ``complementarity`` of the point itself (the
        latter two infinite where multipliers are missing), ``objective_gap``
        |f(z) − f(z*)| / (1 + |f(z*)|) and ``solution_error`` ‖z − z*‖ / ‖z*‖ (absolute if z* = 0).
    """
    residuals = instance.residuals(solution.z, solution.nu, solution.lam, solution.mu)
    difference = solution.z - reference.z
    # f(z) − f(z*) as a product with z − z*, so that close values do not cancel
    middle = 0.5 * (instance.P @ (solution.z + reference.z)) + instance.q
    length = float(np.linalg.norm(reference.z))
    return {
        "primal_residual": residuals.primal,
        "dual_residual": residuals.dual,
        "complementarity": residuals.complementarity,
        "objective_gap": abs(float(middle @ difference)) / (1.0 + abs(reference.objective)),
        "solution_error": float(np.linalg.norm(difference)) / (length if length else 1.0),
    }


def _common_vectors(a: Matrix, b: Matrix) -> tuple[Array, Array]:
    if sp.issparse(b):
        stored = b.tocoo()
        rows, columns = stored.row, stored.col
        picked = a.tocsr()[rows, columns] if sp.issparse(a) else a[rows, columns]
        return np.asarray(picked, dtype=np.float64).ravel(), np.asarray(stored.data)
    dense = a.toarray() if sp.issparse(a) else a
    return np.asarray(dense, dtype=np.float64).ravel(), np.asarray(b).ravel()
