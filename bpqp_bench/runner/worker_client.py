"""The parent's side of a worker process: start it, ask it, hold it to its limits, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from bpqp_bench.runner.heartbeat import Heartbeat, Stage
from bpqp_bench.runner.memory_limit import free_memory
from bpqp_bench.runner.messages import (
    Channel,
    Done,
    ProtocolError,
    Request,
    Setting,
    decode,
    encode,
)
from bpqp_bench.runner.process_tree import end_tree, resident_memory

_Reply = TypeVar("_Reply", bound=Done)
Folders = tuple[tuple[Path, ...], tuple[Path, ...]]

_LOG_MOST, _LOG_KEPT = 16 * 2**20, 8 * 2**20
_MEMORY_SHARE = 0.8
_MEMORY_RESERVE = 512 * 2**20


@dataclass(frozen=True)
class Limits:
    """Limits on one request.

    Attributes
    ----------
    call_s, build_s
        Wall time of a forward or backward pass, and of `build`.
    other_s
        Wall time of imports, and of everything between the passes.
    memory
        Resident memory of the process, bytes.
    """

    call_s: float
    build_s: float
    other_s: float
    memory: int

    def of(self, stage: Stage) -> float:
        """Return the limit on a stage, in seconds."""
        return {"forward": self.call_s, "backward": self.call_s, "build": self.build_s}.get(
            stage, self.other_s
        )


class WorkerFailure(Exception):  # noqa: N818  # it is an outcome, caught by the runner
    """The process is gone: it died, or was ended at a limit.

    Attributes
    ----------
    status
        "timeout", "out-of-memory" or "crash".
    cause
        One line.
    stage
        What it was doing.
    seconds
        For how long.
    """

    def __init__(
        self,
        status: Literal["timeout", "out-of-memory", "crash"],
        cause: str,
        stage: Stage,
        seconds: float,
    ) -> None:
        super().__init__(cause)
        self.status: Literal["timeout", "out-of-memory", "crash"] = status
        self.cause = cause
        self.stage = stage
        self.seconds = seconds


class Worker:
    """A child process that answers one request at a time.

    Parameters
    ----------
    kind
        "methods" or "judge".
    folders
        The user's plug-in folders, for methods and for families.
    threads
        Threads of the libraries in it.
    log
        File that takes its standard output and standard error.
    device
        "cpu", or a device that JAX may use too.
    cache
        Directory of references, for the judge.
    environment
        Further variables of its environment.
    """

    def __init__(
        self,
        kind: Literal["methods", "judge"],
        folders: Folders,
        threads: int,
        log: Path,
        device: str = "cpu",
        cache: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        ours, theirs = socket.socketpair()
        self._heartbeat = Heartbeat()
        self._heartbeat.enter("import")
        environment = {**os.environ, **worker_environment(threads, device), **environment}
        fds = (theirs.fileno(), self._heartbeat.fd)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "bpqp_bench.runner.worker_main", kind),
                    *(str(number) for number in (*fds, os.getpid())),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                start_new_session=True,  # Ctrl-C is for the run, which ends its workers itself
            )
        theirs.close()
        self._channel = Channel(ours)
        self._number = 0
        self._stopped = False
        self._log = log
        methods, problems = (tuple(str(f.resolve()) for f in group) for group in folders)
        with contextlib.suppress(OSError):
            self._channel.send(0, encode(Setting(methods, problems, threads, str(cache))))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, request: Request) -> None:
        """Send a request; `receive` takes its reply."""
        # The worker enters its own stage when it wakes up; until then the limit counts from here.
        self._heartbeat.enter("other")
        self._number += 1
        with contextlib.suppress(OSError):  # a dead process shows in `receive`
            self._channel.send(self._number, encode(request))

    def receive(self, limits: Limits, kind: type[_Reply]) -> _Reply:
        """Wait for the reply, of a kind.

        Raises
        ------
        WorkerFailure
            If the process died, wrote something else, or broke a limit and was ended.
        """
        try:
            while True:
                number, message = self._channel.receive(lambda: self._check(limits))
                if number == self._number:
                    return decode(message, kind)
                if number > self._number:
                    raise ProtocolError
        except (EOFError, OSError):
            raise self._died() from None
        except ProtocolError:
            raise self._ended("crash", "something else wrote to its connection") from None

    def ask(self, limits: Limits, request: Request, kind: type[_Reply]) -> _Reply:
        """Send a request and wait for its reply; raises as `receive`."""
        self.send(request)
        return self.receive(limits, kind)

    def ready(self) -> bool:
        """Whether a reply, or the end of the process, is there."""
        try:
            return self._channel.ready() or self._process.poll() is not None
        except OSError:
            return True

    def stop(self) -> None:
        """End the process and whatever it started; harmless if it is gone, or ended already."""
        if self._stopped:
            return
        self._stopped = True
        end_tree(self._process.pid)
        self._process.wait()
        self._channel.close()
        self._heartbeat.close()

    def _check(self, limits: Limits) -> None:
        if self._process.poll() is not None and not self._channel.ready():
            raise EOFError
        stage, seconds = self._heartbeat.read()
        if seconds > limits.of(stage):
            limit = limits.of(stage)
            raise self._ended("timeout", f"{stage} took longer than {limit:g} s")
        _bound(self._log)
        memory = resident_memory(self._process.pid, limits.memory)
        if memory > limits.memory:
            raise self._ended(
                "out-of-memory",
                f"{stage} took {memory / 2**20:.0f} MiB, more than the limit of "
                f"{limits.memory / 2**20:.0f} MiB",
            )

    def _ended(
        self, status: Literal["timeout", "out-of-memory", "crash"], cause: str
    ) -> WorkerFailure:
        stage, seconds = self._heartbeat.read()
        self.stop()
        return WorkerFailure(status, cause, stage, seconds)

    def _died(self) -> WorkerFailure:
        stage, seconds = self._heartbeat.read()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        code = self._process.poll()
        self.stop()
        if code is None:
            cause = f"closed its connection during {stage}"
        elif code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps because the system ran out of memory" if name == "SIGKILL" else ""
            cause = f"the process was ended by {name} during {stage}{hint}"
        else:
            cause = f"the process left with exit status {code} during {stage}"
        return WorkerFailure("crash", cause, stage, seconds)


def _bound(log: Path) -> None:
    """Cut a log that grows too long; its beginning and what comes after the cut remain."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_MOST:
            os.truncate(log, _LOG_KEPT)


def worker_environment(threads: int, device: str = "cpu") -> dict[str, str]:
    """Return the environment variables that fix thread counts and precision of the libraries.

    They have to be there before a library is loaded, so they are set for a new process.
    """
    count = str(threads)
    variables = dict.fromkeys(
        (
            *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS"),
            *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"),
            "NPROC",  # size of XLA's thread pool on the CPU
        ),
        count,
    )
    variables |= {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE", "JAX_ENABLE_X64": "1"}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if device == "cpu":
        variables["JAX_PLATFORMS"] = "cpu"
    return variables


def memory_default() -> int:
    """Return the default limit on a worker: most of what is free now, in bytes."""
    return max(int(_MEMORY_SHARE * (free_memory() - _MEMORY_RESERVE)), _MEMORY_RESERVE)
