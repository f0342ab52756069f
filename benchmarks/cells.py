"""Which cells are tracked, and one prepared cell: adapter, instance and reference."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import numpy as np

from bpqp_bench import Instance, Method, Registry, Size, Solution
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.problem.family import TEMPLATE_SEED

# "quick" is for each commit (minutes), "full" for a schedule (BPQP_BENCH_ASV=full).
QUICK = os.environ.get("BPQP_BENCH_ASV", "quick") != "full"

METHODS = (
    ["bpqp", "bpqp-direct", "exact-solve", "qpth"]
    if QUICK
    else [
        "bpqp",
        "bpqp-paper",
        "bpqp-direct",
        "bpqp-fast",
        "exact",
        "exact-solve",
        "cvxpy",
        "qpth",
        "altdiff",
        "jaxopt",
        "jaxopt-accurate",
    ]
)
FAMILIES = ["qp", "qp-active", "socp"] if QUICK else ["qp", "qp-active", "lp", "socp"]
SIZES = ["50x10"] if QUICK else ["10x5", "50x10", "100x20", "500x100"]
SEED = 0


@dataclass
class Cell:
    """A method built for one family and size, with one instance to run it on."""

    method: Method
    instance: Instance

    def run(self) -> tuple[Solution, PassTime, dict[str, np.ndarray], PassTime]:
        """Run one forward and backward pass under the suite's clock."""
        clock = PhaseClock()
        solution, forward = clock.measure(lambda: self.method.forward(self.instance, clock))
        upstream = np.ones(self.instance.n)
        gradients, backward = clock.measure(lambda: self.method.backward(upstream, clock))
        return solution, forward, dict(gradients), backward


@functools.cache
def registry() -> Registry:
    return Registry()


@functools.cache
def prepared(method: str, family: str, size: str) -> Cell:
    """Build the cell once per process: compilation and imports are never timed.

    asv skips a parameter combination whose setup raises NotImplementedError.
    """
    choice = registry().method(method)
    missing = choice.missing()
    if missing:
        raise NotImplementedError(missing)
    distribution = registry().family(family)
    instance = distribution.draw(Size.parse(size), SEED)
    adapter = choice.create()
    reason = adapter.unsupported(instance)
    if reason:
        raise NotImplementedError(reason)
    adapter.build(distribution.draw(Size.parse(size), TEMPLATE_SEED))
    cell = Cell(adapter, instance)
    cell.run()
    return cell
