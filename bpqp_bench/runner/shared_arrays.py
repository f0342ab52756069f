"""Hand an instance from one process to others without a copy through a pipe for each of them.

The arrays lie one after the other in memory that has no name (memfd); a reader gets arrays of its
own, so that a method which changes its input changes nobody else's.
"""

from __future__ import annotations

import os
import pickle
import struct
import tempfile
from typing import Any, BinaryIO, cast

import numpy as np

__all__ = ["read_parcel", "write_parcel"]

_HEADER = struct.Struct("<QQ")


def write_parcel(content: object) -> tuple[int, str]:
    """Write a picklable object.

    Returns
    -------
    tuple
        File descriptor that keeps the parcel alive until it is closed, and the path under which
        other processes of this user can read it while it is.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    fd = _anonymous_file()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(_HEADER.pack(len(head), len(views)))
        file.write(head)
        for view in views:
            file.write(struct.pack("<Q", view.nbytes))
            file.write(view)
    return fd, f"/proc/{os.getpid()}/fd/{fd}"


def read_parcel(path: str) -> Any:
    """Return a private, writable copy of what was written."""
    with open(path, "rb") as file:
        size, count = _HEADER.unpack(file.read(_HEADER.size))
        head = file.read(size)
        buffers = [_read_buffer(file) for _ in range(count)]
    return pickle.loads(head, buffers=buffers)


def _read_buffer(file: BinaryIO) -> Any:
    (size,) = struct.unpack("<Q", file.read(8))
    # NumPy's own allocation, so that alignment is that of any other array.
    buffer = np.empty(size, dtype=np.uint8)
    got = cast(Any, file).readinto(buffer.data) if size else 0
    if got != size:
        raise EOFError(f"parcel ends after {got} of {size} bytes")
    return buffer


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bpqp_bench")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
