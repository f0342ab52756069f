"""The worker process: builds methods and measures their passes, on request of the parent.

Started as ``python -m bpqp_bench.runner.worker_main``. It talks over a socket of its own, so that
whatever a method prints goes to a log; it dies with its parent; it never decides anything about the
run.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, cast

from bpqp_bench.method.contract import Method
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import (
    Answer,
    answer_fault,
    clock_for,
    judged_status,
    measure_call,
)
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Instance
from bpqp_bench.runner.heartbeat import Stage, StagePage
from bpqp_bench.runner.shared_arrays import read_parcel

__all__ = ["Host", "main", "serve"]

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "800"  # of 1000: if the system must end a process, then a worker and not the run


class Handler(Protocol):
    """Answers requests; the second part of an answer is passed on by the parent unread."""

    def __call__(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes | None]:
        """Return an answer and, maybe, a pickle for another process."""
        ...


class Host:
    """Builds and calls the methods of one class.

    Parameters
    ----------
    page
        Where the parent reads what is going on.
    registry
        Where methods are found.
    threads
        Number of threads of this process.
    """

    def __init__(self, page: StagePage, registry: Registry, threads: int) -> None:
        self._page = page
        self._registry = registry
        self._threads = threads
        self._built: dict[str, Method] = {}
        self._clocks: dict[str, PhaseClock] = {}

    def __call__(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes | None]:
        """Answer "start", "build", "call" or "drop"."""
        arguments = {key: value for key, value in request.items() if key != "do"}
        what: Callable[..., tuple[Mapping[str, Any], bytes | None]] = getattr(
            self, f"_{request['do']}"
        )
        return what(**arguments)

    def _start(self, method: str) -> tuple[Mapping[str, Any], None]:
        self._page.enter("import")
        for name in self._registry.method(method).cls.requires:
            try:
                importlib.import_module(name)
            except BaseException as error:
                traceback.print_exc()
                return _failed(error, f"import {name}"), None
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._threads)
        _settle()
        return {"failed": None}, None

    def _build(
        self, id: str, method: str, wrt: tuple[str, ...], device: str, template: str
    ) -> tuple[Mapping[str, Any], None]:
        """Create a method and build it for a template, under an id of the parent's choosing."""
        instance: Instance = read_parcel(template)
        built: Method | None = None
        started = time.perf_counter_ns()
        try:
            built = self._registry.method(method).create(wrt, device)
            reason = built.unsupported(instance)
            if reason is not None:
                return {"failed": ("unsupported", reason)}, None
            clock = clock_for(built)
            self._page.enter("build")
            started = time.perf_counter_ns()
            built.build(instance)
        except BaseException as error:
            traceback.print_exc()
            seconds = (time.perf_counter_ns() - started) * 1e-9
            return _failed(error, "build") | {"build_s": seconds}, None
        finally:
            self._page.enter("other")
        seconds = (time.perf_counter_ns() - started) * 1e-9
        self._built[id] = built
        self._clocks[id] = clock
        _settle()
        return {"failed": None, "build_s": seconds, "phases_split": built.phases_split}, None

    def _call(
        self, id: str, problem: str, wanted: bool, first: bool
    ) -> tuple[Mapping[str, Any], bytes | None]:
        """Measure one forward and backward pass; ``wanted``: send the answers for judging.

        ``first``: what the first call has loaded and compiled stays, like what was built.
        """
        method, clock = self._built[id], self._clocks[id]
        meta: dict[str, Any] = {"failed": None, "forward": None, "backward": None}
        stage = "answer"

        def report(entered: str, spent: PassTime | None) -> None:
            nonlocal stage
            if spent is None:
                stage = entered
                self._page.enter(cast(Stage, entered))
            else:
                meta[stage] = spent
                stage = "answer"
                self._page.enter("other")

        try:
            instance: Instance = read_parcel(problem)
            data = make_data([instance], method)
            upstream = make_upstream([instance], method)
            del instance
            _reset_peak()
            call = measure_call(method, data, upstream, clock, report)
            meta["peak"] = _peak()
            return self._answer(method, problem, call.answers[0], meta, wanted)
        except BaseException as error:
            self._page.enter("other")
            traceback.print_exc()
            # A pass that was left through an exception may have left its phase open.
            self._clocks[id] = clock_for(method)
            return meta | _failed(error, stage) | {"peak": _peak()}, None
        finally:
            if first:
                _settle()

    def _answer(
        self, method: Method, problem: str, answer: Answer, meta: dict[str, Any], wanted: bool
    ) -> tuple[Mapping[str, Any], bytes | None]:
        instance: Instance = read_parcel(problem)
        solution = answer.solution
        meta |= {
            "iterations": None if solution.iterations is None else int(solution.iterations),
            "info": dict(solution.info),
        }
        fault = answer_fault(answer, instance, method.wrt)
        if fault is not None:
            return meta | {"failed": fault, "solver_status": str(solution.status)}, None
        meta["solver_status"] = judged_status(solution, instance)
        if not wanted:
            return meta, None
        posed: Instance | None = None
        if type(method).poses is not Method.poses:
            posed = method.poses(instance)
            posed = None if posed.sha256 == instance.sha256 else replace(posed, planted=None)
        meta["posed"] = None if posed is None else posed.sha256
        return meta, pickle.dumps((solution, dict(answer.gradients), posed), protocol=5)

    def _drop(self, ids: tuple[str, ...], thorough: bool) -> tuple[Mapping[str, Any], None]:
        """Forget methods; ``thorough``: collect reference cycles too, which is slow."""
        for id in ids:
            self._built.pop(id, None)
            self._clocks.pop(id, None)
        if thorough:
            gc.unfreeze()
            _settle()
        return {}, None


def serve(connection: Connection, page: StagePage, handler: Handler) -> None:
    """Answer requests until the parent hangs up."""
    while True:
        try:
            request = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        page.enter("other")
        if request.pop("follows", False):
            request["data"] = connection.recv_bytes()
        answer, data = handler(request)
        packed = pickle.dumps({**answer, "follows": data is not None}, protocol=5)
        page.enter("idle")
        connection.send_bytes(packed)
        if data is not None:
            connection.send_bytes(data)


def main() -> None:
    """Run a worker: socket and page are inherited, the rest comes as the first message."""
    kind, socket_fd, page_fd, parent = sys.argv[1], *(int(text) for text in sys.argv[2:5])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    page = StagePage(page_fd)
    page.enter("import")
    connection = Connection(socket_fd)
    setting = pickle.loads(connection.recv_bytes())
    registry = Registry(*setting["folders"])
    if kind == "desk":
        # Not at the top: workers of methods need none of the reference.
        from bpqp_bench.runner.judge import Desk  # noqa: PLC0415

        serve(connection, page, Desk(registry, setting["cache"]))
    else:
        serve(connection, page, Host(page, registry, setting["threads"]))
    # Threads that a library left behind must not keep the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before the line above took effect

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(5.0)
        os._exit(1)

    if sys.platform != "linux":
        threading.Thread(target=watch, daemon=True).start()


def _failed(error: BaseException, where: str) -> dict[str, Any]:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {"failed": ("out-of-memory", f"{where}: {text}")}
    if where.startswith("import"):
        return {"failed": ("unavailable", f"{where}: {text}")}
    return {"failed": ("error", f"{where}: {text}")}


def _settle() -> None:
    # Modules and built objects stay: the collector need not look at them before every call.
    gc.collect()
    gc.freeze()


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    main()
