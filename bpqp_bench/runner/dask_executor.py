"""A plan carried out by the workers of a Dask cluster, each of which computes one block at a time.

A block, whose times are paired, is one task. It is measured as in a local run, in processes with
pinned threads, and each measurement is sent as soon as it is made. Where a worker is lost, Dask
gives its block to another one, which asks for what was measured and goes on from there. All workers
must be machines of the kind that the run directory names.
"""

from __future__ import annotations

import queue
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.compare import different_machines
from bpqp_bench.results.environment import code_hash, describe_environment
from bpqp_bench.results.measurement import MEASUREMENT, Measurement
from bpqp_bench.results.run_directory import RunDirectory, read_config
from bpqp_bench.results.store import read_json, write_file
from bpqp_bench.runner.memory_limit import free_memory, total_memory
from bpqp_bench.runner.plan import Block, Plan
from bpqp_bench.runner.schedule import LocalRun, Options, nominal_call_s
from bpqp_bench.runner.time_left import TimeLeft, Work
from bpqp_bench.runner.time_split import RunSummary, TimeSplit
from bpqp_bench.runner.worker_client import Folders

if TYPE_CHECKING:
    from distributed import Client

_LOG_KEPT = 2**20  # of each log of a worker machine, its end


@dataclass(frozen=True)
class DaskExecutor:
    """Carries out plans on a Dask cluster; see docs/running.md.

    Attributes
    ----------
    scheduler
        Address of its scheduler, "tcp://host:8786".
    options
        As of a local run; the memory limit is by default a worker's share of its machine.
    """

    scheduler: str
    options: Options = field(default_factory=Options)

    def __call__(
        self, plan: Plan, run_directory: RunDirectory, registry_dirs: Folders, time_left: TimeLeft
    ) -> RunSummary:
        """Run what is missing and say what was done.

        Raises
        ------
        ResultsError
            If the cluster cannot be reached, or its workers cannot serve this run.
        """
        with _connected(self.scheduler) as client:
            workers = _check_workers(client, run_directory.path, registry_dirs)
            return _Gathering(plan, run_directory, time_left, len(workers)).run(
                client, registry_dirs, self.options
            )


class _Gathering:
    """One execution: hands out the blocks and writes down what comes."""

    def __init__(
        self, plan: Plan, directory: RunDirectory, time_left: TimeLeft, workers: int
    ) -> None:
        self._plan, self._directory, self._time_left = plan, directory, time_left
        self._workers = workers
        self._before = len(directory)
        # Filled by the client's thread; None says that a block is over.
        self._came: queue.Queue[bytes | None] = queue.Queue()

    def run(self, client: Client, folders: Folders, options: Options) -> RunSummary:
        from distributed import CancelledError  # noqa: PLC0415

        known = self._directory.measurements
        futures = []
        for index, block in enumerate(self._plan.blocks):
            topic = f"bpqp-bench-{self._plan.sha256[:12]}-{id(self)}-{index}"
            client.subscribe_topic(topic, lambda event: self._came.put(event[1]))
            mine = [MEASUREMENT.encode(m) for m in known if m.family == block.family
                    and m.size == block.size]  # fmt: skip
            futures.append(
                client.submit(
                    _run_block, block, mine, topic, folders, replace(options, cache=None),
                    pure=False, retries=2, key=topic,
                )
            )  # fmt: skip
            calls = max(block.calls, 1)
            self._time_left.plan([Work(self._kind(block), calls, self._nominal(block))])
        for future in futures:
            future.add_done_callback(lambda _: self._came.put(None))
        self._time_left.show(f"{len(futures)} blocks on {self._workers} workers", force=True)
        running = len(futures)
        while running:
            line = self._came.get()
            if line is None:
                running -= 1
            else:
                self._keep(line)
        results: list[Mapping[str, Any]] = []
        problems: list[str] = []
        for block, future in zip(self._plan.blocks, futures, strict=True):
            try:
                result = future.result()
            except (Exception, CancelledError) as error:
                problems.append(f"{block.family} {block.size}: {type(error).__name__}: {error}")
                continue
            for line in result["lines"]:  # what was still under way when the task was over
                self._keep(line)
            self._write_files(result)
            results.append(result)
        return self._summary(results, problems)

    def _keep(self, line: bytes) -> None:
        measurement = MEASUREMENT.decode(line)
        if measurement.key in self._directory:
            return
        self._directory.append(measurement)
        what = f"{measurement.family} {measurement.size} seed {measurement.seed}"
        if measurement.role == "measured":
            passes = (measurement.forward, measurement.backward)
            seconds = sum(part.call for part in passes if part is not None)
            kind = ("dask", measurement.family, measurement.size)
            self._time_left.spent(kind, seconds / self._workers)
        self._time_left.show(f"{what}: {measurement.method}")

    def _kind(self, block: Block) -> tuple[str, str, str]:
        return ("dask", block.family, block.size)

    def _nominal(self, block: Block) -> float:
        return nominal_call_s(block) / self._workers

    def _write_files(self, result: Mapping[str, Any]) -> None:
        for name, content in result["files"].items():
            path = self._directory.path / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                write_file(path, content)

    def _summary(self, results: Sequence[Mapping[str, Any]], problems: list[str]) -> RunSummary:
        statuses: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        for result in results:
            statuses.update(result["summary"].statuses)
            ended.update(result["summary"].ended)
            seconds.update(vars(result["summary"].split))
            problems += result["summary"].problems
        machines = Counter(result["machine"] for result in results)
        where = ", ".join(f"{name} ({count} blocks)" for name, count in sorted(machines.items()))
        return RunSummary(
            measurements=len(self._directory) - self._before,
            before=self._before,
            statuses=dict(statuses),
            ended=dict(ended),
            problems=tuple(problems),
            split=TimeSplit(**seconds),
            notes=(
                f"measured on {where}; times are added over the workers",
                *(note for result in results for note in result["summary"].notes),
            ),
        )


class _Sending(RunDirectory):
    """A run directory on a worker machine, of which each new line is sent as well."""

    topic = ""

    def append(self, measurement: Measurement) -> None:
        from distributed import get_worker  # noqa: PLC0415

        super().append(measurement)
        if self.topic:
            get_worker().log_event(self.topic, MEASUREMENT.encode(measurement))


def _run_block(
    block: Block, known: Sequence[bytes], topic: str, folders: Folders, options: Options
) -> Mapping[str, Any]:
    """Run one block on a worker; a second attempt begins with what the first one has sent."""
    from distributed import get_client  # noqa: PLC0415

    sent = [event[1] for event in get_client().get_events(topic)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with _Sending.create(path, {}, {}) as directory:
            for line in (*known, *sent):
                measurement = MEASUREMENT.decode(line)
                if measurement.key not in directory:
                    directory.append(measurement)
            before = len(directory)
            directory.topic = topic
            limit = options.memory_limit or _share_of_memory()
            own = replace(options, memory_limit=limit)
            summary = LocalRun(Plan((block,)), directory, folders, TimeLeft(), own).run()
            lines = [MEASUREMENT.encode(m) for m in directory.measurements[before:]]
        files = {
            f"inputs/{file.name}": file.read_bytes() for file in (path / "inputs").glob("*.npz")
        }
        host = socket.gethostname()
        for file in (path / "logs").glob("*.log"):
            name = f"{block.family}-{block.size}-{host}-{file.name}".replace("/", "_")
            files[f"logs/{name}"] = file.read_bytes()[-_LOG_KEPT:]
    return {
        "lines": [*sent, *lines], "files": files, "machine": host,
        "summary": replace(summary, notes=tuple(f"{host}: {note}" for note in summary.notes)),
    }  # fmt: skip


def _share_of_memory() -> int:
    """Memory for the processes of one Dask worker, where several share a machine."""
    from distributed import get_client, get_worker  # noqa: PLC0415

    workers = get_client().scheduler_info(n_workers=-1)["workers"].values()
    host = get_worker().address.rpartition(":")[0]
    here = sum(host.endswith(worker["host"]) for worker in workers)
    return int(0.8 * free_memory() / max(here, 1))


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    try:
        from distributed import Client  # noqa: PLC0415
    except ImportError:
        raise ResultsError(
            "no Dask here: pip install 'bpqp_bench[dask]', on the worker machines too"
        ) from None
    try:
        client = Client(scheduler, timeout=30, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ResultsError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    try:
        yield client
    finally:
        client.close()


def _describe(folders: Folders) -> tuple[str, dict[str, Any]]:
    return code_hash(Registry(*folders)), describe_environment((), (1,), total_memory())


def _check_workers(client: Client, run: Path, folders: Folders) -> Mapping[str, Any]:
    """Return the workers' descriptions, all of which can serve this run.

    Raises
    ------
    ResultsError
        Else, naming the worker and what is different there.
    """
    threads = client.nthreads()
    if not threads:
        raise ResultsError("the Dask cluster has no workers; start some with dask worker")
    several = [address for address, count in threads.items() if count != 1]
    if several:
        raise ResultsError(
            f"{len(several)} Dask workers run several tasks at a time, which would disturb each "
            "other's times; start them with dask worker --nthreads 1, one for each group of cores"
        )
    found: Mapping[str, Any] = client.run(_describe, folders)
    own, code = read_json(run / "environment.json"), read_config(run).get("code")
    for address, (there, environment) in found.items():
        if there != code:
            raise ResultsError(f"Dask worker {address} has another version of the code")
        differences = [d for d in different_machines(own, environment) if "threads" not in d]
        if differences:
            raise ResultsError(
                f"Dask worker {address} is another machine than the run's ({differences[0]}); "
                "give one run machines of one kind"
            )
    return found
