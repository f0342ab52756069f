"""Is the head slower or less accurate than the base? A check that noise does not trip.

Both checkouts run at the same time, each in a worker of the runner over its own package, instance
by instance in random order, and only one of them computes at a time. This checkout draws the
instances for both. Five things keep noise out of the verdict on time:

- of the calls on one instance the shortest counts, since interference only ever adds time;
- the ratio head/base is taken instance by instance, so that drift hits both sides alike;
- judged is the interval of the median ratio and not its mean: all of it must lie beyond the
  threshold;
- a cell whose interval holds the threshold is measured on, in further pairs of processes: one
  process can be a third slower as a whole, and of three pairs that is a third of all ratios;
- an alarm is measured again from the start, in fresh processes, and stands only if the second
  measurement raises it too. One process's memory layout alone can shift its times by some percent,
  and a bootstrap over instances does not see that.

Accuracy does not depend on the machine's load: that it got worse is always an alarm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bpqp_bench.errors import BenchError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Array, Size
from bpqp_bench.reference import ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import gradient_accuracy
from bpqp_bench.statistics import Ratio, paired_ratio
from bpqp_bench.tracking.checkouts import SideProcess

_Cell = tuple[str, str, str]
_SIDES = ("base", "head")
_PASSES = ("forward", "backward")
# An instance's error may wander when a solver takes another path to the same tolerance. Not so the
# median over instances: twice that is a change, and so is one instance ten times beyond the worst.
_MEDIAN_FACTOR = 2.0
_WORST_FACTOR = 10.0
# Below this a gradient is exact for any purpose, and its error is rounding.
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
    repeats
        Calls per instance on each side, the shortest of which counts.
    rounds
        Fresh pairs of processes.
    extensions
        Where the interval holds the threshold, so many times as many pairs again, at most.
    threshold
        Slowdown that is tolerated: 0.1 raises an alarm when the interval of the ratio head/base
        lies above 1.1.
    """

    methods: tuple[str, ...] = ("bpqp", "bpqp-direct", "exact-solve", "qpth")
    families: tuple[str, ...] = ("qp", "qp-active")
    sizes: tuple[str, ...] = ("50x10",)
    instances: int = 12
    repeats: int = 2
    rounds: int = 3
    extensions: int = 2
    threshold: float = 0.10


@dataclass(frozen=True)
class CellVerdict:
    """One cell's outcome; ``alarms`` is empty where nothing got worse.

    Attributes
    ----------
    forward, backward
        Paired ratio of the times head/base, call protocol; None where a side failed.
    base_error, head_error
        Worst relative L2 error of the gradient of q.
    remeasured
        Whether a first alarm about time was measured again; the ratios are then the second ones.
    """

    method: str
    family: str
    size: str
    forward: Ratio | None
    backward: Ratio | None
    base_error: float
    head_error: float
    alarms: tuple[str, ...] = field(default=())
    remeasured: bool = False


@dataclass
class _Samples:
    """What both sides answered, by cell (and pass) and side."""

    times: dict[tuple[_Cell, str, str], dict[str, float]] = field(default_factory=dict)
    gradients: dict[tuple[_Cell, str], dict[int, Array]] = field(default_factory=dict)
    solutions: dict[tuple[_Cell, str], dict[int, Array]] = field(default_factory=dict)
    failures: dict[tuple[_Cell, str], str] = field(default_factory=dict)

    def ratio(self, cell: _Cell, pass_: str) -> Ratio | None:
        head, base = (self.times.get((cell, pass_, side), {}) for side in ("head", "base"))
        return paired_ratio(head, base)


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
        One per cell that this checkout's registry supports.

    Raises
    ------
    BenchError
        If a side's process dies, or no cell can be compared.
    """
    registry = Registry()
    cells = [
        (method, family, size)
        for size in config.sizes
        for family in config.families
        for method in config.methods
        if not _unsupported(registry, method, family, size)
    ]
    if not cells:
        raise BenchError("nothing to compare: no method asked for supports a family asked for")
    rng = np.random.default_rng(seed)
    first = _measure(base, head, cells, config, rng)
    errors = _Errors(registry)
    verdicts = [_judge(cell, first, errors, config) for cell in cells]
    doubtful = [cell for cell in cells if _slow(first, cell, config)]
    if doubtful:
        second = _measure(base, head, doubtful, config, rng)
        again = {cell: _judge(cell, second, errors, config) for cell in doubtful}
        verdicts = [
            _confirmed(verdict, again[cell], _slow(first, cell, config))
            if cell in again
            else verdict
            for cell, verdict in zip(cells, verdicts, strict=True)
        ]
    return verdicts


def alarms(verdicts: Sequence[CellVerdict]) -> list[str]:
    """All alarms, one line each."""
    return [
        f"{verdict.method} on {verdict.family} {verdict.size}: {alarm}"
        for verdict in verdicts
        for alarm in verdict.alarms
    ]


def _unsupported(registry: Registry, method: str, family: str, size: str) -> bool:
    instance = registry.family(family).draw(Size.parse(size), 0)
    choice = registry.method(method)
    return bool(choice.missing() or choice.create().unsupported(instance))


def _measure(
    base: Path,
    head: Path,
    cells: Sequence[_Cell],
    config: RegressionConfig,
    rng: np.random.Generator,
) -> _Samples:
    samples = _Samples()
    undecided = list(cells)
    for extension in range(1 + config.extensions):
        if undecided:
            first = extension * config.rounds
            rounds = range(first, first + config.rounds)
            _measure_rounds(base, head, undecided, rounds, samples, config, rng)
        undecided = [cell for cell in undecided if _undecided(samples, cell, config)]
    return samples


def _undecided(samples: _Samples, cell: _Cell, config: RegressionConfig) -> bool:
    ratios = [samples.ratio(cell, pass_) for pass_ in _PASSES]
    return any(r is not None and r.low <= 1.0 + config.threshold < r.high for r in ratios)


def _measure_rounds(
    base: Path,
    head: Path,
    cells: Sequence[_Cell],
    rounds: range,
    samples: _Samples,
    config: RegressionConfig,
    rng: np.random.Generator,
) -> None:
    for round_ in rounds:
        with SideProcess(base) as base_side, SideProcess(head) as head_side:
            sides = {"base": base_side, "head": head_side}
            # An instance beyond the measured ones comes first: it builds and warms up.
            for seed in (config.instances, *range(config.instances)):
                for index in rng.permutation(len(cells)):
                    for _ in range(config.repeats):
                        for name in rng.permutation(_SIDES):
                            _call(sides, str(name), cells[index], seed, round_, samples, config)


def _call(
    sides: Mapping[str, SideProcess],
    name: str,
    cell: _Cell,
    seed: int,
    round_: int,
    samples: _Samples,
    config: RegressionConfig,
) -> None:
    if (cell, name) in samples.failures:
        return
    method, family, size = cell
    answer = sides[name].ask(method=method, family=family, size=size, seed=seed)
    if "error" in answer:
        samples.failures[cell, name] = answer["error"]
        return
    if seed == config.instances:
        return
    for pass_ in _PASSES:
        store = samples.times.setdefault((cell, pass_, name), {})
        key = f"{round_}:{seed}"
        store[key] = min(store.get(key, np.inf), answer[pass_])
    samples.gradients.setdefault((cell, name), {})[seed] = np.array(answer["gradient"])
    samples.solutions.setdefault((cell, name), {})[seed] = np.array(answer["solution"])


def _slow(samples: _Samples, cell: _Cell, config: RegressionConfig) -> set[str]:
    ratios = {pass_: samples.ratio(cell, pass_) for pass_ in _PASSES}
    return {
        pass_
        for pass_, ratio in ratios.items()
        if ratio is not None and ratio.low > 1.0 + config.threshold
    }


def _judge(
    cell: _Cell, samples: _Samples, errors: _Errors, config: RegressionConfig
) -> CellVerdict:
    found = [
        f"{name} fails: {samples.failures[cell, name]}"
        for name in _SIDES
        if (cell, name) in samples.failures
    ]
    if found:
        return CellVerdict(*cell, None, None, float("nan"), float("nan"), alarms=tuple(found))
    for pass_ in sorted(_slow(samples, cell, config)):
        ratio = samples.ratio(cell, pass_)
        assert ratio is not None
        found.append(
            f"{pass_} pass {ratio.median:.2f} times as long "
            f"(interval {ratio.low:.2f} to {ratio.high:.2f})"
        )
    gradient = {name: errors.of_gradients(cell, samples.gradients[cell, name]) for name in _SIDES}
    solution = {name: errors.of_solutions(cell, samples.solutions[cell, name]) for name in _SIDES}
    found += _worse("gradient", gradient) + _worse("solution", solution)
    return CellVerdict(
        *cell,
        forward=samples.ratio(cell, "forward"),
        backward=samples.ratio(cell, "backward"),
        base_error=max(gradient["base"], default=float("nan")),
        head_error=max(gradient["head"], default=float("nan")),
        alarms=tuple(found),
    )


def _confirmed(first: CellVerdict, second: CellVerdict, slow: set[str]) -> CellVerdict:
    """Keep of the second measurement's alarms about time those that the first one raised too."""
    kept = tuple(
        alarm
        for alarm in second.alarms
        if not alarm.startswith(tuple(_PASSES)) or alarm.startswith(tuple(slow))
    )
    return replace(second, alarms=kept, remeasured=True)


class _Errors:
    """Relative L2 errors against references, each of which is computed once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str, int], ReferenceSolution] = {}

    def of_gradients(self, cell: _Cell, gradients: Mapping[int, Array]) -> list[float]:
        pairs = ((g, self._reference(cell, seed)) for seed, g in sorted(gradients.items()))
        return [
            _finite(gradient_accuracy(gradient, reference.gradients["q"]).rel_l2)
            for gradient, reference in pairs
            if not reference.certificate.degenerate  # it has no gradient to compare with
        ]

    def of_solutions(self, cell: _Cell, solutions: Mapping[int, Array]) -> list[float]:
        pairs = ((z, self._reference(cell, seed)) for seed, z in sorted(solutions.items()))
        return [_finite(gradient_accuracy(z, reference.z).rel_l2) for z, reference in pairs]

    def _reference(self, cell: _Cell, seed: int) -> ReferenceSolution:
        _, family, size = cell
        key = (family, size, seed)
        if key not in self._known:
            instance = self._registry.family(family).draw(Size.parse(size), seed)
            self._known[key] = compute_reference(instance, instance.loss_gradient)
        return self._known[key]


def _finite(error: float) -> float:
    return error if np.isfinite(error) else float("inf")


def _worse(what: str, errors: Mapping[str, list[float]]) -> list[str]:
    if not errors["base"] or not errors["head"]:
        return []
    found = []
    for statistic, factor in ((np.median, _MEDIAN_FACTOR), (np.max, _WORST_FACTOR)):
        base, head = (float(statistic(errors[name])) for name in _SIDES)
        if head > max(factor * base, _ACCURACY_FLOOR):
            name = "median" if statistic is np.median else "worst"
            found.append(f"{name} relative error of the {what} {head:.1e}, was {base:.1e}")
    return found
