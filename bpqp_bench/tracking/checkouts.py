"""Two checkouts side by side: where their files are, and the processes that run them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from bpqp_bench.errors import BenchError, ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.family import TEMPLATE_SEED
from bpqp_bench.problem.instance import Size
from bpqp_bench.runner.messages import (
    AnswerData,
    Build,
    Built,
    Called,
    CallMethod,
    Done,
    Failure,
    Request,
    Start,
    decode,
    unpack_answer,
)
from bpqp_bench.runner.shared_arrays import write_shared
from bpqp_bench.runner.worker_client import Limits, Worker, WorkerFailure, memory_default

_LIMIT_S = 600.0
_Reply = TypeVar("_Reply", bound=Done)


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
    """The runner's worker, of one checkout's package; a context manager.

    Parameters
    ----------
    folder
        The checkout. Its package goes before an installed one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._registry = Registry()
        self._built: set[str] = set()
        self._logs = tempfile.TemporaryDirectory()
        self._log = Path(self._logs.name) / "worker.log"
        # Without the second one, Python would look for the package in the current folder first.
        environment = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
        self._worker = Worker("methods", ((), ()), 1, self._log, environment=environment)
        self._limits = Limits(_LIMIT_S, _LIMIT_S, _LIMIT_S, memory_default())

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._logs.cleanup()

    def ask(self, method: str, family: str, size: str, seed: int) -> dict[str, Any]:
        """Measure one call: seconds of both passes, z and the gradient of q; or what failed.

        The instance is drawn here, so that both sides get the same one.

        Raises
        ------
        BenchError
            If the process died, or does not understand this checkout's messages.
        """
        id = f"{method} {family} {size}"
        try:
            if id not in self._built:
                if failed := self._build(id, method, family, size):
                    return {"error": failed.cause}
                self._built.add(id)
            with self._shared(family, size, seed) as path:
                reply = self._ask(CallMethod(id, (path,), wanted=True, first=False), Called)
        except WorkerFailure as failure:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise BenchError(
                f"the process of {self._folder} died at {id} seed {seed}: {failure.cause}; "
                f"{said[-1] if said else 'it said nothing'}"
            ) from None
        if reply.failed is not None or reply.forward is None or reply.backward is None:
            return {"error": reply.failed.cause if reply.failed else "it gave no times"}
        (data,) = decode(reply.answers, tuple[AnswerData, ...])
        answer, _ = unpack_answer(data, ("q",))
        return {
            "forward": reply.forward.call,
            "backward": reply.backward.call,
            "solution": answer.solution.z,
            "gradient": answer.gradients["q"],
        }

    def _build(self, id: str, method: str, family: str, size: str) -> Failure | None:
        started = self._ask(Start(method), Done)
        if started.failed is not None:
            return started.failed
        with self._shared(family, size, TEMPLATE_SEED) as template:
            request = Build(
                id=id,
                method=method,
                wrt=("q",),
                device="cpu",
                dtype="float64",
                batch=1,
                template=template,
            )
            return self._ask(request, Built).failed

    def _ask(self, request: Request, kind: type[_Reply]) -> _Reply:
        return self._worker.ask(self._limits, request, kind)

    @contextlib.contextmanager
    def _shared(self, family: str, size: str, seed: int) -> Iterator[str]:
        instance = self._registry.family(family).draw(Size.parse(size), seed)
        fd, path = write_shared(instance)
        try:
            yield path
        finally:
            os.close(fd)
