"""Where and with what a run was made: machine, libraries, code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import bpqp_bench
from bpqp_bench.plugins.registry import Registry

# Beside the libraries of the methods: what instances and references are made with.
_OWN = ("numpy", "scipy")
# What a measurement depends on; the rest keeps, reads or shows results.
_MEASURING = ("problem", "layers", "reference", "method", "runner")


def describe_environment(
    requires: Iterable[str], threads: Iterable[int], memory: int
) -> dict[str, Any]:
    """Describe machine, libraries and code, as plain JSON values.

    Parameters
    ----------
    requires
        Import names of the libraries that the measured methods need.
    threads
        Thread counts of the cells.
    memory
        Memory of the machine, or of the container around this process, bytes.

    Returns
    -------
    dict
        ``cpu``, ``cores`` (logical, of this process), ``physical_cores``, ``memory`` (bytes, of the
        machine or of the container around it), ``load`` (runnable processes, average of the
        minute before), ``machine``, ``os``, ``python``, ``versions`` (by distribution), ``blas``,
        ``threads``, ``package``, ``git_commit``, ``git_dirty``, ``command`` and ``time``.
    """
    commit, dirty = _git(Path(bpqp_bench.__file__).parent)
    counts = sorted(set(threads))
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory": memory,
        "load": round(psutil.getloadavg()[0], 2),
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": _versions({*_OWN, *requires}),
        "blas": _blas(),
        "threads": counts[0] if len(counts) == 1 else counts,
        "package": bpqp_bench.__version__,
        "git_commit": commit,
        "git_dirty": dirty,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def code_hash(registry: Registry) -> str:
    """Hash the sources that a measurement depends on: package, families and methods."""
    plugins = {f"methods/{name}": found.path for name, found in registry.methods.items()}
    plugins |= {f"problems/{name}": found.path for name, found in registry.families.items()}
    return source_hash(_MEASURING, plugins)


def source_hash(folders: Iterable[str], plugins: Mapping[str, str]) -> str:
    """Hash the Python files in folders of the package, and plug-in files under their names."""
    package = Path(bpqp_bench.__file__).parent
    sources = {
        f"package/{path.relative_to(package)}": path
        for folder in folders
        for path in (package / folder).rglob("*.py")
    }
    sources |= {name: Path(path) for name, path in plugins.items()}
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        digest.update(name.encode())
        # An entry point has no path of its own; its version is in the environment.
        digest.update(path.read_bytes() if path.is_file() else str(path).encode())
    return digest.hexdigest()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    """Version by distribution; None for a library that is not installed."""
    by_import = importlib.metadata.packages_distributions()
    found: dict[str, str | None] = {}
    for name in sorted(set(names)):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            continue
        for distribution in by_import.get(top, [top]):
            try:
                found[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found[distribution] = None
    # A library's compiled half often has a version of its own.
    for companion in ("jaxlib",):
        if "jax" in found:
            found[companion] = importlib.metadata.version(companion)
    return found


def _blas() -> list[dict[str, Any]]:
    import numpy.linalg  # noqa: F401, PLC0415  # loads NumPy's BLAS
    import scipy.linalg  # noqa: F401, PLC0415  # and SciPy's
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    keys = ("user_api", "internal_api", "prefix", "version", "architecture", "threading_layer")
    return [{key: info[key] for key in keys if key in info} for info in threadpool_info()]


def _git(folder: Path) -> tuple[str | None, bool | None]:
    """Commit, and whether tracked files differ from it; None outside of a checkout."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed package may lie inside somebody else's repository (a virtual environment).
    if not ask("ls-files", "--error-unmatch", "__init__.py"):
        return None, None
    status = ask("status", "--porcelain", "--untracked-files=no")
    return ask("rev-parse", "HEAD"), None if status is None else bool(status)
