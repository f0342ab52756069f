"""How much memory this process may take: the machine's, or less inside a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path("/")


@dataclass(frozen=True)
class _Version:
    """Where one version of Linux' control groups keeps its figures."""

    folder: str
    limit: str
    used: str
    cache: str  # the line of memory.stat that counts what the kernel gives back when asked


_V1 = _Version(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
_V2 = _Version("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def total_memory(root: Path = _ROOT) -> int:
    """Return the machine's memory, or the tightest limit of a control group around us, bytes."""
    limits = [limit for limit, _ in _groups(root)]
    return min([int(psutil.virtual_memory().total), *limits])


def free_memory(root: Path = _ROOT) -> int:
    """Return what can still be taken, of the machine and of every control group, bytes."""
    left = [limit - used for limit, used in _groups(root)]
    return max(min([int(psutil.virtual_memory().available), *left]), 0)


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of each control group that this process is in and that has a limit."""
    for version, path in _memberships(root):
        top = root / version.folder
        # Inside a container the path may be that of the host, and the folder itself the group.
        folder = top / path.lstrip("/")
        for group in (folder, *(parent for parent in folder.parents if parent.is_relative_to(top))):
            limit = _number(group / version.limit)
            used = _number(group / version.used)
            if limit is not None and used is not None:
                yield limit, used - _cached(group / "memory.stat", version.cache)


def _memberships(root: Path) -> Iterator[tuple[_Version, str]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield _V2, path
        elif "memory" in controllers.split(","):
            yield _V1, path


def _number(file: Path) -> int | None:
    """Read a figure; None where there is no such file, or it says "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
