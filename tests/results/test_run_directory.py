"""Run directories and the frame of their measurements."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import REFERENCE

from bpqp_bench.errors import ResultsError
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.measurement import Measurement, Status, content_key
from bpqp_bench.results.run_directory import (
    MEASUREMENTS,
    RunDirectory,
    load_measurements,
    merge_measurements,
    to_frame,
)

PASS = PassTime(call=1e-3, prepare=1e-4, setup=2e-4, solve=5e-4, extract=1e-4, other=1e-4)


def measurement(seed: int = 0, **changes: Any) -> Measurement:
    made = Measurement(
        key=content_key(
            method="bpqp", family="qp", size="10x5", instance=f"hash {seed}", role="measured"
        ),
        method="bpqp",
        label="BPQP",
        family="qp",
        problem_class="qp",
        size="10x5",
        n=10,
        m=5,
        seed=seed,
        instance=f"hash {seed}",
        role="measured",
        status="ok",
        forward=PASS,
        backward=PASS,
        info={"odd": [1, None, "ε"]},
        accuracy={"q": Accuracy(one_minus_cos=1e-15, rel_l2=1e-8, l2=1e-7, norm=3.0)},
        reference=Reference(
            degenerate=False, why="", n_active=2, margin=0.1, condition=10.0, residual=1e-30
        ),
    )
    return replace(made, **changes)


CONFIG = {"code": "abc", "plan": {"blocks": [1, 2]}, "profile": None}
ENVIRONMENT = {"cpu": "X", "cores": 2, "versions": {"numpy": "2.4.6"}, "time": "now"}


def some(count: int = 3) -> list:
    return [measurement(seed=seed) for seed in range(count)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    with RunDirectory.create(path, CONFIG, ENVIRONMENT) as directory:
        for m in some():
            directory.append(m)
    return path


def test_written_is_read(run: Path) -> None:
    assert load_measurements(run) == some()
    assert load_measurements(run / MEASUREMENTS) == some()


def test_every_measurement_is_on_disk_at_once(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT) as directory:
        for count, m in enumerate(some(), start=1):
            directory.append(m)
            assert len(load_measurements(tmp_path / "run")) == count


def test_infinite_and_missing_values_survive(tmp_path: Path) -> None:
    odd = measurement(dual_residual=math.inf, objective_gap=math.nan, forward=None)
    with RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT) as directory:
        directory.append(odd)
    (read,) = load_measurements(tmp_path / "run")
    assert read.dual_residual == math.inf
    assert math.isnan(read.objective_gap or 0.0)
    assert read.forward is None


def test_gzip_is_read(run: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with gzip.open(packed / f"{MEASUREMENTS}.gz", "wb") as file:
        file.write((run / MEASUREMENTS).read_bytes())
    assert load_measurements(packed) == some()
    cut = (packed / f"{MEASUREMENTS}.gz").read_bytes()[:-20]
    (packed / f"{MEASUREMENTS}.gz").write_bytes(cut)
    with pytest.raises(ResultsError, match="cannot be read"):
        load_measurements(packed)


def test_same_key_is_refused(run: Path) -> None:
    with RunDirectory.resume(run, CONFIG, ENVIRONMENT) as directory:
        assert some()[1].key in directory
        with pytest.raises(ResultsError, match="made twice"):
            directory.append(some()[1])
    assert load_measurements(run) == some()


@pytest.mark.parametrize("keep", [1, 30, -1])
def test_cut_last_line_is_skipped_when_read_and_moved_on_resume(run: Path, keep: int) -> None:
    path = run / MEASUREMENTS
    content = path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    last = content[start:-1]
    path.write_bytes(content[:start] + last[:keep])
    assert load_measurements(run) == some()[:2]
    with RunDirectory.resume(run, CONFIG, ENVIRONMENT) as directory:
        assert "line 3" in directory.repaired
        assert directory.measurements == some()[:2]
        directory.append(some()[2])
    assert load_measurements(run) == some()
    assert last[:keep] in (run / "measurements.cut").read_bytes()


def test_whole_last_line_without_its_end_is_kept(run: Path) -> None:
    path = run / MEASUREMENTS
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with RunDirectory.resume(run, CONFIG, ENVIRONMENT) as directory:
        assert directory.repaired == ""
        directory.append(measurement(seed=9))
    assert [m.seed for m in load_measurements(run)] == [0, 1, 2, 9]


def test_corrupt_line_elsewhere_is_an_error_that_says_where(run: Path) -> None:
    path = run / MEASUREMENTS
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:50]
    path.write_bytes(b"\n".join(lines))
    for read in (load_measurements, lambda p: RunDirectory.resume(p, CONFIG, ENVIRONMENT)):
        with pytest.raises(ResultsError, match=rf"{MEASUREMENTS}, line 2") as error:
            read(run)
        assert "\n" not in str(error.value)
    assert path.read_bytes() == b"\n".join(lines)


def test_another_schema_is_refused(run: Path) -> None:
    path = run / MEASUREMENTS
    path.write_bytes(path.read_bytes().replace(b'"schema":2', b'"schema":99'))
    with pytest.raises(ResultsError, match="schema 99"):
        load_measurements(run)


@pytest.mark.parametrize(
    ("config", "environment", "says"),
    [
        ({**CONFIG, "code": "def"}, ENVIRONMENT, "another version of the code"),
        ({**CONFIG, "plan": {"blocks": [1]}}, ENVIRONMENT, "another plan"),
        ({**CONFIG, "profile": "smoke"}, ENVIRONMENT, "profile"),
        (CONFIG, {**ENVIRONMENT, "cpu": "Y"}, 'cpu is "X" there and "Y" here'),
        (CONFIG, {**ENVIRONMENT, "versions": {"numpy": "3"}}, "versions"),
    ],
)
def test_run_of_other_code_plan_or_machine_is_refused(
    run: Path, config: dict, environment: dict, says: str
) -> None:
    with pytest.raises(ResultsError, match=says):
        RunDirectory.resume(run, config, environment)


def test_run_that_was_killed_before_its_config_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").touch()
    (path / ".config.json.7.tmp").write_text('{"code"')
    (path / "environment.json").write_text("{}")
    with pytest.raises(ResultsError, match="start it again without --resume"):
        RunDirectory.resume(path, CONFIG, ENVIRONMENT)
    RunDirectory.create(path, CONFIG, ENVIRONMENT).close()
    RunDirectory.resume(path, CONFIG, ENVIRONMENT).close()


def test_records_of_the_first_schema_are_read() -> None:
    old = load_measurements(Path(__file__).parent / "first_schema")
    assert len(old) == 4
    assert {m.upstream for m in old} == {"ones"}
    assert all(isinstance(m.status, Status) for m in old)


def test_records_of_the_reference_run_are_read() -> None:
    assert len(load_measurements(REFERENCE)) > 10_000


def test_time_of_day_may_differ(run: Path) -> None:
    RunDirectory.resume(run, CONFIG, {**ENVIRONMENT, "time": "later"}).close()


def test_directories_that_are_not_runs_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="not empty"):
        RunDirectory.create(run, CONFIG, ENVIRONMENT)
    with pytest.raises(ResultsError, match="not a run directory"):
        RunDirectory.resume(tmp_path, CONFIG, ENVIRONMENT)
    with pytest.raises(ResultsError, match=f"holds no {MEASUREMENTS}"):
        load_measurements(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be made"):
        RunDirectory.create(tmp_path / "file" / "run", CONFIG, ENVIRONMENT)


def test_one_run_at_a_time(run: Path) -> None:
    with (
        RunDirectory.resume(run, CONFIG, ENVIRONMENT),
        pytest.raises(ResultsError, match="in use"),
    ):
        RunDirectory.resume(run, CONFIG, ENVIRONMENT)
    RunDirectory.resume(run, CONFIG, ENVIRONMENT).close()


def test_run_ended_before_its_first_measurement_can_be_resumed(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT).close()
    (tmp_path / "run" / MEASUREMENTS).unlink()
    with RunDirectory.resume(tmp_path / "run", CONFIG, ENVIRONMENT) as directory:
        assert directory.measurements == []


def test_shards_merge_by_key() -> None:
    merged = merge_measurements([some(2), some(3)])
    assert merged == some(3)


def test_frame_has_one_column_a_field() -> None:
    frame = to_frame([*some(), measurement(seed=5, status="timeout", forward=None)])
    assert len(frame) == 4
    assert frame["forward.call"].iloc[0] == some()[0].forward.call
    assert np.isnan(frame["forward.call"].iloc[3])
    assert frame["accuracy.q.one_minus_cos"].iloc[0] == some()[0].accuracy["q"].one_minus_cos
    for column in ("method", "seed", "backward.solve", "reference.n_active", "peak_memory"):
        assert column in frame
    assert list(frame["seed"]) == [0, 1, 2, 5]


def test_frame_of_nothing_has_the_columns() -> None:
    frame = to_frame([])
    assert len(frame) == 0
    assert {"method", "forward.call", "reference.degenerate", "accuracy.q.l2"} <= set(frame.columns)
