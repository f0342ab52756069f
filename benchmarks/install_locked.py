"""Install the lock file into an asv environment, leaving the packages under test alone.

``python install_locked.py requirements.lock [NAME ...]`` installs every pinned package except the
NAMEs, whose versions the matrix of asv.versions.conf.json has chosen. ``--no-deps`` because the
lock is complete and qpth's metadata would otherwise forbid NumPy 2.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def locked(lock: Path, without: set[str]) -> list[str]:
    lines = [line.strip() for line in lock.read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    return [pin for pin in pins if pin.partition("==")[0].lower() not in without]


def main(lock: str, *without: str) -> None:
    pins = locked(Path(lock), {name.lower() for name in without})
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as chosen:
        chosen.write("\n".join(pins))
        chosen.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-r"]
        subprocess.run([*command, chosen.name], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
