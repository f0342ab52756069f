"""Failed calls and how to make them again: ``bpqp-bench replay RUN KEY``.

A measurement says by itself what it was a call of: method, family, size, seed and the hash of the
instance. Instances of the built-in families are the same bits whenever they are drawn; those of a
user's family are kept as data beside the failure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bpqp_bench.errors import ResultsError, SpecError
from bpqp_bench.plugins.registry import Registry, builtin_directory
from bpqp_bench.plugins.specification import parse_spec
from bpqp_bench.problem.family import TEMPLATE_SEED
from bpqp_bench.problem.storage import load_instance, save_instance
from bpqp_bench.results.measurement import Measurement, Status
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.plan import Block, Cell
from bpqp_bench.runner.records import Outcome
from bpqp_bench.runner.shared_arrays import read_shared, write_shared
from bpqp_bench.runner.time_split import Stopwatch
from bpqp_bench.runner.worker_client import Folders, Limits, memory_default
from bpqp_bench.runner.worker_pool import SharedBatch, WorkerPool, group_of

_KEPT = (
    *(Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.CRASH),
    *(Status.ERROR, Status.NON_FINITE, Status.WRONG_SHAPE),
)
_FOLDER = "inputs"
_LOG_LINES = 30


def keep_inputs(
    run: Path, measurement: Measurement, sha256: str, shared: str, registry: Registry
) -> None:
    """Keep an instance of a failed call unless it can be drawn again.

    Parameters
    ----------
    run
        Run directory.
    measurement
        What came of the call.
    sha256, shared
        Hash of the instance, and where it lies (`bpqp_bench.runner.shared_arrays`).
    registry
        Knows where the family came from.
    """
    if measurement.status not in _KEPT:
        return
    name, _ = parse_spec(measurement.family)
    if Path(registry.families[name].path).parent == builtin_directory("problems"):
        return
    path = run / _FOLDER / f"{sha256}.npz"
    if not path.exists():
        try:
            path.parent.mkdir(exist_ok=True)
            save_instance(read_shared(shared), path)
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {error.strerror}") from None


def replay_call(
    run: Path, key: str, folders: Folders = ((), ()), time_limit_s: float | None = None
) -> str:
    """Make one call of a run again and tell what came of it then and now.

    Parameters
    ----------
    run
        Run directory, or a file of measurements.
    key
        Key of the measurement or its beginning.
    folders
        The user's folders of methods and of families.
    time_limit_s
        On a pass; None: the one that was in force.

    Raises
    ------
    ResultsError
        If there is no such measurement, or its instance can neither be drawn again nor was
        kept.
    SpecError
        If its method is not known.
    """
    then = _find(run, key)
    registry = Registry(*folders)
    choice = registry.method(then.method)
    if (missing := choice.missing()) is not None:
        raise SpecError(f"{then.method} cannot run here: {missing}")
    block, cell = _cell_of(then, choice.cls.name, time_limit_s)
    with tempfile.TemporaryDirectory() as folder:
        limit = Limits(cell.call_limit_s, cell.build_limit_s, 180.0, memory_default())
        pool = WorkerPool(
            folders, Path(folder), Path(folder) / "references", Stopwatch(), limit, 900.0
        )
        try:
            now = _call_again(pool, block, cell, then, run, limit)
        finally:
            pool.stop()
        log = "\n".join(
            line
            for path in sorted(Path(folder).glob("*.log"))
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        )
    lines = [
        f"{then.method} on {then.family} {then.size} seed {then.seed}, {then.role} call",
        f"instance {then.instance}",
        f"then: {_told(then.status, then.cause, then.solver_status)}",
        f"now:  {_told(now.status, now.cause, now.solver_status)}, {now.seconds:.6f} s",
    ]
    lines += [f"1 - cos of {name}: {a.one_minus_cos:.3e}" for name, a in now.accuracy.items()]
    tail = log.splitlines()[-_LOG_LINES:] if now.status in _KEPT else []
    return "\n".join([*lines, *tail])


def _find(run: Path, key: str) -> Measurement:
    found = [m for m in load_measurements(run) if key and m.key.startswith(key)]
    if not found:
        raise ResultsError(f"{run} holds no measurement whose key begins with {key!r}")
    if len(found) > 1:
        raise ResultsError(f"{len(found)} measurements of {run} have keys beginning with {key!r}")
    return found[0]


def _cell_of(then: Measurement, worker: str, time_limit_s: float | None) -> tuple[Block, Cell]:
    limit = time_limit_s or then.time_limit_s or 60.0
    cell = Cell(
        method=then.method,
        label=then.label,
        worker=worker,
        seeds=(then.seed,),
        call_limit_s=limit,
        build_limit_s=max(limit, 600.0),
        cell_budget_s=None,
        warmups=0,
    )
    block = Block(
        family=then.family,
        problem_class=then.problem_class,
        size=then.size,
        wrt=then.wrt,
        batch=then.batch,
        dtype=then.dtype,
        device=then.device,
        threads=then.threads,
        cells=(cell,),
        upstream=then.upstream,
    )
    return block, cell


def _call_again(
    pool: WorkerPool, block: Block, cell: Cell, then: Measurement, run: Path, limits: Limits
) -> Outcome:
    template = pool.draw(block, TEMPLATE_SEED)
    if not isinstance(template, SharedBatch):
        raise ResultsError(f"the template of {block.key} cannot be drawn: {template}")
    problem = _problem(pool, block, then, run)
    built = pool.build(block, cell, limits, "replay", template)
    if built.status != Status.OK or then.info.get("stage") == "build":
        return built
    group = group_of(block, cell)
    outcome = pool.call(group, limits, "replay", problem, block.wrt, judge=True)
    return outcome.held_to(cell.call_limit_s)


def _problem(pool: WorkerPool, block: Block, then: Measurement, run: Path) -> SharedBatch:
    kept = run / _FOLDER / f"{then.instance}.npz"
    if kept.is_file():
        instance = load_instance(kept)
        if instance.sha256 != then.instance:
            raise ResultsError(f"{kept} does not hold the instance that its name says")
        fd, path = write_shared(instance)
        drawn = SharedBatch.of(then.seed, [(then.instance, path, fd)])
        pool.show_judge(drawn)
        return drawn
    problem = pool.draw(block, then.seed)
    if not isinstance(problem, SharedBatch):
        raise ResultsError(f"the instance cannot be drawn: {problem}")
    if problem.sha256 != then.instance:
        raise ResultsError(
            f"{then.family} {then.size} seed {then.seed} is another instance now than when it was "
            "measured: the family or NumPy has changed; check out the commit in environment.json"
        )
    return problem


def _told(status: str, cause: str, solver_status: str) -> str:
    detail = cause or (f"solver status {solver_status}" if solver_status else "")
    return f"{status} ({detail})" if detail else status
