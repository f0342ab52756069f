"""A run that is killed, interrupted or damaged goes on where it was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from places import ADAPTERS

from bpqp_bench.cli.main import main
from bpqp_bench.results.run_directory import load_measurements

ASKED = [
    *("--method", "steady", "--method", "steady[seconds=0.02]", "--family", "qp"),
    *("--family", "lp", "--size", "10x5", "--instances", "8"),
]
EXPECTED = 2 * 2 * (8 + 2)


def arguments(out: Path, *more: str) -> list[str]:
    return ["run", *ASKED, "--methods-dir", str(ADAPTERS), "--out", str(out), *more]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bpqp_bench", *arguments(out, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(out: Path) -> list[bytes]:
    path = out / "measurements.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=900)
    return out, err


@pytest.mark.slow
def test_kill_at_random_moments_then_resume(tmp_path: Path) -> None:
    out, moments = tmp_path / "run", random.Random(0)
    before: list[bytes] = []
    for attempt in range(3):
        process = start(out, *(["--resume"] if attempt else []))
        goal = len(before) + moments.randint(1, 10)
        wait_until(lambda goal=goal: len(lines(out)) >= goal)
        time.sleep(moments.random() * 0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)
        psutil.wait_procs(workers, timeout=300)
        assert not any(worker.is_running() for worker in workers)
        now = lines(out)
        assert now[: len(before)] == before
        before = now
    process = start(out, "--resume")
    stdout, stderr = finish(process)
    assert process.returncode == 0, stderr
    assert f"{len(before)} from earlier sessions" in " ".join(stdout.split())  # lines are folded
    after = lines(out)
    assert after[: len(before)] == before
    keys = [json.loads(line)["key"] for line in after]
    assert len(keys) == len(set(keys)) == EXPECTED
    # Nothing is left to do, and nothing is done.
    again = start(out, "--resume")
    assert "0 measurements" in finish(again)[0]
    assert lines(out) == after


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children take SIGINT: a shell's background jobs ignore it, and hand that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
def test_interrupt_loses_nothing_and_exits_130(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_until(lambda: len(lines(out)) >= 5)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, stderr = finish(process)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "--resume" in stderr
    psutil.wait_procs(workers, timeout=300)
    assert not any(worker.is_running() for worker in workers)
    before = lines(out)
    assert len(before) >= 5
    # A line that was cut in the middle is moved aside and measured again.
    with (out / "measurements.jsonl").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 40)
    process = start(out, "--resume")
    _, stderr = finish(process)
    assert process.returncode == 0, stderr
    assert f"line {len(before)}" in stderr
    assert "cut in the middle" in stderr
    keys = [m.key for m in load_measurements(out)]
    assert len(keys) == len(set(keys)) == EXPECTED
    assert lines(out)[: len(before) - 1] == before[:-1]
    assert before[-1][:-40] in (out / "measurements.cut").read_bytes()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--method", "no-such"], "unknown method 'no-such'"),
        (["--family", "no-such"], "unknown problem family 'no-such'"),
        (["--size", "10y5"], "size '10y5' is not of the form NxM"),
        (["--size", "-10x5"], "needs N ≥ 1"),
        (["--first-seed", "-1"], "first seed -1 is negative"),
        (["--instances", "0"], "0 instances"),
        (["--shard", "3/2"], "1 ≤ K ≤ N"),
        (["--memory-limit", "much"], "not a size"),
        (["--time-limit", "-1"], "not a positive number"),
        (["--wrt", "q,x"], "no gradient with respect to x"),
        (["--profile", "huge"], "unknown profile 'huge'"),
        (["--method", "steady[speed=1]"], "no parameter 'speed'"),
        (["--resume"], "is not a run directory"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changed: list[str],
    says: str,
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["bpqp-bench", *arguments(out, *changed)])
    with pytest.raises(SystemExit) as left:
        main()
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert says in stderr
    assert stderr.count("\n") == 1
    assert not out.exists()
