"""Benchmark and reproduction suite for differentiable convex-optimization layers.

Data flow one way::

    family → instance → method (in its worker) → measurement → results → report
    family.py  instance.py  contract.py, worker.py   measurement.py  results.py   report/
"""

from bpqp_bench.clock import PhaseClock
from bpqp_bench.contract import Method, MethodError, Solution, Variant
from bpqp_bench.errors import BenchError
from bpqp_bench.family import Family, draw
from bpqp_bench.instance import Instance, Planted, SecondOrderCone, Size
from bpqp_bench.registry import Registry

__version__ = "0.1.0"

__all__ = [
    "BenchError",
    "Family",
    "Instance",
    "Method",
    "MethodError",
    "PhaseClock",
    "Planted",
    "Registry",
    "SecondOrderCone",
    "Size",
    "Solution",
    "Variant",
    "draw",
]
