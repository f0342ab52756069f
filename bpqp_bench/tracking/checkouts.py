"""Two checkouts side by side: where their files are, and the processes that run them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from bpqp_bench.errors import BenchError, ResultsError
from bpqp_bench.runner.worker_client import worker_environment

__all__ = ["SideProcess", "checkout"]


@contextlib.contextmanager
def checkout(revision: str, repository: Path) -> Iterator[Path]:
    """Give a folder that holds ``revision``: the folder itself, or a temporary git worktree.

    Raises
    ------
    ResultsError
        If it is neither a folder with the package nor a revision of the repository.
    """
    if Path(revision).is_dir():
        folder = Path(revision).resolve()
        if not (folder / "bpqp_bench" / "__init__.py").is_file():
            raise ResultsError(f"folder {revision} is no checkout: it holds no bpqp_bench package")
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "checkout"
        git = ["git", "-C", str(repository), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", "--quiet", str(target), revision],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            raise ResultsError(
                f"{revision!r} is neither a folder nor a revision of {repository}: "
                f"{added.stderr.strip()}"
            )
        try:
            yield target
        finally:
            subprocess.run([*git, "remove", "--force", str(target)], check=True)


class SideProcess:
    """A process that runs cells of one checkout on request; a context manager.

    Parameters
    ----------
    folder
        The checkout. Its package goes before an installed one.
    """

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("regression_side.py")
        environment = dict(os.environ) | worker_environment(threads=1)
        environment["PYTHONPATH"] = str(folder)
        self._folder = folder
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed on exit
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=environment,
            text=True,
        )

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            if stream is not None:
                # What a dead process did not read cannot be flushed to it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises
        ------
        BenchError
            If the process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            # The answers end before the traceback is written.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._messages.seek(0)
            said = self._messages.read().strip().splitlines()
            raise BenchError(
                f"the process of {self._folder} died at {request}: "
                f"{said[-1] if said else 'it said nothing'}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer
