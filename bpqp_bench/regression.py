"""Is the head slower or less accurate than the base? A check that noise does not trip.

Both checkouts run at the same time in processes of their own, instance by instance in random
order, and only one of them computes at a time. Judged is the interval of the paired ratio, not its
mean: an alarm needs the whole interval beyond the threshold. Processes are started afresh several
times, because a process's memory layout alone can shift its times by some percent. An accuracy
that got worse is always an alarm.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bpqp_bench.accuracy import gradient_accuracy
from bpqp_bench.errors import BenchError, ResultsError
from bpqp_bench.instance import Array, Size
from bpqp_bench.reference import compute_reference
from bpqp_bench.registry import Registry
from bpqp_bench.statistics import Ratio, paired_ratio
from bpqp_bench.workers import worker_environment

__all__ = ["CellVerdict", "RegressionConfig", "alarms", "check_regression", "checkout"]

_ACCURACY_FACTOR = 10.0
_ACCURACY_FLOOR = 1e-8


@dataclass(frozen=True)
class RegressionConfig:
    """What is compared and when it counts.

    Attributes
    ----------
    methods, families, sizes
        The cells.
    instances
        Pairs per cell and round.
    rounds
        Fresh pairs of processes.
    threshold
        Slowdown that is tolerated: 0.1 raises an alarm when the interval of the ratio head/base
        lies above 1.1.
    """

    methods: tuple[str, ...] = ("bpqp", "bpqp-direct", "exact-solve", "qpth")
    families: tuple[str, ...] = ("qp", "qp-active")
    sizes: tuple[str, ...] = ("50x10",)
    instances: int = 20
    rounds: int = 3
    threshold: float = 0.10


@dataclass(frozen=True)
class CellVerdict:
    """One cell's outcome; ``alarms`` is empty where nothing got worse."""

    method: str
    family: str
    size: str
    forward: Ratio | None
    backward: Ratio | None
    base_error: float
    head_error: float
    alarms: tuple[str, ...] = field(default=())


@contextlib.contextmanager
def checkout(revision: str, repository: Path) -> Iterator[Path]:
    """Give a folder that holds ``revision``: the folder itself, or a temporary git worktree.

    Raises
    ------
    ResultsError
        If it is neither a folder nor a revision of the repository.
    """
    if Path(revision).is_dir():
        yield Path(revision).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "checkout"
        git = ["git", "-C", str(repository), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", "--quiet", str(target), revision],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            raise ResultsError(
                f"{revision!r} is neither a folder nor a revision of {repository}: "
                f"{added.stderr.strip()}"
            )
        try:
            yield target
        finally:
            subprocess.run([*git, "remove", "--force", str(target)], check=True)


class _SideProcess:
    """A running side; a context manager."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("regression_side.py")
        environment = dict(os.environ) | worker_environment(threads=1)
        environment["PYTHONPATH"] = str(folder)
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def __enter__(self) -> _SideProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, **request: object) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"the process of {self._folder} died at {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def check_regression(
    base: Path, head: Path, config: RegressionConfig, seed: int = 0
) -> list[CellVerdict]:
    """Compare two checkouts cell by cell.

    Parameters
    ----------
    base, head
        Folders of two checkouts of this project; both run in the present environment.
    config
        Cells and threshold.
    seed
        Of the random order only.

    Returns
    -------
    list of CellVerdict
        One per cell that both sides support.

    Raises
    ------
    BenchError
        If a side dies or both fail.
    """
    registry = Registry()
    cells = [
        (method, family, size)
        for size in config.sizes
        for family in config.families
        for method in config.methods
        if not _unsupported(registry, method, family, size)
    ]
    times: dict[tuple[str, ...], dict[str, float]] = {}
    gradients: dict[tuple[str, ...], Array] = {}
    failures: dict[tuple[str, ...], str] = {}
    rng = np.random.default_rng(seed)
    for round_ in range(config.rounds):
        with _SideProcess(base) as base_side, _SideProcess(head) as head_side:
            sides = {"base": base_side, "head": head_side}
            for instance_seed in range(-1, config.instances):
                for index in rng.permutation(len(cells)):
                    cell = cells[index]
                    for name in rng.permutation(["base", "head"]):
                        if (*cell, name) in failures:
                            continue
                        method, family, size = cell
                        # The call with seed −1 is the warm-up; it builds.
                        measured = instance_seed >= 0
                        answer = sides[str(name)].ask(
                            method=method,
                            family=family,
                            size=size,
                            seed=instance_seed if measured else config.instances,
                        )
                        if "error" in answer:
                            failures[*cell, name] = answer["error"]
                        elif measured:
                            for pass_ in ("forward", "backward"):
                                store = times.setdefault((*cell, pass_, name), {})
                                store[f"{round_}:{instance_seed}"] = answer[pass_]
                            gradients[*cell, name, str(instance_seed)] = np.array(
                                answer["gradient"]
                            )
    return [_judge(cell, config, registry, times, gradients, failures) for cell in cells]


def _unsupported(registry: Registry, method: str, family: str, size: str) -> bool:
    instance = registry.family(family).draw(Size.parse(size), 0)
    choice = registry.method(method)
    return bool(choice.missing() or choice.create().unsupported(instance))


def _judge(
    cell: tuple[str, str, str],
    config: RegressionConfig,
    registry: Registry,
    times: dict[tuple[str, ...], dict[str, float]],
    gradients: dict[tuple[str, ...], Array],
    failures: dict[tuple[str, ...], str],
) -> CellVerdict:
    alarms = []
    for name in ("base", "head"):
        if (*cell, name) in failures:
            alarms.append(f"{name} fails: {failures[*cell, name]}")
    ratios: dict[str, Ratio | None] = {}
    for pass_ in ("forward", "backward"):
        ratio = paired_ratio(
            times.get((*cell, pass_, "head"), {}), times.get((*cell, pass_, "base"), {})
        )
        ratios[pass_] = ratio
        if ratio is not None and ratio.low > 1.0 + config.threshold:
            alarms.append(
                f"{pass_} pass {ratio.median:.2f} times as long "
                f"(interval {ratio.low:.2f} to {ratio.high:.2f})"
            )
    errors = {
        name: _worst_error(cell, name, config.instances, registry, gradients)
        for name in ("base", "head")
    }
    if errors["head"] > max(_ACCURACY_FACTOR * errors["base"], _ACCURACY_FLOOR):
        alarms.append(
            f"worst relative gradient error {errors['head']:.1e}, was {errors['base']:.1e}"
        )
    return CellVerdict(
        *cell,
        forward=ratios["forward"],
        backward=ratios["backward"],
        base_error=errors["base"],
        head_error=errors["head"],
        alarms=tuple(alarms),
    )


def _worst_error(
    cell: tuple[str, str, str],
    name: str,
    instances: int,
    registry: Registry,
    gradients: dict[tuple[str, ...], Array],
) -> float:
    _, family, size = cell
    worst = 0.0
    for seed in range(instances):
        gradient = gradients.get((*cell, name, str(seed)))
        if gradient is None:
            continue
        instance = registry.family(family).draw(Size.parse(size), seed)
        reference = compute_reference(instance, np.ones(instance.n))
        if reference.certificate.degenerate:
            continue
        if not np.isfinite(gradient).all():
            return float("inf")
        worst = max(worst, gradient_accuracy(gradient, reference.gradients["q"]).rel_l2)
    return worst


def alarms(verdicts: Sequence[CellVerdict]) -> list[str]:
    """All alarms, one line each."""
    return [
        f"{verdict.method} on {verdict.family} {verdict.size}: {alarm}"
        for verdict in verdicts
        for alarm in verdict.alarms
    ]
