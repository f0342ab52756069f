"""How long the rest of a run will take, from what was seen so far."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bpqp_bench.runner.expected import Key
from bpqp_bench.runner.plan import NO_WARMUP_S, Block, Cell

__all__ = ["Estimator", "Rest"]

# Before anything was seen, of a small problem.
_CALL_S, _BUILD_S, _REFERENCE_S, _ASIDE_S = 2e-3, 0.1, 5e-3, 3e-3
_COMPILED_S = 3.0
_KEPT = 50  # recent values of a cell that its median is taken of
# Of the machine that the prior was measured on to this one. Beyond it, something else is wrong.
_SLOWEST = 10.0
_ENOUGH = 3  # cells of a method class before it has a factor of its own
_TOO_SHORT_S = 1e-4  # such times are noise, and no matter


@dataclass(frozen=True)
class Rest:
    """What is left of one cell: whether it must be built, its calls, its budget spent."""

    block: Block
    cell: Cell
    prepared: bool
    calls: int
    spent_s: float


class _Seen:
    """Times by subject (a method, say) and dimension; guesses one that was not seen."""

    def __init__(self, default: float, kin: bool = True) -> None:
        self._default = default
        self._kin = kin  # whether one subject says anything of another, and size matters
        self._values: dict[Hashable, dict[int, list[float]]] = defaultdict(dict)
        # Guesses of the same moment ask for the same medians again and again.
        self._medians: dict[Hashable, dict[int, float]] = defaultdict(dict)

    def add(self, subject: Hashable, n: int, seconds: float) -> None:
        values = self._values[subject].setdefault(n, [])
        values.append(seconds)
        del values[:-_KEPT]
        self._medians[subject][n] = median(values)

    def guess(self, subjects: Iterable[Hashable], n: int) -> float:
        """Return the time of the first subject of which anything is known, carried over to n."""
        for subject in subjects:
            if self._medians.get(subject):
                return _carry(self._medians[subject], n)
        everything: dict[int, list[float]] = defaultdict(list)
        for times in self._medians.values():
            for size, seconds in times.items():
                everything[size].append(seconds)
        if not everything or not self._kin:
            return self._default * (_growth(n) if self._kin else 1.0)
        return _carry({size: median(times) for size, times in everything.items()}, n)


class _Factor:
    """How many times as long as in the prior things take here, from what was seen of them."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._ratios: dict[str, dict[Hashable, float]] = defaultdict(dict)
        self._known: dict[str, float] = {}

    def add(self, group: str, subject: Hashable, ratio: float) -> None:
        self._ratios[group][subject] = ratio
        self._known.clear()

    def of(self, group: str) -> float:
        if group not in self._known:
            votes = list(self._ratios.get(group, {}).values())
            if len(votes) < _ENOUGH:
                # The prior has a vote too, so that one odd cell at the beginning does not decide.
                votes = [1.0, *(v for group in self._ratios.values() for v in group.values())]
            self._known[group] = min(max(median(votes), self._least), _SLOWEST)
        return self._known[group]


class _Kind:
    """Times of one kind: of the very same cell, else the prior's, else carried over."""

    def __init__(
        self, kind: str, expected: Mapping[Key, float], seen: _Seen, least: float = 1 / _SLOWEST
    ) -> None:
        self._kind = kind
        self._expected = expected
        self._seen = seen
        self._own: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._medians: dict[tuple[str, str], float] = {}
        self.factor = _Factor(least)

    def add(self, block: Block, method: str, worker: str, seconds: float) -> None:
        self.carry(block, method, seconds)
        cell = (block.key, method)
        values = self._own[cell]
        values.append(seconds)
        del values[:-_KEPT]
        self._medians[cell] = median(values)
        expected = self._expected.get(Key(self._kind, method, block.family, block.size), 0.0)
        if min(expected, self._medians[cell]) > _TOO_SHORT_S:
            self.factor.add(worker, cell, self._medians[cell] / expected)

    def carry(self, block: Block, method: str, seconds: float) -> None:
        """Take note of a time that says something of other cells only."""
        for subject in ((method, block.family), method):
            self._seen.add(subject, block.dimension, seconds)

    def own(self, block: Block, method: str) -> float | None:
        return self._medians.get((block.key, method))

    def guess(self, block: Block, method: str, worker: str) -> float:
        own = self.own(block, method)
        if own is not None:
            return own
        expected = self._expected.get(Key(self._kind, method, block.family, block.size))
        if expected is not None:
            return expected * self.factor.of(worker)
        return self._seen.guess(((method, block.family), method), block.dimension)


class Estimator:
    """Collects times and adds up what remains.

    For every part of the rest it trusts, in this order: what this run has measured of the very
    same cell; the prior, times how much slower this machine has shown itself (the median over the
    cells seen so far, of the method's class once three of its cells were seen); times of other
    cells, carried over by size.

    Parameters
    ----------
    compiled
        Method classes that compile in `build`, which takes seconds at any size.
    expected
        The prior, `expected.load_expected`; none by default. It serves this estimate and nothing
        else: no limit, no budget, no order and no result depends on it.
    """

    def __init__(
        self, compiled: Container[str] = (), expected: Mapping[Key, float] | None = None
    ) -> None:
        prior = expected or {}
        self._expected = prior
        self._is_compiled = compiled
        self._calls = _Kind("call", prior, _Seen(_CALL_S))
        self._builds = _Kind("build", prior, _Seen(_BUILD_S, kin=False))
        self._compiled = _Kind("build", prior, _Seen(_COMPILED_S, kin=False))
        # Those in the cache take no time at all.
        self._references = _Kind("reference", prior, _Seen(_REFERENCE_S), least=0.0)
        self._asides = _Kind("aside", prior, _Seen(_ASIDE_S, kin=False))

    def call(
        self,
        block: Block,
        cell: Cell,
        seconds: float,
        aside: float | None = None,
        ended: bool = False,
    ) -> None:
        """Take note of a call, and of what had to be done around it.

        Parameters
        ----------
        block, cell
            Whose.
        seconds
            Both passes.
        aside
            Messages, judging and writing; of counted calls, for others are not judged.
        ended
            It did not come back, so that the time is only the least it takes.
        """
        if aside is not None:
            self._asides.add(block, cell.method, cell.worker, aside)
        if ended:
            self._calls.carry(block, cell.method, seconds)
        else:
            self._calls.add(block, cell.method, cell.worker, seconds)

    def build(self, block: Block, cell: Cell, seconds: float) -> None:
        """Take note of a build."""
        self._builds_of(cell).add(block, cell.method, cell.worker, seconds)

    def reference(self, block: Block, seconds: float) -> None:
        """Take note of a reference and of drawing its instance."""
        self._references.add(block, "", "", seconds)

    def remaining(self, rest: Iterable[Rest]) -> float:
        """Return the seconds that the rest of the run will take, given all cells with any left."""
        total = 0.0
        instances: dict[str, tuple[Block, int]] = {}
        for item in rest:
            seconds, count = self._cell(item)
            total += seconds
            known = instances.get(item.block.key, (item.block, 0))[1]
            instances[item.block.key] = (item.block, max(known, count))
        for block, count in instances.values():
            total += count * self._references.guess(block, "", "")
        return total

    def pace(self) -> float:
        """Return how many times as long as in the prior calls take here, the median over cells."""
        return self._calls.factor.of("")

    def _builds_of(self, cell: Cell) -> _Kind:
        return self._compiled if cell.worker in self._is_compiled else self._builds

    def _cell(self, item: Rest) -> tuple[float, int]:
        """Return the seconds of the rest of a cell, and how many instances it will see."""
        block, cell = item.block, item.cell
        cost = 0.0
        if not item.prepared:
            if Key("unsupported", cell.method, block.family, block.size) in self._expected:
                return _ASIDE_S, 0
            build = self._builds_of(cell).guess(block, cell.method, cell.worker)
            if build >= cell.build_limit_s:
                return cell.build_limit_s, 0
            cost += build
        call = self._call(block, cell)
        if call > 2 * cell.call_limit_s:  # the limit is on one of two passes
            return cost + cell.call_limit_s, int(item.prepared)  # will be ended at its next call
        counted = item.calls
        if cell.cell_budget_s is not None and call > 0.0:
            left = max(cell.cell_budget_s - item.spent_s, 0.0)
            counted = min(counted, math.ceil(left / call))
        if not item.prepared:
            before = 1 + (cell.warmups if call <= NO_WARMUP_S else 0)
            cost += before * (call + _ASIDE_S)
        aside = self._asides.guess(block, cell.method, cell.worker)
        # It has a floor: messages, the disk.
        return cost + counted * (call + max(aside, _ASIDE_S)), counted

    def _call(self, block: Block, cell: Cell) -> float:
        """Return the time of a call, infinite if none is expected to come back."""
        ended = self._expected.get(Key("timeout", cell.method, block.family, block.size))
        if ended is None or self._calls.own(block, cell.method) is not None:
            return self._calls.guess(block, cell.method, cell.worker)
        least = ended * self._calls.factor.of(cell.worker)
        if cell.call_limit_s <= 2 * least:
            return math.inf
        # With so much more time than it had, it may come back: somewhere in between.
        return math.sqrt(least * cell.call_limit_s)


def _growth(dimension: int) -> float:
    # A call has a fixed part, which is all of it in small problems, and one of dense linear
    # algebra. Measured with OSQP: 1 ms at 50x10, 0.1 s at 500x100.
    return 1.0 + float((dimension / 100.0) ** 2.5)


def _carry(times: dict[int, float], n: int) -> float:
    """Carry times over to another dimension; upwards no slower than two of them show."""
    if n in times:
        return times[n]
    nearest = min(times, key=lambda size: abs(math.log(size / n)))
    model = times[nearest] * _growth(n) / _growth(nearest)
    below = [size for size in times if size < nearest]
    if n < nearest or not below or times[nearest] <= 0.0 or times[max(below)] <= 0.0:
        return model
    slope = math.log(times[nearest] / times[max(below)]) / math.log(nearest / max(below))
    return max(model, times[nearest] * math.pow(n / nearest, min(max(slope, 0.0), 3.0)))
