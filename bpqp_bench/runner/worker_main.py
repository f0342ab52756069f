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
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from bpqp_bench.method.contract import Method
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import (
    Call,
    answer_fault,
    clock_for,
    judged_status,
    measure_call,
)
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Instance
from bpqp_bench.results.measurement import Status
from bpqp_bench.runner.heartbeat import Heartbeat, Stage
from bpqp_bench.runner.messages import (
    Build,
    Built,
    Called,
    CallMethod,
    Channel,
    Done,
    Drop,
    Failure,
    Setting,
    Start,
    decode,
    encode,
    pack_answer,
    plain,
    plain_text,
)
from bpqp_bench.runner.shared_arrays import read_shared

_PR_SET_PDEATHSIG = 1
# Calls up to this long are preceded by an untimed one, see `MethodServer._rouse`.
_SHORT_S = 0.02
_OOM_SCORE = "800"  # of 1000: if the system must end a process, then a worker and not the run


Reply = msgspec.Struct
Handler = Callable[[Any], Reply]


class MethodServer:
    """Builds and calls the methods of one class.

    Parameters
    ----------
    heartbeat
        Where the parent reads what is going on.
    registry
        Where methods are found.
    threads
        Number of threads of this process.
    """

    def __init__(self, heartbeat: Heartbeat, registry: Registry, threads: int) -> None:
        self._heartbeat = heartbeat
        self._registry = registry
        self._threads = threads
        self._built: dict[str, Method] = {}
        self._clocks: dict[str, PhaseClock] = {}
        self._short: dict[str, list[Instance]] = {}  # problems of the last call, where it was short

    def __call__(self, request: Start | Build | CallMethod | Drop) -> Reply:
        """Answer a request."""
        match request:
            case Start():
                return self._start(request)
            case Build():
                return self._build(request)
            case CallMethod():
                return self._call(request)
            case Drop():
                return self._drop(request)

    def _start(self, request: Start) -> Done:
        self._heartbeat.enter("import")
        cls, name = self._registry.method(request.method).cls, ""
        try:
            for name in cls.requires:
                importlib.import_module(name)
            name = f"{cls.__name__}.load()"
            cls.load()
        except BaseException as error:
            traceback.print_exc()
            return Done(_failure(error, f"import {name}"))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._threads)
        _settle()
        return Done()

    def _build(self, request: Build) -> Built:
        instance = read_shared(request.template)
        started = time.perf_counter_ns()
        try:
            method = self._registry.method(request.method).create(
                request.wrt, request.device, request.dtype, request.batch
            )
            reason = method.unsupported(instance)
            if reason is not None:
                return Built(Failure(Status.UNSUPPORTED, plain_text(reason)))
            clock = clock_for(method)
            self._heartbeat.enter("build")
            started = time.perf_counter_ns()
            method.build(instance)
        except BaseException as error:
            traceback.print_exc()
            seconds = (time.perf_counter_ns() - started) * 1e-9
            return Built(_failure(error, "build"), build_s=seconds)
        finally:
            self._heartbeat.enter("other")
        seconds = (time.perf_counter_ns() - started) * 1e-9
        self._built[request.id], self._clocks[request.id] = method, clock
        _settle()
        return Built(build_s=seconds, phases_split=bool(method.phases_split))

    def _call(self, request: CallMethod) -> Called:
        method, clock = self._built[request.id], self._clocks[request.id]
        reply, stage = Called(), "answer"
        alone = len(request.problems) == 1 or method.batched

        def report(entered: str, spent: PassTime | None) -> None:
            nonlocal stage
            if spent is not None:
                setattr(reply, stage, spent)
                stage = "answer"
                if alone:
                    self._heartbeat.enter("other")
            else:
                # One limit holds for all passes where a batch is a loop over its problems.
                if alone or (stage == "answer" and reply.forward is None):
                    self._heartbeat.enter(cast(Stage, entered))
                stage = entered

        try:
            self._rouse(request.id)
            instances = [read_shared(path) for path in request.problems]
            data, upstream = make_data(instances, method), make_upstream(instances, method)
            _reset_peak()
            call = measure_call(method, data, upstream, clock, report)
            self._heartbeat.enter("other")
            reply.peak = _peak()
            del data, upstream
            if call.forward.call + call.backward.call <= _SHORT_S:
                self._short[request.id] = instances
            del instances
            self._answer(method, request, call, reply)
        except BaseException as error:
            self._heartbeat.enter("other")
            traceback.print_exc()
            # A pass that was left through an exception may have left its phase open.
            self._clocks[request.id] = clock_for(method)
            reply.failed, reply.peak = _failure(error, stage), _peak()
        finally:
            if request.first:
                _settle()
        return reply

    def _rouse(self, id: str) -> None:
        """Call a method whose calls are short on its last problem, untimed.

        Since its last call the other methods have run on this core, in their own processes, and
        have pushed this one's code out of the caches. That is a fixed cost of the harness which a
        loop of training steps does not have: at 10x5 more than the call itself.
        """
        problems = self._short.pop(id, None)
        if problems is None:
            return
        method = self._built[id]
        self._heartbeat.enter("forward")
        data, upstream = make_data(problems, method), make_upstream(problems, method)
        measure_call(method, data, upstream, self._clocks[id])
        self._heartbeat.enter("other")

    def _answer(self, method: Method, request: CallMethod, call: Call, reply: Called) -> None:
        first = call.solution
        reply.iterations = None if first.iterations is None else int(first.iterations)
        reply.info = plain(first.info)
        statuses, packed = [], []
        for number, (path, answer) in enumerate(zip(request.problems, call.answers, strict=True)):
            instance = read_shared(path)  # what the method was given may have been changed
            if fault := answer_fault(answer, instance, method.wrt):
                where = f"problem {number}: " if len(call.answers) > 1 else ""
                reply.failed = Failure(fault[0], where + fault[1])
                statuses.append(plain_text(answer.solution.status))
                break
            statuses.append(plain_text(judged_status(answer.solution, instance)))
            if request.wanted:
                posed = method.poses(instance)
                other = posed.sha256 != instance.sha256
                reply.posed = plain_text(posed.sha256) if other else None
                packed.append(pack_answer(answer, posed if other else None))
        reply.statuses = tuple(statuses)
        if request.wanted and reply.failed is None:
            reply.answers = msgspec.msgpack.encode(packed)

    def _drop(self, request: Drop) -> Done:
        for id in request.ids:
            self._built.pop(id, None)
            self._clocks.pop(id, None)
            self._short.pop(id, None)
        if request.thorough:
            gc.unfreeze()
            _settle()
        return Done()


def serve(channel: Channel, heartbeat: Heartbeat, handler: Handler, requests: Any) -> None:
    """Answer requests of some classes until the parent hangs up."""
    own = os.getpid()
    while True:
        try:
            number, message = channel.receive()
        except (EOFError, OSError):
            return
        heartbeat.enter("other")
        answer = encode(handler(decode(message, requests)))
        if os.getpid() != own:
            os._exit(0)  # a method has forked, and this is the child
        heartbeat.enter("idle")
        channel.send(number, answer)


def main() -> None:
    """Run a worker: socket and heartbeat are inherited, the rest comes as the first message."""
    kind, socket_fd, heartbeat_fd, parent = sys.argv[1], *(int(text) for text in sys.argv[2:5])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    heartbeat = Heartbeat(heartbeat_fd)
    heartbeat.enter("import")
    channel = Channel(socket.socket(fileno=socket_fd))
    setting = decode(channel.receive()[1], Setting)
    registry = Registry(
        tuple(map(Path, setting.methods_dirs)), tuple(map(Path, setting.problems_dirs))
    )
    if kind == "judge":
        # Not at the top: workers of methods need none of the reference.
        from bpqp_bench.runner.judge import REQUESTS, JudgeServer  # noqa: PLC0415

        serve(channel, heartbeat, JudgeServer(registry, setting.cache), REQUESTS)
    else:
        server = MethodServer(heartbeat, registry, setting.threads)
        serve(channel, heartbeat, server, Start | Build | CallMethod | Drop)
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


def _failure(error: BaseException, where: str) -> Failure:
    message = plain_text(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    kind = plain_text(type(error).__name__)
    text = f"{where}: {kind}: {lines[0]}" if lines else f"{where}: {kind}"
    if isinstance(error, MemoryError) or "can't allocate memory" in message:
        return Failure(Status.OUT_OF_MEMORY, text)
    return Failure(Status.UNAVAILABLE if where.startswith("import") else Status.ERROR, text)


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
