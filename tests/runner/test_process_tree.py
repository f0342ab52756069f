"""What a run leaves when it ends, in whatever way: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bpqp_bench.cli.main import main
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.process_tree import Guard, resident_memory

HEAD = """
import os, signal, subprocess, sys, time, pathlib
import numpy as np
from bpqp_bench import Method, Solution
HERE = pathlib.Path(__file__).parent
class Mine(Method):
    name = label = "mine"
    reference = "none"
    problem_classes = frozenset({"qp"})
    why_not = {"lp": "no", "socp": "no"}
    def forward(self, problem, clock): return Solution(z=np.zeros(10), status="solved")
    def backward(self, upstream, clock): return {"q": np.zeros(10)}
"""
PARENT = """
    def build(self, template):
        code = "import time; time.sleep(600)"
        for session in (False, True):
            child = subprocess.Popen([sys.executable, "-c", code], start_new_session=session)
            with open(HERE / "pids", "a") as file:
                file.write(f"{child.pid}\\n")
        time.sleep(600)
"""
DYING = """
    requires = ("dying",)
    def build(self, template):
        for _ in range(48):
            os.write(1, b"chatter " * 2**17)
            time.sleep(0.02)
"""
# A library whose first import is killed, as the system does when it is out of memory.
LIBRARY = """
import os, pathlib, signal
flag = pathlib.Path(__file__).parent / "imported"
if not flag.exists():
    flag.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def arguments(folder: Path) -> list[str]:
    return [
        *["run", "--method", "mine", "--family", "qp", "--size", "10x5", "--instances", "1"],
        *("--methods-dir", str(folder / "methods"), "--out", str(folder / "run")),
    ]


def wait_for(condition: object, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_method_s_own_children_end_with_the_run(tmp_path: Path, end: signal.Signals) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(HEAD + PARENT)
    run = subprocess.Popen([sys.executable, "-m", "bpqp_bench", *arguments(tmp_path)])
    pids = tmp_path / "methods" / "pids"
    wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 2)
    children = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    run.send_signal(end)
    run.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_worker_that_is_killed_while_it_imports_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its log is bounded, and a cache that cannot be written to costs no reference.
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(HEAD + DYING)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "dying.py").write_text(LIBRARY)
    (tmp_path / "cache").write_text("a file where the folder should be")
    path = f"{tmp_path / 'library'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(tmp_path / "library"))
    monkeypatch.setenv("BPQP_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["bpqp-bench", *arguments(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    out = "".join(capsys.readouterr().out.split())  # lines are folded, a long path too
    assert "theworkerofminewasstartedagain:theprocesswasendedbySIGKILL" in out
    assert f"referencesarenotkept:{tmp_path / 'cache' / 'references'}" in out
    (measured,) = (m for m in load_measurements(tmp_path / "run") if m.role == "measured")
    assert measured.accuracy
    assert 2**20 < (tmp_path / "run" / "logs" / "mine.log").stat().st_size < 32 * 2**20


def test_children_s_memory_counts() -> None:
    code = "import time; eaten = bytearray(2**28); print(flush=True); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        assert resident_memory(os.getpid(), 2**60) > 2**28 + 2**24
        own = psutil.Process().memory_info().rss
        # Where it would be too much, what is shared counts once.
        assert 2**28 < resident_memory(os.getpid(), 1) < own + 2**29
    finally:
        child.kill()
        child.communicate()


def test_the_guard_ends_those_that_carry_the_token_alone() -> None:
    guard = Guard()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    mine = subprocess.Popen(command, env=os.environ | guard.environment, start_new_session=True)
    other = subprocess.Popen(command)
    guard.end()
    assert mine.wait(timeout=60) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
