"""What the suite itself costs: overhead of the runner, time of a reference."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cells import FAMILIES, QUICK, registry
from bpqp_bench import Instance, Size
from bpqp_bench.reference import compute_reference
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.plan import Request, make_plan
from bpqp_bench.runner.schedule import Options

_INSTANCES = 10 if QUICK else 50


class Runner:
    """Wall time of a small run that is neither a call, nor a build, nor a reference.

    The smallest size, because there the overhead weighs most. The figures are the runner's own:
    the split that it prints at the end of every run.
    """

    timeout = 300

    def setup_cache(self) -> dict[str, float]:
        """Do one run, in a process of its own, and hand on where its time went."""
        request = Request(
            methods=("bpqp-direct", "exact-solve"),
            families=("qp-active",),
            sizes=("10x5",),
            instances=_INSTANCES,
            call_limit_s=30.0,
        )
        plan = make_plan([request], registry())
        with tempfile.TemporaryDirectory() as folder:
            options = Options(cache=Path(folder) / "references")
            with open_run(Path(folder) / "run", plan, registry(), options=options) as directory:
                summary = execute(plan, directory, options=options)
        if summary.problems or set(summary.statuses) != {"ok"}:
            raise RuntimeError(f"the run did not go well: {summary.describe()}")
        split = summary.split
        return {
            "per_measurement": (split.overhead - split.start) / summary.measurements,
            "start": split.start,
            "share": (split.overhead - split.start) / (split.wall - split.start),
        }

    setup_cache.timeout = 300  # type: ignore[attr-defined]

    def track_overhead_per_measurement(self, found: dict[str, float]) -> float:
        """Drawing, judging, writing and messages, per measured call."""
        return found["per_measurement"]

    track_overhead_per_measurement.unit = "seconds"  # type: ignore[attr-defined]

    def track_start_of_workers(self, found: dict[str, float]) -> float:
        """Starting the processes and importing their libraries."""
        return found["start"]

    track_start_of_workers.unit = "seconds"  # type: ignore[attr-defined]

    def track_overhead_share(self, found: dict[str, float]) -> float:
        """Overhead as a share of the wall time, start-up of the workers left out of both."""
        return found["share"]

    track_overhead_share.unit = "share of the wall time"  # type: ignore[attr-defined]


@functools.cache
def _instance(family: str, size: str) -> Instance:
    return registry().family(family).draw(Size.parse(size), 0)


class Reference:
    """Wall time of one reference solution with its gradient; no method is involved."""

    params = (FAMILIES, ["50x10", "100x20"] if QUICK else ["10x5", "50x10", "100x20", "500x100"])
    param_names = ("family", "size")
    timeout = 300
    number = 1
    repeat = (3, 10, 5.0)
    warmup_time = 0.0

    def setup(self, family: str, size: str) -> None:
        self.instance = _instance(family, size)
        self.upstream = np.ones(self.instance.n)

    def time_reference(self, family: str, size: str) -> None:
        compute_reference(self.instance, self.upstream)
