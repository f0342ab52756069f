"""All processes of a run: the judge, and one worker for each method class."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bpqp_bench.results.measurement import Status
from bpqp_bench.runner.messages import (
    Adopt,
    Build,
    Built,
    Called,
    CallMethod,
    Close,
    Done,
    Draw,
    Drawn,
    Drop,
    Failure,
    FindReference,
    Found,
    Judge,
    Judged,
    Prefetch,
    Request,
    Start,
)
from bpqp_bench.runner.plan import Block, Cell, batch_seeds
from bpqp_bench.runner.process_tree import Guard
from bpqp_bench.runner.records import Outcome, Problem, from_reply
from bpqp_bench.runner.time_split import Stopwatch
from bpqp_bench.runner.worker_client import Folders, Limits, Worker, WorkerFailure, memory_default

_Reply = TypeVar("_Reply", bound=Done)
Group = tuple[str, int, str]  # method class, threads, device


@dataclass(frozen=True)
class SharedBatch(Problem):
    """A batch of instances that lie ready for the workers to read; ``fds`` keep them alive."""

    sha256s: tuple[str, ...]
    paths: tuple[str, ...]
    fds: tuple[int, ...]

    @classmethod
    def of(cls, seed: int, parts: Sequence[tuple[str, str, int]]) -> SharedBatch:
        """Put hashes, paths and descriptors together; one problem has its own hash."""
        sha256s, paths, fds = zip(*parts, strict=True)
        whole = sha256s[0]
        if len(parts) > 1:
            whole = hashlib.sha256("".join(sha256s).encode()).hexdigest()
        return cls(seed, whole, sha256s, paths, fds)


class WorkerPool:
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
        self._judge_limits = replace(limits, other_s=reference_limit_s, memory=free)
        self._guard = Guard()
        self._workers: dict[Group, Worker] = {}
        self._starting: dict[Group, str] = {}  # to the method asked for
        self._restarted: set[Group] = set()
        self._broken: dict[Group, Outcome] = {}
        self._judge_worker: Worker | None = None

    def start(self, needed: Mapping[Group, str]) -> None:
        """Start the judge and one worker a group, without waiting for them."""
        with self._watch("start"):
            self._running_judge()
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

    def _ensure_started(self, group: Group, method: str) -> Outcome | None:
        """Wait for a group's worker; an outcome if it cannot be started."""
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

    def _ask(self, group: Group, limits: Limits, request: Request, kind: type[_Reply]) -> _Reply:
        """Ask a worker; one that is lost is forgotten, and started again when it is needed.

        Raises
        ------
        WorkerFailure
            If it was lost.
        """
        try:
            return self._workers[group].ask(limits, request, kind)
        except WorkerFailure:
            del self._workers[group]
            raise

    def build(
        self, block: Block, cell: Cell, limits: Limits, id: str, template: SharedBatch
    ) -> Outcome:
        """Have a method built under an id, in a worker that is started if there is none."""
        group = group_of(block, cell)
        if (broken := self._ensure_started(group, cell.method)) is not None:
            return broken
        request = Build(
            id=id,
            method=cell.method,
            wrt=block.wrt,
            device=block.device,
            dtype=block.dtype,
            batch=block.batch,
            template=template.paths[0],
        )
        with self._watch("other"):
            try:
                built = self._ask(group, limits, request, Built)
            except WorkerFailure as failed:
                self._watch.move("builds", failed.seconds)
                return _lost(failed, "build", build_s=failed.seconds)
            self._watch.move("builds", built.build_s)
        if (why := built.failed) is not None:
            return Outcome(
                Status(why.status),
                why.cause,
                stage="build",
                seconds=built.build_s,
                build_s=built.build_s,
            )
        return Outcome(
            Status.OK,
            seconds=built.build_s,
            build_s=built.build_s,
            phases_split=built.phases_split,
        )

    def call(
        self,
        group: Group,
        limits: Limits,
        id: str,
        problem: SharedBatch,
        wrt: tuple[str, ...],
        judge: bool,
        first: bool = False,
    ) -> Outcome:
        """Have a method called on a problem, and its answer judged."""
        request = CallMethod(id=id, problems=problem.paths, wanted=judge, first=first)
        with self._watch("other"):
            try:
                called = self._ask(group, limits, request, Called)
            except WorkerFailure as failed:
                self._watch.move("calls", failed.seconds)
                return _lost(failed, failed.stage)
            for part in (called.forward, called.backward):
                if part is not None:
                    self._watch.move("calls", part.call)
        if called.failed is not None and called.failed.status == Status.OUT_OF_MEMORY:
            # What is left of it may be large.
            self._workers.pop(group).stop()
        judged = self._judge(problem, wrt, called.answers) if called.answers else None
        return from_reply(called, judged)

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
                self._ask(group, self._limits, Drop(tuple(names), thorough), Done)

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.stop()
        if self._judge_worker is not None:
            self._judge_worker.stop()
        self._workers, self._judge_worker = {}, None
        self._guard.end()

    def draw(self, block: Block, seed: int) -> SharedBatch | str:
        """Draw the batch of a seed; a text says why it cannot be."""
        parts: list[tuple[str, str, int]] = []
        with self._watch("draw"):
            for number in batch_seeds(seed, block.batch):
                request = Draw(block.family, block.size, number, block.upstream)
                answer = self._ask_judge(request, Drawn)
                if answer.failed is not None:
                    if parts:
                        self.close(SharedBatch.of(seed, parts))
                    return answer.failed.cause
                # Kept open here, so that it outlives the judge.
                fd = os.open(answer.path, os.O_RDONLY)
                parts.append((answer.sha256, f"/proc/{os.getpid()}/fd/{fd}", fd))
        return SharedBatch.of(seed, parts)

    def show_judge(self, problem: SharedBatch) -> None:
        """Give the judge an instance that it has not drawn."""
        self._adopt(problem, (), "")

    def reference(self, problem: SharedBatch, wrt: tuple[str, ...]) -> float:
        """Compute the references of a batch; return the seconds it took."""
        started = time.perf_counter()
        with self._watch("judge"):
            answer = self._ask_judge(FindReference(problem.sha256s, wrt), Found)
            seconds = time.perf_counter() - started
            if answer.failed is not None:
                self._adopt(problem, wrt, answer.failed.cause)
            else:
                seconds = answer.seconds
            self._watch.move("references", seconds)
        return seconds

    def prefetch(self, block: Block, seed: int) -> None:
        """Compute references into the cache while workers are being started."""
        with self._watch("start"):
            for number in batch_seeds(seed, block.batch):
                request = Prefetch(block.family, block.size, number, block.upstream, block.wrt)
                answer = self._ask_judge(request, Found)
                if answer.failed is None:
                    self._watch.move("references", answer.seconds)

    def close(self, *problems: SharedBatch) -> None:
        """Give instances back."""
        for fd in (fd for problem in problems for fd in problem.fds):
            with contextlib.suppress(OSError):
                os.close(fd)
        with self._watch("draw"):
            sha256s = tuple(sha for problem in problems for sha in problem.sha256s)
            self._ask_judge(Close(sha256s), Done)

    def _judge(self, problem: SharedBatch, wrt: tuple[str, ...], answers: bytes) -> Judged:
        started = time.perf_counter()
        with self._watch("judge"):
            answer = self._ask_judge(Judge(problem.sha256s, wrt, answers), Judged)
            if answer.failed is not None:
                reason = f"judging failed: {answer.failed.cause}"
                if self._judge_worker is None:
                    self._watch.move("references", time.perf_counter() - started)
                    self._adopt(problem, wrt, reason)
                return Judged(reason=reason)
            self._watch.move("references", answer.seconds)
            return answer

    def _adopt(self, problem: SharedBatch, wrt: tuple[str, ...], reason: str) -> None:
        """Give a new judge the instances of the old one, whose reference is not tried again."""
        for path in problem.paths:
            self._ask_judge(Adopt(path, wrt, reason), Done)

    def _ask_judge(self, request: Request, kind: type[_Reply]) -> _Reply:
        """Ask the judge; its loss is a failed reply, and the next request starts another."""
        judge = self._running_judge()
        brief = isinstance(request, Draw | Close | Adopt)
        try:
            return judge.ask(self._draw_limits if brief else self._judge_limits, request, kind)
        except WorkerFailure as failed:
            self._judge_worker = None
            self.notes.append(f"the process that computes references was lost: {failed.cause}")
            what = type(request).__name__.lower()
            return kind(Failure(Status.CRASH, f"{what}: {failed.cause}"))

    def _running_judge(self) -> Worker:
        if self._judge_worker is None:
            self._judge_worker = Worker(
                "judge",
                self._folders,
                len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
                self._logs / "judge.log",
                cache=self._cache,
                environment=self._guard.environment,
            )
        return self._judge_worker

    def _launch(self, group: Group, method: str) -> None:
        name, threads, device = group
        suffix = "" if (threads, device) == (1, "cpu") else f"-{threads}-{device}"
        log = self._logs / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name + suffix)}.log"
        worker = Worker(
            "methods", self._folders, threads, log, device, environment=self._guard.environment
        )
        worker.send(Start(method))
        self._workers[group] = worker
        self._starting[group] = method

    def _await(self, group: Group) -> None:
        method = self._starting.pop(group)
        try:
            answer = self._workers[group].receive(self._limits, Done)
        except WorkerFailure as failed:
            del self._workers[group]
            if failed.status == "crash" and group not in self._restarted:
                # The system may have been short of memory while all of them were importing.
                self._restarted.add(group)
                self.notes.append(f"the worker of {group[0]} was started again: {failed.cause}")
                self._launch(group, method)
            else:
                self._broken[group] = _lost(failed, "build")
            return
        if answer.failed is not None:
            self._workers.pop(group).stop()
            status = Status(answer.failed.status)
            self._broken[group] = Outcome(status, answer.failed.cause, stage="build")


def _lost(failed: WorkerFailure, stage: str, build_s: float | None = None) -> Outcome:
    """Return what became of a request whose worker was lost."""
    return Outcome(
        Status(failed.status), failed.cause, stage=stage, seconds=failed.seconds, build_s=build_s
    )


def group_of(block: Block, cell: Cell) -> Group:
    """Return the group whose worker serves a cell."""
    return cell.worker, block.threads, block.device
