"""Kill a run at random moments, resume it, and look for what was lost or measured twice.

Each time the main process is killed (SIGKILL), or asked to end (SIGTERM), or one of its workers is
killed. After every end, all complete lines of before must still be there, each key once, and no
process may be left. A run that ended by itself must have every key of a run that was left alone,
but those of cells whose worker was killed in a call: such a cell ends with the status "crash".

Run ``python benchmarks/kills.py --kills 100``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

_ADAPTERS = Path(__file__).parents[1] / "tests/adapters"  # methods that only wait
_ASKED = [
    *("--method", "steady", "--method", "steady[seconds=0.02]", "--methods-dir", str(_ADAPTERS)),
    *("--family", "qp", "--family", "lp", "--size", "10x5", "--instances", "60"),
]
_HOW = ("main, SIGKILL", "main, SIGTERM", "worker, SIGKILL")


def _start(out: Path, resume: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bpqp_bench", "run", *_ASKED, "--out", str(out)]
    more = ["--resume"] if resume else []
    return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _lines(out: Path) -> list[bytes]:
    path = out / "measurements.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _cell(row: dict[str, object]) -> tuple[object, ...]:
    return row["method"], row["family"], row["size"]


def _kill(process: subprocess.Popen[bytes], how: str, moments: random.Random) -> str:
    """Kill once; returns what was done, "" where the run had ended before."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        victim = moments.choice(family) if how.startswith("worker") else process
        kind = signal.SIGTERM if how.endswith("TERM") else signal.SIGKILL
        if process.poll() is None:
            victim.send_signal(kind)
            return how
    except (psutil.NoSuchProcess, IndexError):
        pass
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    moments, done, faults = random.Random(given.seed), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        begun, whole, ended = time.monotonic(), Path(folder) / "whole", 0
        assert _start(whole, False).wait() == 0
        length = time.monotonic() - begun
        expected = {row["key"]: _cell(row) for row in map(json.loads, _lines(whole))}
        out, before, resume = Path(folder) / "run-0", list[bytes](), False
        while done.total() < given.kills or resume:
            process, tree, last = _start(out, resume), [], done.total() >= given.kills
            if not last:
                time.sleep(moments.uniform(0.0, 0.7) * length)
                if psutil.pid_exists(process.pid):
                    tree = psutil.Process(process.pid).children(recursive=True)
                how = _kill(process, moments.choice(_HOW), moments)
                done.update([how] if how else [])
            code = process.wait()
            faults["processes left"] += len(psutil.wait_procs(tree, timeout=60)[1])
            now = _lines(out)
            rows = [json.loads(line) for line in now]
            faults["lines lost"] += now[: len(before)] != before
            faults["keys twice"] += len(rows) - len({row["key"] for row in rows})
            before, resume = now, (out / "config.json").exists()
            if code in (0, 1):  # a run that ended by itself
                crashed = {_cell(row) for row in rows if row["status"] == "crash"}
                there = {row["key"] for row in rows}
                lost = [cell for key, cell in expected.items() if key not in there]
                faults["keys lost"] += sum(cell not in crashed for cell in lost)
                ended, resume, before = ended + 1, False, []
                out = Path(folder) / f"run-{ended}"
                print(f"{done.total()} kills, {ended} runs, {dict(+faults)}", flush=True)
    print(f"{len(expected)} measurements a run; kills: {dict(done)}; faults: {dict(+faults)}")
    return int(faults.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
