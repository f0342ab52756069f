"""Differentiable convex-optimization layers that no maintained library provides.

======================  ===========================================================================
`BPQP`                  the paper's layer: any solver forward, a QP backward (`bpqp`)
`ConvexProgram`         BPQP for any smooth convex problem, by torch derivatives (`convex_program`)
`AltDiff`               alternating differentiation (`altdiff`)
`ExactKKT`              differentiation of the full KKT system (`exact`, `exact_layer`)
`DC3`                   deep learning with hard constraints (`dc3`)
`solve_qp`, `SOLVERS`   the QP solvers by name (`qp_solvers`)
======================  ===========================================================================

Names are loaded when first used, so that importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AltDiff": "altdiff",
    "BPQP": "bpqp",
    "ConvexProgram": "convex_program",
    "DC3": "dc3",
    "ExactKKT": "exact_layer",
    "SOLVERS": "qp_solvers",
    "solve_qp": "qp_solvers",
}

__all__ = ["BPQP", "DC3", "SOLVERS", "AltDiff", "ConvexProgram", "ExactKKT", "solve_qp"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
