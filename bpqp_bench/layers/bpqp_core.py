"""The two passes of BPQP on one problem in NumPy: settings, forward, backward."""

from __future__ import annotations

from bpqp_bench.layers.backward import (
    Adjoint,
    adjoint_qp,
    backward_pass,
    gradients,
    matrix_factors,
    vector_gradient,
)
from bpqp_bench.layers.forward import ForwardPass, forward_pass
from bpqp_bench.layers.settings import BACKWARD_SOLVERS, GRADIENTS, POLISH, Settings

__all__ = [
    "BACKWARD_SOLVERS",
    "GRADIENTS",
    "POLISH",
    "Adjoint",
    "ForwardPass",
    "Settings",
    "adjoint_qp",
    "backward_pass",
    "forward_pass",
    "gradients",
    "matrix_factors",
    "vector_gradient",
]
