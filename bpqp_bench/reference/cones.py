"""References of general second-order cone programs."""

from __future__ import annotations

from collections.abc import Sequence

from bpqp_bench.instance import Array, Instance
from bpqp_bench.reference.solution import NoReferenceError, ReferenceSolution

__all__ = ["solve_conic"]


def solve_conic(instance: Instance, v: Array, wrt: Sequence[str]) -> ReferenceSolution:
    """Not available yet for anything but one ball."""
    raise NoReferenceError(f"{instance.name}: no reference for general cones yet", "input")
