"""Hand an instance from one process to others without a copy through a pipe for each of them.

The arrays lie one after the other in memory that has no name (memfd); a reader gets arrays of its
own, so that a method which changes its input changes nobody else's.
"""

from __future__ import annotations

import os
import struct
import tempfile
from typing import Any, cast

import msgspec
import numpy as np

from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.storage import from_arrays, to_arrays

_LENGTH = struct.Struct("<Q")


class _Head(msgspec.Struct):
    sha256: str
    arrays: dict[str, tuple[str, tuple[int, ...]]]  # type and shape, in the order of the data


def write_shared(instance: Instance) -> tuple[int, str]:
    """Write an instance, without what was planted.

    Returns
    -------
    tuple
        File descriptor that keeps the data alive until it is closed, and the path under which
        other processes of this user can read them while it is.
    """
    # Not ascontiguousarray, which makes a vector of a number: the d of a cone.
    arrays = {name: np.asarray(array, order="C") for name, array in to_arrays(instance).items()}
    kinds = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    head = msgspec.msgpack.encode(_Head(instance.sha256, kinds))
    fd = _anonymous_file()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(_LENGTH.pack(len(head)) + head)
        for array in arrays.values():
            file.write(array.data if array.size else b"")
    return fd, f"/proc/{os.getpid()}/fd/{fd}"


def read_shared(path: str) -> Instance:
    """Return a private, writable copy of what was written."""
    with open(path, "rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        head = msgspec.msgpack.decode(file.read(length), type=_Head)
        arrays = {}
        for name, (kind, shape) in head.arrays.items():
            # NumPy's own allocation, so that alignment is that of any other array.
            arrays[name] = array = np.empty(shape, dtype=kind)
            got = cast(Any, file).readinto(array.data) if array.size else 0
            if got != array.nbytes:
                raise EOFError(f"{path} ends after {got} of {array.nbytes} bytes of {name}")
    return from_arrays(arrays, head.sha256)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bpqp_bench")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
