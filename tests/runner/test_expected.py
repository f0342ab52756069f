"""Expected times: the committed file, and what the estimate makes of them in a replayed run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bpqp_bench.report.publish import publish_expected
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import load_measurements, read_config
from bpqp_bench.runner.countdown import EXPECTED_PARTS
from bpqp_bench.runner.estimate import Estimator, Rest
from bpqp_bench.runner.expected import EXPECTED, Key, expected_csv, expected_times, load_expected
from bpqp_bench.runner.plan import NO_WARMUP_S, Block, Cell, Plan
from bpqp_bench.runner.time_split import RunSummary, TimeSplit, eta_quality

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"
POINTS = 200  # at which the estimate is looked at


@cache
def stored() -> tuple[Measurement, ...]:
    return tuple(load_measurements(REFERENCE))


class Replay:
    """The reference run again, in the order of its plan, on a machine ``slower`` times as slow.

    Calls come back with the times that were stored, again from the first where there are not
    enough; limits and budgets stay as they are. What timed out does so again.
    """

    def __init__(self, slower: float, expected: Mapping[Key, float]) -> None:
        self.plan = Plan.from_dict(read_config(REFERENCE)["plan"])
        self.estimator = Estimator({"jaxopt"}, expected)
        self.clock = 0.0
        self.eta: list[tuple[float, float]] = []
        self.blocks: list[float] = []  # when each began
        self._slower = slower
        self._every = 1600.0 * slower / POINTS
        self._passes: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
        self._builds: dict[tuple[str, ...], tuple[str, float]] = {}
        for m in stored():
            cell = (m.role, m.method, m.family, m.size)
            parts = [part.call for part in (m.forward, m.backward) if part is not None]
            self._passes[cell].append(tuple(parts) or (float(m.info.get("seconds", 0.0)),))
            if m.role == "first":
                self._builds[cell[1:]] = (m.status, m.build_s or 0.0)
        self._expected = expected_times(stored())
        self._rest = {
            (block.key, cell.method): Rest(block, cell, False, len(cell.seeds), 0.0)
            for block in self.plan.blocks
            for cell in block.cells
        }

    def run(self) -> None:
        for block in self.plan.blocks:
            self.blocks.append(self.clock)
            for cell in block.cells:
                self.prepare(block, cell)
            for seed in block.seeds:
                due = [cell for cell in block.cells if (block.key, cell.method) in self._rest]
                if due:
                    seconds = self.time("reference", block, "")
                    self.clock += seconds
                    self.estimator.reference(block, seconds)
                for cell in due:
                    if seed in cell.seeds:
                        self.count(block, cell, seed)

    def prepare(self, block: Block, cell: Cell) -> None:
        self.look()
        key = (block.key, cell.method)
        status, build = self._builds[cell.method, block.family, block.size]
        if status == "unsupported":
            del self._rest[key]
            return
        self.clock += build * self._slower
        self.estimator.build(block, cell, build * self._slower)
        self._rest[key] = replace(self._rest[key], prepared=True)
        seconds = self.call("first", block, cell, 0)
        if key in self._rest and cell.warmups and seconds <= NO_WARMUP_S:
            self.call("warmup", block, cell, 0)

    def count(self, block: Block, cell: Cell, index: int) -> None:
        key = (block.key, cell.method)
        seconds = self.call("measured", block, cell, index)
        if key not in self._rest:
            return
        item = self._rest[key]
        spent, left = item.spent_s + seconds, item.calls - 1
        self._rest[key] = replace(item, calls=left, spent_s=spent)
        if not left or (cell.cell_budget_s is not None and spent >= cell.cell_budget_s):
            del self._rest[key]

    def call(self, role: str, block: Block, cell: Cell, index: int) -> float:
        self.look()
        known = (
            self._passes.get((role, cell.method, block.family, block.size))
            or self._passes["first", cell.method, block.family, block.size]
        )
        passes = [seconds * self._slower for seconds in known[index % len(known)]]
        limit = cell.call_limit_s
        status, _ = self._builds[cell.method, block.family, block.size]
        ended = status == "timeout" or max(passes) > limit
        seconds = limit if ended else sum(passes)
        aside = self.time("aside", block, cell.method) if role == "measured" else None
        self.clock += seconds + (aside or 0.0)
        self.estimator.call(block, cell, seconds, aside, ended)
        if ended:
            del self._rest[block.key, cell.method]
        return seconds

    def time(self, kind: str, block: Block, method: str) -> float:
        key = Key(kind, method, block.family, block.size)
        return self._slower * self._expected.get(key, 0.0)

    def look(self) -> None:
        if not self.eta or self.clock - self.eta[-1][0] > self._every:
            self.eta.append((self.clock, self.estimator.remaining(self._rest.values())))

    def quality(self, since: float = 0.0) -> tuple[float, float]:
        found = eta_quality([pair for pair in self.eta if pair[0] >= since], self.clock)
        assert found is not None
        return found


@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0])
def test_estimate_of_a_standard_run_is_within_a_factor_of_two(slower: float) -> None:
    replay = Replay(slower, load_expected())
    replay.run()
    assert len(replay.eta) > POINTS / 4
    # Of a machine of another speed nothing is known before the first block.
    share, worst = replay.quality(0.0 if slower == 1.0 else replay.blocks[1])
    assert worst < 2.0
    assert share == 1.0


def test_expected_times_are_what_makes_the_estimate_good() -> None:
    with_them, without = Replay(1.0, load_expected()), Replay(1.0, {})
    with_them.run()
    without.run()
    assert with_them.clock == pytest.approx(without.clock)  # the run is the same, whatever it is
    assert with_them.quality()[1] < 1.2
    assert without.quality()[1] > 1.5


def test_committed_times_are_those_of_the_reference_run(tmp_path: Path) -> None:
    committed = ROOT / "bpqp_bench" / "runner" / "data" / EXPECTED
    assert expected_csv(REFERENCE) == committed.read_text(encoding="utf-8")
    written = publish_expected(REFERENCE, tmp_path)
    assert [path.name for path in written] == [EXPECTED, EXPECTED_PARTS]
    for path in written:
        assert path.read_bytes() == committed.with_name(path.name).read_bytes()
    assert load_expected() == pytest.approx(expected_times(stored()), rel=6e-3)


def test_expected_times_are_medians_by_kind_and_timeouts_are_told_apart() -> None:
    of = [m for m in stored() if (m.method, m.family, m.size) == ("bpqp", "lp", "100x20")]
    calls = [m.forward.call + m.backward.call for m in of if m.forward and m.backward]
    times = expected_times(of)
    assert set(times) == {
        Key("build", "bpqp", "lp", "100x20"),
        Key("call", "bpqp", "lp", "100x20"),
        Key("reference", "", "lp", "100x20"),
    }
    assert min(calls) <= times[Key("call", "bpqp", "lp", "100x20")] <= max(calls)
    expected = load_expected()
    cell = ("exact", "qp", "5000x2000")  # ended at its limit, whatever the reference run's was
    limits = {m.time_limit_s for m in stored() if (m.method, m.family, m.size) == cell}
    assert [expected[Key("timeout", *cell)]] == pytest.approx(sorted(limits), rel=0.01)
    assert Key("call", "exact", "qp", "5000x2000") not in expected


def one_cell() -> tuple[Block, Cell]:
    plan = Plan.from_dict(read_config(REFERENCE)["plan"])
    block = next(b for b in plan.blocks if (b.family, b.size) == ("qp", "100x20"))
    cell = replace(block.cells[0], cell_budget_s=None, call_limit_s=40.0, build_limit_s=60.0)
    return block, cell


def test_own_times_go_before_expected_ones_and_those_are_scaled() -> None:
    block, cell = one_cell()
    others = [replace(block, size=f"{n}x20") for n in (101, 102, 103)]
    expected = {Key("call", cell.method, "qp", b.size): 1.0 for b in (block, *others)}
    estimator = Estimator(expected=expected)
    estimator.reference(block, 0.0)
    rest = [Rest(block, cell, True, 10, 0.0)]
    assert estimator.remaining(rest) == pytest.approx(10.0, rel=0.05)
    for other in others:
        estimator.call(other, cell, 3.0)
    assert estimator.remaining(rest) == pytest.approx(30.0, rel=0.05)
    estimator.call(block, cell, 0.5)
    assert estimator.remaining(rest) == pytest.approx(5.0, rel=0.05)


def test_what_timed_out_costs_its_limit_and_no_reference() -> None:
    block, cell = one_cell()
    key = Key("timeout", cell.method, "qp", block.size)
    expected = {key: 40.0, Key("reference", "", "qp", block.size): 1000.0}
    estimator = Estimator(expected={**expected, Key("build", *key[1:]): 0.0})
    rest = Rest(block, cell, False, 10, 0.0)
    assert estimator.remaining([rest]) == pytest.approx(40.0)
    longer = replace(rest, cell=replace(cell, call_limit_s=4000.0, cell_budget_s=1.0))
    # One call before counting and one counted, somewhere between 40 s and 4000 s, and a reference.
    assert estimator.remaining([longer]) == pytest.approx(1000.0 + 2 * 400.0, rel=0.01)


def test_quality_counts_time_and_leaves_out_the_end() -> None:
    # Right, then three times too long for a quarter of what counts, then right; the end is wild.
    eta = [(0.0, 1000.0), (475.0, 3 * 525.0), (712.5, 287.5), (960.0, 9e9)]
    share, worst = eta_quality(eta, 1000.0) or (0.0, 0.0)
    assert share == pytest.approx(0.75)
    assert worst == pytest.approx(3.0)
    assert eta_quality([(0.0, 5.0)], 10.0) is None


def test_summary_says_how_good_the_estimate_was() -> None:
    summary = RunSummary(1, 0, {}, {}, (), TimeSplit(calls=100.0), eta=((0.0, 110.0), (50.0, 60.0)))
    text = "estimate of the remaining time: within a factor of 2 for 100 % of the run (worst 1.2)"
    assert text in summary.describe().splitlines()
    assert summary.to_dict()["eta"] == [[0.0, 110.0], [50.0, 60.0]]
    assert "estimate" not in replace(summary, eta=()).describe()
