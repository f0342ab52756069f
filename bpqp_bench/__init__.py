"""Benchmark and reproduction suite for differentiable convex-optimization layers.

Data flow one way, and so do the imports (a later package imports earlier ones, never the reverse)::

    problem/             families, instances                     what is solved
    layers/  reference/  our layers; certified gradients         what is run; what is true
    method/  plugins/    contract and clock; discovery           what is measured
    results/  runner/    measurements; worker processes          how it is measured
    tracking/  tasks/    regressions; learning through a layer
    report/  cli/        tables, figures, claims; commands
"""

from bpqp_bench.errors import BenchError, MethodError
from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.family import Family, draw
from bpqp_bench.problem.instance import Instance, Planted, SecondOrderCone, Size
from bpqp_bench.problem.solution import Solution
from bpqp_bench.problem.two_sided import DENSE_UP_TO, nearby_q, one_sided

__version__ = "0.1.0"

__all__ = [
    "DENSE_UP_TO",
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
    "nearby_q",
    "one_sided",
]
