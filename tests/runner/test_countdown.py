"""The estimate of the whole: parts after the measurements, their prior, what is shown of them."""

import json

import pytest

from bpqp_bench.cli.portfolio import portfolio_line
from bpqp_bench.cli.progress import LineProgress
from bpqp_bench.errors import ResultsError
from bpqp_bench.runner.countdown import (
    COUNTDOWN,
    Countdown,
    Followed,
    Part,
    PartKey,
    Shown,
    expected_parts_csv,
    load_expected_parts,
)
from bpqp_bench.runner.profiles import PROFILES, profile
from bpqp_bench.runner.progress import Silent, State
from bpqp_bench.runner.time_split import eta_quality
from bpqp_bench.tasks.portfolio.config import planned_parts, portfolio_configs

A, B = PartKey("epoch", "m", "a", 100, 10), PartKey("epoch", "m", "b", 100, 10)
REPORT = PartKey("report")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(countdown, clock, part, seconds, steps=1):
    with countdown.running(part, "work"):
        for _ in range(steps):
            clock.now += seconds
            if part.repeats > 1:
                countdown.repeated("work")


def test_prior_then_own_times(clock):
    countdown = Countdown({A: 2.0, B: 4.0, REPORT: 10.0}, clock=clock)
    first, second = Part(A, 0, 5), Part(A, 1, 5)
    countdown.plan([first, second, Part(B, 0, 5), Part(REPORT)])
    assert countdown.left() == pytest.approx(10 + 10 + 20 + 10)
    countdown.plan([first])  # is known
    work(countdown, clock, first, 6.0, steps=5)
    # Three times as slow as expected: a's own time is known, the others' is scaled. The pace of
    # the measurements, 1, has a vote, so that one odd part does not decide.
    assert countdown.left() == pytest.approx(5 * 6 + 2.0 * (5 * 4 + 10))
    work(countdown, clock, second, 6.0, steps=5)
    work(countdown, clock, Part(B, 0, 5), 12.0, steps=5)
    assert countdown.left() == pytest.approx(3.0 * 10)


def test_time_goes_by_within_a_step_but_not_below_nothing(clock):
    countdown = Countdown({REPORT: 10.0}, clock=clock)
    countdown.plan([Part(REPORT)])
    with countdown.running(Part(REPORT), "report"):
        clock.now = 4.0
        assert countdown.left() == pytest.approx(6.0)
        clock.now = 40.0
        assert countdown.left() == 0.0
    assert countdown.left() == 0.0


def test_trainings_that_end_early_shorten_those_to_come(clock):
    countdown = Countdown({A: 1.0}, clock=clock)
    countdown.plan(Part(A, seed, 10) for seed in range(3))
    work(countdown, clock, Part(A, 0, 10), 1.0, steps=4)
    assert countdown.left() == pytest.approx(2 * 4)
    with countdown.running(Part(A, 1, 10), "work"):
        for _ in range(6):  # longer than expected: at least one more
            clock.now += 1.0
            countdown.repeated("work")
        assert countdown.left() == pytest.approx(1 + 4)


def test_steps_that_were_read_from_a_checkpoint_do_not_count(clock):
    countdown = Countdown({A: 7.0}, clock=clock)
    countdown.plan([Part(A, 0, 5)])
    with countdown.running(Part(A, 0, 5), "work"):
        countdown.repeated("work", seconds=6.0)
        assert countdown.left() == pytest.approx(4 * 7.0)
        clock.now += 8.0
        countdown.repeated("work", seconds=6.0)
        assert countdown.left() == pytest.approx(3 * 8.0)


def test_what_failed_or_was_dropped_is_not_expected(clock):
    countdown = Countdown({A: 1.0, B: 1.0}, clock=clock)
    countdown.plan([Part(A), Part(B)])
    with pytest.raises(ZeroDivisionError), countdown.running(Part(A), "work"):
        raise ZeroDivisionError
    assert countdown.left() == pytest.approx(1.0)
    assert countdown.to_dict()["parts"] == []
    countdown.drop([Part(B), Part(REPORT)])
    assert countdown.left() == 0.0


def test_what_the_prior_lacks_is_taken_from_its_kin(clock):
    countdown = Countdown({A: 1.0, B: 3.0}, clock=clock)
    countdown.plan([Part(A._replace(assets=200, units=20))])
    assert countdown.left() == pytest.approx(1.0 * 2 * 4)  # a's, by days and size
    countdown = Countdown({A: 1.0, B: 3.0}, clock=clock)
    countdown.plan([Part(A._replace(method="c"))])
    assert countdown.left() == pytest.approx(2.0)  # the median of all methods
    countdown = Countdown(clock=clock)
    countdown.plan([Part(A), Part(B)])
    work(countdown, clock, Part(A), 9.0)
    assert countdown.left() == pytest.approx(9.0)


def test_measurements_are_shown_with_what_follows_them(clock, capsys):
    countdown = Countdown({REPORT: 60.0}, clock=clock)
    countdown.plan([Part(REPORT)])
    clock.now = 5.0
    with Followed(LineProgress(every_s=0.0), countdown) as progress:
        progress.note("a note")
        progress.update(State(1, 2, 60.0, 3.0, "qp", pace=2.0))
        progress.update(State(1, 2, None, 3.0, "qp"))
    lines = capsys.readouterr().err.splitlines()
    # A machine twice as slow at the measurements is so at what follows.
    assert lines == [
        "a note",
        "1/2 calls (50%), 5 s elapsed, 3:00 min left: qp",
        "1/2 calls (50%), 5 s elapsed: qp",
    ]


def test_lines():
    shown = Shown("synthetic: BPQP, seed 0, epoch 3", 12, 180, 80.0, 840.0)
    assert portfolio_line(shown) == (
        "portfolio, 12/180 epochs, 1:20 min elapsed, 14:00 min left: "
        "synthetic: BPQP, seed 0, epoch 3"
    )
    assert portfolio_line(Shown("x", 0, 0, 1.0, 2.0)) == "portfolio, 1 s elapsed, 2 s left: x"


@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0])
def test_a_whole_reproduce_on_machines_of_another_speed(clock, slower):
    # 2400 s of measurements whose own estimate is right, then the standard portfolio, in which
    # trainings end after 6 to 10 epochs, and the report.
    countdown = Countdown(load_expected_parts(), clock=clock)
    report = Part(REPORT)
    parts = [p for config in portfolio_configs(profile("standard")) for p in planned_parts(config)]
    countdown.plan([*parts, report])
    progress, calls = Followed(Silent(), countdown), 2400.0 * slower
    for step in range(100):
        left = calls * (1 - step / 100)
        progress.update(State(step, 100, left, calls - left, "", 1.0 if step < 2 else slower))
        clock.now += calls / 100
    expected = load_expected_parts()
    for number, part in enumerate([*parts, report]):
        steps = min(part.repeats, 6 + number % 5)
        work(countdown, clock, part, slower * expected[part.key], steps)
    found = countdown.to_dict()
    assert found["wall"] == pytest.approx(clock.now, abs=0.01)
    # Of a machine's speed nothing is known at first.
    eta = [pair for pair in found["eta"] if pair[0] > 0.03 * clock.now]
    share, worst = eta_quality(eta, clock.now)
    assert share == 1.0
    assert worst < 1.5
    assert "100 % of everything" in countdown.describe()


def test_record_becomes_the_prior(clock, tmp_path):
    countdown = Countdown(clock=clock)
    countdown.plan([Part(A, 0, 3), Part(REPORT)])
    work(countdown, clock, Part(A, 0, 3), 2.5, steps=2)
    work(countdown, clock, Part(REPORT), 30.0)
    assert expected_parts_csv(tmp_path) is None
    path = tmp_path / COUNTDOWN
    path.write_text(json.dumps(countdown.to_dict()))
    assert expected_parts_csv(tmp_path) == (
        "kind,data,method,assets,units,seconds\nepoch,m,a,100,10,2.5\nreport,,,0,0,30\n"
    )
    path.write_text("{}")
    with pytest.raises(ResultsError, match="not the record of a countdown"):
        expected_parts_csv(tmp_path)


def test_prior_knows_every_part_of_a_standard_run():
    expected = load_expected_parts()
    parts = [p for config in portfolio_configs(profile("standard")) for p in planned_parts(config)]
    assert {part.key for part in parts} | {REPORT} <= set(expected)
    assert all(seconds > 0.0 for seconds in expected.values())


@pytest.mark.parametrize("chosen", PROFILES, ids=lambda chosen: chosen.name)
def test_every_profile_has_an_estimate(chosen):
    countdown = Countdown(load_expected_parts())
    for config in portfolio_configs(chosen):
        countdown.plan(planned_parts(config))
    assert 1.0 < countdown.left() < 1e7
