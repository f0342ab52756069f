"""The local executor: block by block, instance by instance, every method in random order."""

from __future__ import annotations

import os
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.cache import cache_directory
from bpqp_bench.problem.family import TEMPLATE_SEED
from bpqp_bench.results.measurement import Measurement, Role, Status
from bpqp_bench.results.run_directory import RunDirectory
from bpqp_bench.runner.plan import NO_WARMUP_S, Block, Cell, Plan
from bpqp_bench.runner.records import Outcome, is_fatal, make_measurement, measurement_key
from bpqp_bench.runner.replay import keep_inputs
from bpqp_bench.runner.time_left import Kind, TimeLeft, Work
from bpqp_bench.runner.time_split import RunSummary, Stopwatch
from bpqp_bench.runner.worker_client import Folders, Limits, memory_default
from bpqp_bench.runner.worker_pool import Group, SharedBatch, WorkerPool, group_of

# References of larger instances are computed when their turn comes.
_LARGEST_PREFETCHED = 500
# Of importing the libraries of a method, and of building for a small problem, about.
_START_S, _BUILD_S = 4.0, 0.05
# Variables from which a dropped method holds so much memory that it is collected at once.
_LARGE = 500


@dataclass(frozen=True)
class Options:
    """What belongs to the machine and not to the plan.

    Attributes
    ----------
    memory_limit
        Resident memory of a worker, bytes; None: most of what is free at the start.
    reference_limit_s
        Wall time of one reference.
    start_limit_s
        Wall time of a worker's imports, and of all that it does between the passes.
    cache
        Directory of references; None: that of `cache_directory`.
    """

    memory_limit: int | None = None
    reference_limit_s: float = 900.0
    start_limit_s: float = 180.0
    cache: Path | None = None


@dataclass
class _Cell:
    """One cell while its block runs."""

    block: Block
    cell: Cell
    id: str
    ended: str | None = None
    pid: int | None = None
    build_s: float | None = None
    phases_split: bool = True
    spent_s: float = 0.0
    done: set[int] = field(default_factory=set)

    @property
    def group(self) -> Group:
        return group_of(self.block, self.cell)

    @property
    def build_kind(self) -> Kind:
        return ("build", self.cell.worker, self.cell.method, self.block.key)

    @property
    def call_kind(self) -> Kind:
        return ("call", self.cell.worker, self.cell.method, self.block.key)

    def left(self) -> int:
        return 0 if self.ended else len(self.cell.seeds) - len(self.done)

    def work(self) -> tuple[Work, Work]:
        """Return what is left of it: build with its first call, and counted calls."""
        cell, left = self.cell, self.left()
        most_s = 2.0 * cell.call_limit_s
        call_s = min(nominal_call_s(self.block), most_s)
        budget_s = float("inf") if cell.cell_budget_s is None else cell.cell_budget_s
        limit_s = min(left * most_s, budget_s - self.spent_s)
        build_limit_s = cell.build_limit_s + most_s
        return (
            Work(self.build_kind, min(left, 1), min(_BUILD_S + call_s, most_s), build_limit_s),
            Work(self.call_kind, left, call_s, limit_s),
        )


class LocalRun:
    """One execution of a plan; `run` may be called once."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        folders: Folders,
        time_left: TimeLeft,
        options: Options,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._time_left = time_left
        self._options = options
        self._registry = Registry(*folders)
        self._memory = options.memory_limit or memory_default()
        self._watch = Stopwatch()
        cache = options.cache or cache_directory("references")
        self._pool = WorkerPool(
            folders=folders,
            logs=directory.path / "logs",
            cache=cache,
            watch=self._watch,
            limits=Limits(
                call_s=options.start_limit_s,
                build_s=options.start_limit_s,
                other_s=options.start_limit_s,
                memory=self._memory,
            ),
            reference_limit_s=options.reference_limit_s,
        )
        if not _is_writable(cache):
            self._pool.notes.append(f"references are not kept: {cache} cannot be written to")
        self._cells = [
            _Cell(block, cell, f"{index}.{number}")
            for index, block in enumerate(plan.blocks)
            for number, cell in enumerate(block.cells)
        ]
        self._statuses: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._problems: list[str] = []
        self._unjudged: Counter[str] = Counter()
        self._before = len(directory.measurements)

    def run(self) -> RunSummary:
        """Run what is missing; workers are gone on return, also by an exception."""
        try:
            self._recall()
            self._time_left.plan(work for state in self._cells for work in state.work())
            self._start()
            for block in self._plan.blocks:
                cells = [cell for cell in self._cells if cell.block is block]
                if any(cell.left() for cell in cells):
                    self._run_block(block, cells)
            self._time_left.show("measured", force=True)
        finally:
            self._pool.stop()
        return RunSummary(
            measurements=len(self._directory.measurements) - self._before,
            before=self._before,
            statuses=dict(self._statuses),
            ended=dict(self._ended),
            problems=tuple(self._problems),
            split=self._watch.split(),
            notes=(
                *self._pool.notes,
                *(f"{n} calls without a reference: {why}" for why, n in self._unjudged.items()),
            ),
        )

    def _recall(self) -> None:
        """Take over what earlier sessions have measured."""
        known: dict[tuple[object, ...], list[Measurement]] = {}
        for m in self._directory.measurements:
            setting = (m.wrt, m.batch, m.dtype, m.device, m.threads, m.upstream)
            known.setdefault((m.method, m.family, m.size, *setting), []).append(m)
        for state in self._cells:
            block = state.block
            setting = (
                *(block.wrt, block.batch, block.dtype),
                *(block.device, block.threads, block.upstream),
            )
            for m in known.get((state.cell.method, block.family, block.size, *setting), []):
                seconds = sum(part.call for part in (m.forward, m.backward) if part is not None)
                if m.role == "measured":
                    state.done.add(m.seed)
                    state.spent_s += seconds
                if is_fatal(m.status, m.info.get("stage")):
                    state.ended = m.status
            self._check_budget(state)

    def _start(self) -> None:
        """Start all workers at once; while they import, references are computed."""
        needed: dict[Group, str] = {}
        for state in self._cells:
            if state.left() and self._missing(state.cell) is None:
                needed.setdefault(state.group, state.cell.method)
        cores = os.cpu_count() or 1
        starting = Work(("start",), nominal_s=_START_S * (1.0 + len(needed) / cores))
        with self._time_left.running(starting, "starting workers"):
            self._pool.start(needed)
            self._prefetch()
            self._pool.wait_until_started()

    def _prefetch(self) -> None:
        for block in self._plan.blocks:
            if block.n > _LARGEST_PREFETCHED:
                continue
            wanted = {
                seed
                for state in self._cells
                if state.block is block and not state.ended
                for seed in set(state.cell.seeds) - state.done
            }
            for seed in sorted(wanted):
                if self._pool.all_started():
                    return
                self._pool.prefetch(block, seed)

    def _run_block(self, block: Block, cells: list[_Cell]) -> None:
        template = self._draw(block, TEMPLATE_SEED)
        warmup = self._draw(block, TEMPLATE_SEED + 1) if template is not None else None
        if template is None or warmup is None:
            for state in cells:
                self._end(state, "undrawable")
            return
        for state in _shuffled(cells, block, TEMPLATE_SEED):
            if state.left():
                self._prepare(state, template, warmup)
        # At the largest sizes these are hundreds of megabytes; a rebuild draws them again.
        self._pool.close(template, warmup)
        for seed in block.seeds:
            self._run_instance(block, cells, seed)
        self._pool.drop(
            [(state.group, state.id, state.pid) for state in cells],
            thorough=block.n >= _LARGE,
        )
        self._time_left.drop(work.kind for state in cells for work in state.work())

    def _run_instance(self, block: Block, cells: list[_Cell], seed: int) -> None:
        def due(state: _Cell) -> bool:
            return bool(state.left()) and seed in state.cell.seeds and seed not in state.done

        if not any(due(state) for state in cells):
            return
        problem = self._draw(block, seed)
        if problem is None:
            for state in cells:
                state.done.add(seed)
            return
        self._pool.reference(problem, block.wrt)
        for order, state in enumerate(_shuffled(cells, block, seed)):
            if not due(state):
                continue
            if not self._is_built(state) and not self._rebuild(state):
                continue
            self._call(state, problem, "measured", order)
            state.done.add(seed)
            self._check_budget(state)
        self._pool.close(problem)

    def _prepare(self, state: _Cell, template: SharedBatch, warmup: SharedBatch) -> None:
        """Build, first call and warm-ups of a cell; an ended cell if one of them is fatal."""
        self._time_left.show(
            f"{state.block.family} {state.block.size}: building {state.cell.method}"
        )
        started = time.perf_counter()
        outcome = self._build(state, template)
        if outcome.status != Status.OK:
            self._write(state, template, "first", outcome, 0)
            self._end(state, outcome.status)
            return
        outcome = self._call(state, warmup, "first", 0)
        self._time_left.spent(state.build_kind, time.perf_counter() - started)
        for repetition in range(state.cell.warmups):
            if state.ended or outcome.seconds > NO_WARMUP_S:
                return
            outcome = self._call(state, warmup, "warmup", repetition)

    def _is_built(self, state: _Cell) -> bool:
        return state.pid is not None and state.pid == self._pool.pid(state.group)

    def _rebuild(self, state: _Cell) -> bool:
        """Build again in a new process, after another variant has taken the old one with it."""
        template = self._draw(state.block, TEMPLATE_SEED)
        warmup = self._draw(state.block, TEMPLATE_SEED + 1)
        if template is None or warmup is None:
            self._end(state, "undrawable")
            return False
        outcome = self._build(state, template)
        if outcome.status != Status.OK:
            self._write(state, template, "warmup", outcome, 0)
            self._end(state, outcome.status)
        else:
            self._call(state, warmup, "warmup", 0)
        self._pool.close(template, warmup)
        return not state.ended

    def _build(self, state: _Cell, template: SharedBatch) -> Outcome:
        cell, block = state.cell, state.block
        missing = self._missing(cell)
        if missing is not None:
            return Outcome(Status.UNAVAILABLE, missing, stage="build")
        outcome = self._pool.build(block, cell, self._limits(cell), state.id, template)
        if outcome.status == Status.OK:
            state.pid = self._pool.pid(state.group)
            state.build_s = outcome.build_s
            state.phases_split = outcome.phases_split
        return outcome

    def _call(self, state: _Cell, problem: SharedBatch, role: Role, order: int) -> Outcome:
        """Make one call, have it judged, and write it down unless it is there already."""
        cell, block = state.cell, state.block
        started = time.perf_counter()
        what = f"seed {problem.seed}" if role == "measured" else role
        self._time_left.show(f"{block.family} {block.size} {what}: {cell.method}")
        outcome = self._pool.call(
            state.group,
            self._limits(cell),
            state.id,
            problem,
            block.wrt,
            judge=role == "measured",
            first=role == "first",
        )
        outcome = outcome.held_to(cell.call_limit_s)
        if role == "measured":
            state.spent_s += outcome.seconds
        self._write(state, problem, role, outcome, order)
        # A first call compiles and loads, unless it is so long that no other follows.
        if role != "first" or outcome.seconds > NO_WARMUP_S:
            seconds = time.perf_counter() - started
            self._time_left.spent(state.call_kind, seconds, counts=role == "measured")
        if is_fatal(outcome.status, outcome.stage):
            self._end(state, outcome.status)
        return outcome

    def _write(
        self, state: _Cell, problem: SharedBatch, role: Role, outcome: Outcome, order: int
    ) -> None:
        repetition = order if role == "warmup" else 0
        key = measurement_key(state.block, state.cell, problem.sha256, role, repetition)
        while key in self._directory:
            # Made again for a new process. Worth a line only if it fails where it did not before.
            if outcome.status == Status.OK:
                return
            repetition += 1
            key = measurement_key(state.block, state.cell, problem.sha256, role, repetition)
        measurement = make_measurement(
            key=key,
            block=state.block,
            cell=state.cell,
            problem=problem,
            role=role,
            order=0 if role == "warmup" else order,
            outcome=outcome,
            build_s=state.build_s,
            phases_split=state.phases_split,
            memory_limit=self._memory,
        )
        with self._watch("write"):
            for sha256, path in zip(problem.sha256s, problem.paths, strict=True):
                keep_inputs(self._directory.path, measurement, sha256, path, self._registry)
            self._directory.append(measurement)
        if why := outcome.info.get("no_reference"):
            self._unjudged[f"{state.block.family} {state.block.size}: {why}"] += 1
        if role == "measured" or (state.left() and is_fatal(outcome.status, outcome.stage)):
            self._statuses[outcome.status] += 1

    def _missing(self, cell: Cell) -> str | None:
        return self._registry.method(cell.method).missing()

    def _limits(self, cell: Cell) -> Limits:
        return Limits(
            call_s=cell.call_limit_s,
            build_s=cell.build_limit_s,
            other_s=self._options.start_limit_s,
            memory=self._memory,
        )

    def _draw(self, block: Block, seed: int) -> SharedBatch | None:
        drawn = self._pool.draw(block, seed)
        if isinstance(drawn, SharedBatch):
            return drawn
        what = f"seed {seed}" if seed < TEMPLATE_SEED else "(all of it)"
        text = f"{block.family} {block.size} {what} cannot be drawn: {drawn}"
        if text not in self._problems:
            self._problems.append(text)
            self._time_left.note(text)
        return None

    def _check_budget(self, state: _Cell) -> None:
        budget = state.cell.cell_budget_s
        if state.left() and budget is not None and state.spent_s >= budget:
            self._end(state, "budget")

    def _end(self, state: _Cell, reason: str) -> None:
        if state.left():
            state.ended = reason
            self._ended[reason] += 1
            self._time_left.drop([state.build_kind, state.call_kind])


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def nominal_call_s(block: Block) -> float:
    """Return what a forward and backward pass takes, up to a factor of the method's own.

    The growth with the size was fitted to the reference run, over methods and sizes.
    """
    conic = 5.0 if block.problem_class == "socp" else 1.0
    return conic * (1e-3 + 3e-9 * float(block.dimension**2.5))


def _shuffled(cells: list[_Cell], block: Block, seed: int) -> list[_Cell]:
    """Return a fresh order for every instance, the same whenever and wherever it is run."""
    entropy = (zlib.crc32(block.key.encode()), seed)
    order = np.random.default_rng(np.random.SeedSequence(entropy)).permutation(len(cells))
    return [cells[index] for index in order]
