"""All processes of a run: the desk, and one worker for each method class."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bpqp_bench.results.measurement import Status
from bpqp_bench.runner.plan import Block
from bpqp_bench.runner.process_tree import Guard
from bpqp_bench.runner.records import Outcome, Problem, from_answer
from bpqp_bench.runner.time_split import Stopwatch
from bpqp_bench.runner.worker_client import Folders, Limits, Worker, WorkerFailure, memory_default

__all__ = ["Crew", "Drawn", "Group"]

Group = tuple[str, int, str]  # method class, threads, device


@dataclass(frozen=True)
class Drawn(Problem):
    """An instance that lies ready for the workers to read; ``fd`` keeps it alive."""

    path: str
    fd: int


class Crew:
    """Starts processes when they are needed, and again after one was lost.

    Parameters
    ----------
    folders
        The user's plug-in folders.
    logs
        Directory of the workers' output.
    cache
        Directory of references.
    watch
        Divides the wall time.
    limits
        On imports, on drawing an instance, and on requests that are neither build nor call.
    reference_limit_s
        On one reference.
    """

    def __init__(
        self,
        folders: Folders,
        logs: Path,
        cache: Path,
        watch: Stopwatch,
        limits: Limits,
        reference_limit_s: float,
    ) -> None:
        self.notes: list[str] = []
        self._folders = folders
        self._logs = logs
        self._cache = cache
        self._watch = watch
        self._limits = limits
        # The limit on memory is one of methods; a reference may take what there is.
        free = max(memory_default(), limits.memory)
        self._draw_limits = replace(limits, memory=free)
        self._desk_limits = replace(limits, other_s=reference_limit_s, memory=free)
        self._guard = Guard()
        self._workers: dict[Group, Worker] = {}
        self._starting: dict[Group, str] = {}  # to the method asked for
        self._restarted: set[Group] = set()
        self._broken: dict[Group, Outcome] = {}
        self._desk: Worker | None = None

    def start(self, needed: Mapping[Group, str]) -> None:
        """Start the desk and one worker a group, without waiting for them."""
        with self._watch("start"):
            self._the_desk()
            for group, method in needed.items():
                self._launch(group, method)

    def all_started(self) -> bool:
        """Whether all have imported their libraries, or failed to."""
        for group in list(self._starting):
            if self._workers[group].ready():
                self._await(group)
        return not self._starting

    def wait_until_started(self) -> None:
        """Wait for all."""
        with self._watch("start"):
            while not self.all_started():
                for group in list(self._starting):
                    self._await(group)

    def ensure(self, group: Group, method: str) -> Outcome | None:
        """Have a worker ready; an outcome if it cannot be started."""
        if group in self._broken:
            return self._broken[group]
        if group not in self._workers:
            with self._watch("start"):
                self._launch(group, method)
        while group in self._starting:
            with self._watch("start"):
                self._await(group)
        return self._broken.get(group)

    def pid(self, group: Group) -> int | None:
        """Process id of a group's worker, None if it has none."""
        worker = self._workers.get(group)
        return None if worker is None else worker.pid

    def ask(
        self, group: Group, limits: Limits, do: str, /, **arguments: Any
    ) -> tuple[Mapping[str, Any], bytes | None]:
        """Ask a worker; one that is lost is forgotten, and started again when it is needed.

        Raises
        ------
        WorkerFailure
            If it was lost.
        """
        try:
            return self._workers[group].ask(limits, do, **arguments)
        except WorkerFailure:
            del self._workers[group]
            raise

    def call(
        self,
        group: Group,
        limits: Limits,
        id: str,
        problem: Drawn,
        wrt: tuple[str, ...],
        judge: bool,
        first: bool = False,
    ) -> Outcome:
        """Have a method called on a problem, and its answer judged."""
        with self._watch("other"):
            try:
                meta, data = self.ask(
                    group, limits, "call", id=id, problem=problem.path, wanted=judge, first=first
                )
            except WorkerFailure as failed:
                self._watch.move("calls", failed.seconds)
                return Outcome(
                    Status(failed.status), failed.cause, stage=failed.stage, seconds=failed.seconds
                )
            for part in (meta["forward"], meta["backward"]):
                if part is not None:
                    self._watch.move("calls", part.call)
        if meta["failed"] is not None and meta["failed"][0] == "out-of-memory":
            # What is left of it may be large.
            self._workers.pop(group).stop()
        judged = None if data is None else self._judge(problem, wrt, data)
        return from_answer(meta, judged)

    def drop(self, built: Iterable[tuple[Group, str, int | None]], thorough: bool) -> None:
        """Let workers forget methods, given by group, id and the process they were built in.

        ``thorough``: have them look for what only the garbage collector can free; worth its time
        where instances are large.
        """
        ids: dict[Group, list[str]] = {}
        for group, id, pid in built:
            if pid is not None and pid == self.pid(group):
                ids.setdefault(group, []).append(id)
        for group, names in ids.items():
            with contextlib.suppress(WorkerFailure):
                self.ask(group, self._limits, "drop", ids=tuple(names), thorough=thorough)

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.stop()
        if self._desk is not None:
            self._desk.stop()
        self._workers, self._desk = {}, None
        self._guard.end()

    def draw(self, block: Block, seed: int) -> Drawn | str:
        """Draw an instance; a text says why it cannot be."""
        with self._watch("draw"):
            answer = self._ask_desk("draw", family=block.family, size=block.size, seed=seed)
            if isinstance(answer, str):
                return answer
            if answer["failed"] is not None:
                return str(answer["failed"])
            # Kept open here, so that it outlives the desk.
            fd = os.open(answer["path"], os.O_RDONLY)
        return Drawn(seed, answer["sha256"], f"/proc/{os.getpid()}/fd/{fd}", fd)

    def lend(self, problem: Drawn) -> None:
        """Give the desk an instance that it has not drawn."""
        self._ask_desk("adopt", path=problem.path, wrt=(), reason="")

    def reference(self, problem: Drawn, wrt: tuple[str, ...]) -> float:
        """Compute the reference of an instance; return the seconds it took."""
        started = time.perf_counter()
        with self._watch("judge"):
            answer = self._ask_desk("reference", sha256=problem.sha256, wrt=wrt)
            seconds = time.perf_counter() - started
            if isinstance(answer, str):
                self._adopt(problem, wrt, answer)
            else:
                seconds = float(answer["seconds"])
            self._watch.move("references", seconds)
        return seconds

    def prefetch(self, block: Block, seed: int) -> None:
        """Compute a reference into the cache while workers are being started."""
        with self._watch("start"):
            answer = self._ask_desk(
                "prefetch", family=block.family, size=block.size, seed=seed, wrt=block.wrt
            )
            if not isinstance(answer, str) and answer["failed"] is None:
                self._watch.move("references", float(answer["seconds"]))

    def close(self, *problems: Drawn) -> None:
        """Give instances back."""
        for problem in problems:
            with contextlib.suppress(OSError):
                os.close(problem.fd)
        with self._watch("draw"):
            self._ask_desk("close", sha256s=tuple(problem.sha256 for problem in problems))

    def _judge(self, problem: Drawn, wrt: tuple[str, ...], data: bytes) -> Mapping[str, Any]:
        started = time.perf_counter()
        with self._watch("judge"):
            answer = self._ask_desk("judge", data, sha256=problem.sha256, wrt=wrt)
            if isinstance(answer, str) or answer["failed"] is not None:
                reason = answer if isinstance(answer, str) else str(answer["failed"])
                if isinstance(answer, str):
                    self._watch.move("references", time.perf_counter() - started)
                    self._adopt(problem, wrt, reason)
                return {"reason": reason, "solution": {}, "accuracy": {}, "reference": None}
            self._watch.move("references", float(answer["seconds"]))
            return answer

    def _adopt(self, problem: Drawn, wrt: tuple[str, ...], reason: str) -> None:
        """Give a new desk the instance of the old one, whose reference is not tried again."""
        self._ask_desk("adopt", path=problem.path, wrt=wrt, reason=reason)

    def _ask_desk(
        self, do: str, data: bytes | None = None, /, **arguments: Any
    ) -> Mapping[str, Any] | str:
        desk = self._the_desk()
        limits = self._draw_limits if do in ("draw", "close", "adopt") else self._desk_limits
        try:
            return desk.ask(limits, do, data, **arguments)[0]
        except WorkerFailure as failed:
            self._desk = None
            self.notes.append(f"the process that computes references was lost: {failed.cause}")
            return f"{do}: {failed.cause}"

    def _the_desk(self) -> Worker:
        if self._desk is None:
            self._desk = Worker(
                "desk",
                self._folders,
                len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
                self._logs / "desk.log",
                cache=self._cache,
                environment=self._guard.environment,
            )
        return self._desk

    def _launch(self, group: Group, method: str) -> None:
        name, threads, device = group
        suffix = "" if (threads, device) == (1, "cpu") else f"-{threads}-{device}"
        log = self._logs / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name + suffix)}.log"
        worker = Worker(
            "methods", self._folders, threads, log, device, environment=self._guard.environment
        )
        worker.send("start", method=method)
        self._workers[group] = worker
        self._starting[group] = method

    def _await(self, group: Group) -> None:
        method = self._starting.pop(group)
        try:
            answer, _ = self._workers[group].receive(self._limits)
        except WorkerFailure as failed:
            del self._workers[group]
            if failed.status == "crash" and group not in self._restarted:
                # The system may have been short of memory while all of them were importing.
                self._restarted.add(group)
                self.notes.append(f"the worker of {group[0]} was started again: {failed.cause}")
                self._launch(group, method)
            else:
                self._broken[group] = Outcome(Status(failed.status), failed.cause, stage="build")
            return
        if answer["failed"] is not None:
            status, cause = answer["failed"]
            self._workers.pop(group).stop()
            self._broken[group] = Outcome(Status(status), cause, stage="build")
