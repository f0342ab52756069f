"""Carry out a plan: `execute`, and the local executor behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.environment import code_hash, describe_environment
from bpqp_bench.results.measurement import SCHEMA
from bpqp_bench.results.run_directory import RunDirectory
from bpqp_bench.results.store import write_json
from bpqp_bench.runner.memory_limit import total_memory
from bpqp_bench.runner.plan import Plan
from bpqp_bench.runner.schedule import LocalRun, Options
from bpqp_bench.runner.time_left import TimeLeft
from bpqp_bench.runner.time_split import RunSummary
from bpqp_bench.runner.worker_client import Folders

_BUSY = 0.5  # load per core beyond which somebody else is computing


class Executor(Protocol):
    """Carries out a plan; a cluster engine can take the place of `LocalExecutor`.

    It appends every measurement of the plan that the directory lacks, and nothing twice.
    """

    def __call__(
        self, plan: Plan, run_directory: RunDirectory, registry_dirs: Folders, time_left: TimeLeft
    ) -> RunSummary:
        """Run what is missing and say what was done."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Worker processes on this machine, one of which computes at a time."""

    options: Options = field(default_factory=Options)

    def __call__(
        self, plan: Plan, run_directory: RunDirectory, registry_dirs: Folders, time_left: TimeLeft
    ) -> RunSummary:
        """Run what is missing and say what was done."""
        return LocalRun(plan, run_directory, registry_dirs, time_left, self.options).run()


def execute(
    plan: Plan,
    run_directory: RunDirectory,
    registry_dirs: Folders = ((), ()),
    time_left: TimeLeft | None = None,
    options: Options | None = None,
    executor: Executor | None = None,
) -> RunSummary:
    """Measure everything in a plan that the run directory does not hold yet.

    Parameters
    ----------
    plan
        What to measure.
    run_directory
        Open for writing (`open_run`). Every measurement is on disk before the next one begins, so
        that an interrupt or a kill loses at most the call that was running.
    registry_dirs
        The user's folders of methods and of families.
    time_left
        Keeps account of what is left and shows it; nowhere by default.
    options, executor
        Limits of this machine; another executor.

    Returns
    -------
    RunSummary
        Also written to summary.json. A method that fails is a result; what could not be done at
        all is in its ``problems``.
    """
    chosen = executor or LocalExecutor(options or Options())
    shown = time_left or TimeLeft()
    if run_directory.repaired:
        shown.note(run_directory.repaired)
    busy, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
    if busy > _BUSY * cores:
        shown.note(
            f"this machine is busy (load {busy:.1f} on {cores} cores); times will be too long"
        )
    try:
        summary = chosen(plan, run_directory, registry_dirs, shown)
    except KeyboardInterrupt:
        shown.note(
            f"{len(run_directory)} measurements are kept; "
            f"go on with --resume --out {run_directory.path}"
        )
        raise
    write_json(run_directory.path / "summary.json", summary.to_dict())
    return summary


def open_run(
    path: Path,
    plan: Plan,
    registry: Registry,
    *,
    resume: bool = False,
    options: Options | None = None,
    profile: str | None = None,
    suites: tuple[str, ...] = (),
) -> RunDirectory:
    """Make a run directory for a plan, or open it again.

    Parameters
    ----------
    path
        The directory.
    resume
        Go on with it; it must be there.
    profile
        Name of the profile that the plan was made for; kept in config.json, where reports look.
    suites
        The commands whose tables the plan is for, "reproduce" or "survey"; kept there too.

    Raises
    ------
    ResultsError
        As `RunDirectory.create` and `RunDirectory.resume`.
    """
    config = run_config(plan, registry, options or Options(), profile, suites)
    environment = describe_environment(
        required_libraries(plan, registry), {block.threads for block in plan.blocks}, total_memory()
    )
    if resume:
        return RunDirectory.resume(path, config, environment)
    return RunDirectory.create(path, config, environment)


def required_libraries(plan: Plan, registry: Registry) -> set[str]:
    """Return the import names of the libraries that the methods of a plan need."""
    methods = {cell.method for block in plan.blocks for cell in block.cells}
    return {name for method in methods for name in registry.method(method).cls.requires}


def run_config(
    plan: Plan,
    registry: Registry,
    options: Options,
    profile: str | None = None,
    suites: tuple[str, ...] = (),
) -> Mapping[str, Any]:
    """Return what must be the same for a run to be resumed, as plain JSON values."""
    return {
        "schema": SCHEMA,
        "code": code_hash(registry),
        "profile": profile,
        "suites": list(suites),
        "plan": plan.to_dict(),
        "memory_limit": options.memory_limit,
        "reference_limit_s": options.reference_limit_s,
    }
