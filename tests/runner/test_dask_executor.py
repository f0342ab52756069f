"""The same plan on a Dask cluster: every measurement once, and a lost worker costs one call."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ADAPTERS

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.dask_executor import DaskExecutor
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.plan import Plan, Request, make_plan

distributed = pytest.importorskip("distributed")
FOLDERS = ((ADAPTERS,), ())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        yield made


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(*FOLDERS)


@pytest.fixture(scope="module")
def plan(registry: Registry) -> Plan:
    methods = ("steady", "steady[seconds=0.1]")
    return make_plan([Request(methods, ("qp", "lp"), ("10x5",), 6, call_limit_s=60.0)], registry)


def measured(plan: Plan, registry: Registry, path: Path, executor: DaskExecutor | None) -> Any:
    with open_run(path, plan, registry, resume=path.exists()) as directory:
        return execute(plan, directory, FOLDERS, executor=executor)


def keys(path: Path) -> list[str]:
    return sorted(m.key for m in load_measurements(path))


@pytest.mark.slow
def test_every_measurement_is_there_once_also_when_a_worker_is_killed(
    cluster: Any, plan: Plan, registry: Registry, tmp_path: Path
) -> None:
    dask = DaskExecutor(cluster.scheduler_address)
    summary = measured(plan, registry, tmp_path / "whole", dask)
    assert not summary.problems
    local = measured(plan, registry, tmp_path / "local", None)
    assert keys(tmp_path / "whole") == keys(tmp_path / "local")
    assert summary.statuses == local.statuses
    assert list((tmp_path / "whole" / "logs").glob("*steady.log"))

    # Kill one of two workers in the middle; what it has sent is not measured again.
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        pids = client.run(os.getpid)
    lines = tmp_path / "killed" / "measurements.jsonl"
    before: list[bytes] = []

    def kill() -> None:
        while not lines.exists() or lines.read_bytes().count(b"\n") < 12:
            time.sleep(0.05)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        before.extend(lines.read_bytes().splitlines())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = measured(plan, registry, tmp_path / "killed", dask)
    killer.join(timeout=60)
    assert len(before) >= 12
    assert not summary.problems
    assert keys(tmp_path / "killed") == keys(tmp_path / "local")
    assert lines.read_bytes().splitlines()[: len(before)] == before
    # Nothing is left to do.
    again = measured(plan, registry, tmp_path / "killed", dask)
    assert again.measurements == 0


@pytest.mark.slow
def test_workers_that_cannot_serve_are_named(
    plan: Plan, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(ResultsError, match="no Dask scheduler answers"):
        DaskExecutor("nonsense://nowhere")(plan, None, FOLDERS, None)  # type: ignore[arg-type]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
    ) as made:
        dask = DaskExecutor(made.scheduler_address)
        with pytest.raises(ResultsError, match="--nthreads 1"):
            measured(plan, registry, tmp_path / "run", dask)
