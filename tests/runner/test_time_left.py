"""The estimate of the time left, and how it is shown."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from bpqp_bench.cli.progress import duration, show_time_left
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.runner.plan import Block, Request, make_plan
from bpqp_bench.runner.progress import State
from bpqp_bench.runner.schedule import nominal_call_s
from bpqp_bench.runner.time_left import TimeLeft, Work


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def left(clock: Clock) -> TimeLeft:
    return TimeLeft(clock=clock)


def test_nothing_planned_is_nothing_left(left: TimeLeft) -> None:
    assert left.left() == 0.0


def test_own_pace_then_that_of_kin_then_the_nominal_time(left: TimeLeft) -> None:
    kinds = [("call", "bpqp", "large"), ("call", "bpqp", "small"), ("call", "cvxpy", "large")]
    left.plan(Work(kind, 10, nominal) for kind, nominal in zip(kinds, (4.0, 1.0, 4.0), strict=True))
    left.plan([Work(("report",), 1, 5.0)])
    assert left.left() == pytest.approx(40.0 + 10.0 + 40.0 + 5.0)
    left.spent(kinds[0], 2.0)  # half of the nominal time: so is the rest, but for the report
    assert left.left() == pytest.approx(18.0 + 5.0 + 20.0 + 5.0)
    left.spent(kinds[2], 8.0)  # this method is slower; its kin by name are not
    assert left.left() == pytest.approx(18.0 + 5.0 + 72.0 + 5.0)


def test_limits_cap_what_is_left(left: TimeLeft) -> None:
    left.plan([Work(("call", "a"), 100, 1.0, limit_s=30.0)])
    assert left.left() == 30.0
    left.spent(("call", "a"), 20.0)
    assert left.left() == 10.0
    left.spent(("call", "a"), 20.0)
    assert left.left() == 0.0


def test_what_is_dropped_is_done(left: TimeLeft) -> None:
    left.plan([Work(("call", "a"), 3), Work(("call", "b"), 2)])
    left.drop([("call", "a"), ("call", "never planned")])
    assert left.left() == 2.0
    left.spent(("call", "b"), 1.0, counts=False)
    assert left.left() == 2.0


def test_running_work_counts_down_and_repeats(left: TimeLeft, clock: Clock) -> None:
    work = Work(("epoch", "x"), 4, 10.0)
    left.plan([work])
    with left.running(work, "training"):
        clock.now = 4.0
        assert left.left() == 36.0
        clock.now = 20.0
        assert left.left() == 30.0  # longer than expected; the other three are still to come
        left.repeated("epoch 1")
        assert left.left() == 60.0
        left.repeated("epoch 2", least_s=5.0)  # read from a checkpoint
        assert left.left() == 40.0
    assert left.left() == 0.0


def test_work_that_fails_is_over(left: TimeLeft) -> None:
    with pytest.raises(ValueError, match="broken"), left.running(Work(("report",)), "report"):
        raise ValueError("broken")
    assert left.left() == 0.0


def test_a_run_whose_times_follow_a_law_is_foretold(left: TimeLeft) -> None:
    """Times as of a method a few times as slow as nominal, growing otherwise with the size."""
    methods, sizes = ("exact", "cvxpy", "bpqp"), ("10x5", "50x10", "100x20", "500x100")
    request = Request(methods, ("qp", "socp"), sizes, instances=20, call_limit_s=60.0)
    plan = make_plan([request], Registry())

    def seconds(method: str, block: Block) -> float:
        factor = {"exact": 1.0, "cvxpy": 9.0, "bpqp": 3.0}[method]
        factor *= 8.0 if block.problem_class == "socp" else 1.0
        return factor * (2e-3 + 1e-9 * float(block.dimension) ** 2.7)

    cells = [(block, cell, ("call", cell.worker, block.key)) for block in plan.blocks
             for cell in block.cells]  # fmt: skip
    left.plan(Work(kind, len(cell.seeds), nominal_call_s(block)) for block, cell, kind in cells)
    true = sum(20 * seconds(cell.worker, block) for block, cell, _ in cells)
    whole, ratios = true, []
    for block, cell, kind in cells:
        for _ in cell.seeds:
            took = seconds(cell.worker, block)
            left.spent(kind, took)
            true -= took
            if true > 0.05 * whole:
                ratios.append(left.left() / true)
    assert min(ratios) > 1 / 3
    assert max(ratios) < 3


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with show_time_left(Console(file=stream, width=40)) as left:
        left.note("line 3 was [cut]")
        left.plan([Work(("call",), 200, 0.5)])
        left.show("qp 10x5 seed 3: bpqp[backward=direct]", force=True)
        left.show("not shown", force=True)
    assert stream.getvalue().splitlines() == [
        "line 3 was [cut]",
        "1:40 min left, 0 s elapsed, 0/200: qp 10x5 seed 3: bpqp[backward=direct]",
    ]


def test_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    with show_time_left(Console(file=stream, force_terminal=True, width=100)) as left:
        left.plan([Work(("call",), 10, 6.0)])
        left.show("qp 10x5: bpqp[backward=direct]", force=True)
        left.note("a note")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "1:00 min left, 0 s elapsed, 0/10: qp 10x5: bpqp[backward=direct]" in shown
    assert "a note" in shown


def test_a_state_is_shown_at_most_five_times_a_second(clock: Clock) -> None:
    seen: list[State] = []

    class Recorder:
        def update(self, state: State) -> None:
            seen.append(state)

        def note(self, text: str) -> None:
            raise AssertionError(text)

    left = TimeLeft(Recorder(), clock)
    for _ in range(101):
        left.show("call")
        clock.now += 0.01
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.7, "1:00 min"), (75, "1:15 min"), (7260, "2:01 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
