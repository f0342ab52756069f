"""Processes that solve problems, with a time limit for each problem."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from .judge import Finding, run

DONE = -1  # in the place of a seed
START = 300.0  # seconds that a process may take to begin

Task = tuple[str, str, range]  # solvers, kind, seeds
Solve = Callable[[str, int, str], Finding]


def _work(tasks: Connection, solve: Solve) -> None:
    """Solve chunks until there are none; report the beginning and the end of each problem."""
    torch.set_num_threads(1)
    solve("strict", 0, "active-set/direct")  # what is compiled at first use is no problem's time
    while True:
        pair, kind, seeds = tasks.recv()
        for seed in seeds:
            tasks.send((seed, None))
            try:
                found = solve(kind, seed, pair)
            except Exception as error:  # a fault of the fuzzer, not of the layer
                found = Finding("undecided", f"fuzzer: {type(error).__name__}: {error}")
            tasks.send((seed, (found.outcome, found.why, found.by)))
        tasks.send((DONE, None))


class _Worker:
    """A process and the chunk that it works on."""

    def __init__(self, context: Any, task: Task, solve: Solve) -> None:
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, solve), daemon=True)
        self.process.start()
        there.close()
        self.begun = self.ended = False
        self.give(task)

    def give(self, task: Task) -> None:
        self.task, self.rest, self.seed = task, task[2], task[2].start
        self.since = time.monotonic()
        self.pipe.send(task)

    @property
    def seconds(self) -> float:
        """Since it last said something."""
        return time.monotonic() - self.since

    def read(self) -> tuple[int, tuple[str, str, str] | None]:
        """Read a seed and, at its end, the outcome."""
        try:
            seed, outcome = self.pipe.recv()
        except (EOFError, OSError):
            return self.lost("crash", "the process died")
        self.since, self.begun = time.monotonic(), True
        if seed != DONE:
            self.seed, self.rest = seed, range(seed + 1, self.rest.stop)
        return seed, outcome

    def lost(self, outcome: str, why: str) -> tuple[int, tuple[str, str, str]]:
        """Say that the present problem ended the process."""
        self.ended = True
        self.rest = range(self.seed + 1, self.rest.stop)
        return self.seed, (outcome, why, "")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def fuzz(
    tasks: list[Task], jobs: int, limit: float, solve: Solve = run
) -> Iterator[tuple[str, str, int, tuple[str, str, str]]]:
    """Yield solvers, kind, seed, (outcome, why, by), in any order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    left = list(reversed(tasks))
    workers: list[_Worker] = []
    while left or workers:
        while left and len(workers) < jobs:
            workers.append(_Worker(context, left.pop(), solve))
        ready = wait([worker.pipe for worker in workers], timeout=0.2)
        for worker in list(workers):
            pair, kind, _ = worker.task
            if worker.pipe in ready:
                found = worker.read()
            elif worker.seconds > (limit if worker.begun else START):
                found = worker.lost("timeout", f"{limit:g} s")
            else:
                continue
            seed, outcome = found
            if outcome is not None:
                yield pair, kind, seed, outcome
            if seed == DONE and left:
                worker.give(left.pop())
            elif seed == DONE or worker.ended:
                worker.end()
                workers.remove(worker)
                if worker.rest:
                    left.append((pair, kind, worker.rest))
