"""Which cells are tracked, and one prepared cell: adapter, instance and reference."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from bpqp_bench import Instance, Method, Registry, Size
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import Call, clock_for, measure_call
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

    def run(self) -> Call:
        """Run one forward and backward pass under the suite's clock."""
        data, v = (make([self.instance], self.method) for make in (make_data, make_upstream))
        return measure_call(self.method, data, v, clock_for(self.method))


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
