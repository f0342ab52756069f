"""What a worker is doing right now, in memory that it shares with its parent.

The parent enforces limits on a process that may hang in C code and answer no message; a pass costs
the worker two stores into this page instead of a message that would wake the parent.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import Literal, cast

__all__ = ["Stage", "StagePage"]

Stage = Literal["idle", "import", "build", "forward", "backward", "other"]
_STAGES: tuple[Stage, ...] = ("idle", "import", "build", "forward", "backward", "other")
_LAYOUT = struct.Struct("<qd")


class StagePage:
    """Stage and the time at which it began (`time.monotonic`, the same in all processes).

    Parameters
    ----------
    fd
        File descriptor of the page in a child; None makes a new page.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(mmap.PAGESIZE)
                fd = os.dup(file.fileno())
        self.fd = fd
        self._page = mmap.mmap(fd, mmap.PAGESIZE)

    def enter(self, stage: Stage) -> None:
        """Say that a stage begins now."""
        _LAYOUT.pack_into(self._page, 0, _STAGES.index(stage), time.monotonic())

    def read(self) -> tuple[Stage, float]:
        """Return the stage and for how many seconds it has lasted."""
        number, since = cast(tuple[int, float], _LAYOUT.unpack_from(self._page, 0))
        return _STAGES[number], time.monotonic() - since

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
        os.close(self.fd)
