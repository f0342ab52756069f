"""Benchmark and reproduction suite for differentiable convex-optimization layers.

Data flow one way, and so do the imports (a later package imports earlier ones, never the reverse)::

    problem/             families, instances                     what is solved
    layers/  reference/  our layers; certified gradients         what is run; what is true
    method/  plugins/    contract and clock; discovery           what is measured
    results/  runner/    measurements; worker processes          how it is measured
    tracking/  tasks/    regressions; learning through a layer
    report/  cli/        tables, figures, claims; commands
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpqp_bench.errors import BenchError, MethodError
    from bpqp_bench.method.contract import Data, Method, Variant
    from bpqp_bench.method.phase_clock import PhaseClock
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.problem.family import Family, draw
    from bpqp_bench.problem.instance import Instance, Planted, SecondOrderCone, Size
    from bpqp_bench.problem.solution import Solution
    from bpqp_bench.problem.two_sided import DENSE_UP_TO, nearby_q, one_sided
    from bpqp_bench.runner.own_data import compare_layers

__version__ = "0.1.0"

__all__ = [
    "DENSE_UP_TO",
    "BenchError",
    "Data",
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
    "compare_layers",
    "draw",
    "nearby_q",
    "one_sided",
]

_HOME = {
    **dict.fromkeys(("BenchError", "MethodError"), "errors"),
    **dict.fromkeys(("Data", "Method", "Variant"), "method.contract"),
    "PhaseClock": "method.phase_clock",
    "Registry": "plugins.registry",
    **dict.fromkeys(("Family", "draw"), "problem.family"),
    **dict.fromkeys(("Instance", "Planted", "SecondOrderCone", "Size"), "problem.instance"),
    "Solution": "problem.solution",
    "compare_layers": "runner.own_data",
    **dict.fromkeys(("DENSE_UP_TO", "nearby_q", "one_sided"), "problem.two_sided"),
}


def __getattr__(name: str) -> Any:
    # Imported when used: `bpqp-bench --help` must not wait for SciPy.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
