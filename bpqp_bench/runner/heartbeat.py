"""What a worker is doing right now, in memory that it shares with its parent.

The parent enforces limits on a process that may hang in C code and answer no message; a pass costs
the worker two stores into shared memory instead of a message that would wake the parent.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from typing import Literal

Stage = Literal["idle", "import", "build", "forward", "backward", "other"]
_STAGES: tuple[Stage, ...] = ("idle", "import", "build", "forward", "backward", "other")
_COUNT = 8  # room for the stages in the low bits of a time in nanoseconds


class Heartbeat:
    """Stage and the time at which it began (`time.monotonic`, the same in all processes).

    Parameters
    ----------
    fd
        File descriptor of the memory in a child; None makes new memory.
    """

    def __init__(self, fd: int | None = None) -> None:
        new = fd is None
        if fd is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(mmap.PAGESIZE)
                fd = os.dup(file.fileno())
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        # One aligned word, which is stored at once: a reader must never see the stage without its
        # time. (`struct.pack_into` clears the bytes before it writes them.)
        self._word = memoryview(self._memory).cast("q")
        if new:
            self.enter("idle")

    def enter(self, stage: Stage) -> None:
        """Say that a stage begins now."""
        self._word[0] = time.monotonic_ns() * _COUNT + _STAGES.index(stage)

    def read(self) -> tuple[Stage, float]:
        """Return the stage and for how many seconds it has lasted."""
        since, number = divmod(self._word[0], _COUNT)
        return _STAGES[number], (time.monotonic_ns() - since) * 1e-9

    def close(self) -> None:
        """Release the memory and its file descriptor."""
        self._word.release()
        self._memory.close()
        os.close(self.fd)
