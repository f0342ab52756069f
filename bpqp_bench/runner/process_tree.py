"""Ends all processes that a run has started: its workers, and what their methods start.

Every process of a run carries the run's token in its environment, which it hands on. Whatever way a
run ends, also by SIGKILL, its guard then ends all that carry the token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

TOKEN = "BPQP_BENCH_PROCESS_TREE"

# Waits until the run is gone, of which the end of its input tells, and ends what it has left.
# Alone in a process: it must outlive the run, and imports nothing of the package to stay small.
_GUARD = f"""
import os, signal, sys
sys.stdin.buffer.read()
mark = b"{TOKEN}=" + sys.argv[1].encode()
for attempt in range(3):  # a process may just be starting another one
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{{pid}}/environ", "rb") as file:
                if mark in file.read().split(b"\\0") and int(pid) != os.getpid():
                    os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
"""


class Guard:
    """Ends a run's processes when the run is over or has died (Linux; elsewhere it does nothing).

    Attributes
    ----------
    environment
        What to add to the environment of the run's processes.
    """

    def __init__(self) -> None:
        token = secrets.token_hex(16)
        self.environment = {TOKEN: token}
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "linux":
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, token],
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the run
            )

    def end(self) -> None:
        """End all processes of the run."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def end_tree(pid: int) -> None:
    """Kill a session's leader, its process group, and all that descends from it."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in found:  # one that has left the group
        with contextlib.suppress(psutil.Error):
            process.kill()


def resident_memory(pid: int, limit: int) -> int:
    """Return the resident memory of a process and its descendants, bytes.

    What they share is counted for each, unless that would make it more than ``limit``.
    """
    pids = [pid, *_descendants(pid)]
    total = sum(_resident(each) for each in pids)
    if len(pids) > 1 and total > limit:
        return sum(_proportional(each) for each in pids)
    return total


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)
