"""The estimate of what remains, and what progress prints of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bpqp_bench.cli.progress import LineProgress, duration
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.runner.estimate import Estimator, Rest
from bpqp_bench.runner.plan import Block, Cell, Plan, Request, make_plan
from bpqp_bench.runner.progress import State

METHODS = ("exact", "exact-solve", "bpqp", "cvxpy")


def simulate(plan: Plan, call: Callable[[Block, Cell], float], overhead: float) -> list[float]:
    """Return estimate / truth before every call of a run whose times follow a law."""
    estimator, clock, path = Estimator(), 0.0, []
    rest = {
        (block.key, cell.method): Rest(block, cell, False, len(cell.seeds), 0.0)
        for block in plan.blocks
        for cell in block.cells
    }
    for block in plan.blocks:
        for cell in block.cells:
            key = (block.key, cell.method)
            path.append((clock, estimator.remaining(rest.values())))
            estimator.build(block, cell, 0.01)
            clock += 0.01
            for _ in range(1 + cell.warmups):
                path.append((clock, estimator.remaining(rest.values())))
                estimator.call(block, cell, call(block, cell), overhead)
                clock += call(block, cell) + overhead
            rest[key] = replace(rest[key], prepared=True)
        for _ in block.seeds:
            seconds = 5e-3 + 2e-3 * (block.dimension / 100) ** 2.6
            estimator.reference(block, seconds)
            clock += seconds
            for cell in block.cells:
                key = (block.key, cell.method)
                item = rest.get(key)
                if item is None:
                    continue
                path.append((clock, estimator.remaining(rest.values())))
                seconds = call(block, cell)
                estimator.call(block, cell, seconds, overhead)
                clock += seconds + overhead
                spent, left = item.spent_s + seconds, item.calls - 1
                rest[key] = replace(item, calls=left, spent_s=spent)
                if left == 0 or (cell.cell_budget_s is not None and spent >= cell.cell_budget_s):
                    del rest[key]
    return [estimate / (clock - at) for at, estimate in path if clock - at > 0.02 * clock]


def plan_of(sizes: tuple[str, ...], budget: float | None = None) -> Plan:
    request = Request(METHODS, ("qp", "lp"), sizes, 10, call_limit_s=1e6, cell_budget_s=budget)
    return make_plan([request], Registry())


@pytest.mark.parametrize("exponent", [2.2, 2.8])
@pytest.mark.parametrize("budget", [None, 5.0])
def test_estimate_is_within_a_factor_of_two(exponent: float, budget: float | None) -> None:
    plan = plan_of(("10x5", "50x10", "100x20", "500x100"), budget)
    factors = dict(zip([cell.method for cell in plan.blocks[0].cells], (1, 3, 10, 4), strict=True))

    def call(block: Block, cell: Cell) -> float:
        return factors[cell.method] * 1e-3 * (1 + (block.dimension / 100) ** exponent)

    ratios = np.array(simulate(plan, call, overhead=2e-3))
    begun = ratios[2 * len(METHODS) + 1 :]  # before that, nothing is known of some method
    assert begun.min() > 0.5
    assert begun.max() < 2.0


def test_estimate_sees_budgets_and_limits() -> None:
    (block, *_) = plan_of(("500x100",), budget=3.0).blocks
    cell = block.cells[0]
    estimator = Estimator()
    estimator.call(block, cell, 1.0, 0.0)
    estimator.reference(block, 0.0)
    open_ended = replace(cell, cell_budget_s=None)
    assert estimator.remaining([Rest(block, open_ended, True, 10, 0.0)]) == pytest.approx(
        10.0, rel=0.2
    )
    assert estimator.remaining([Rest(block, cell, True, 10, 1.0)]) == pytest.approx(2.0, rel=0.2)
    hopeless = replace(cell, call_limit_s=0.2)
    assert estimator.remaining([Rest(block, hopeless, True, 10, 0.0)]) < 0.5


def test_lines_are_plain_and_few() -> None:
    stream = io.StringIO()
    with LineProgress(stream, every_s=3600.0) as progress:
        progress.note("line 3 was cut")
        for done in range(100):
            progress.update(State(done, 200, 75.0, 10.0, "qp 10x5 seed 3: bpqp"))
    assert stream.getvalue().splitlines() == [
        "line 3 was cut",
        "0/200 calls (0%), 10 s elapsed, 1:15 min left: qp 10x5 seed 3: bpqp",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (75, "1:15 min"), (3 * 3600 + 120, "3:02 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
