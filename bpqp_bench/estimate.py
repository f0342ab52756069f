"""How long the rest of a run will take, from what was seen so far."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass
from statistics import median

from bpqp_bench.plan import Block, Cell

__all__ = ["Estimator", "Rest"]

# Before anything was seen, of a small problem.
_CALL_S, _BUILD_S, _REFERENCE_S, _ASIDE_S = 2e-3, 0.1, 5e-3, 3e-3
_COMPILED_S = 3.0
_KEPT = 50  # recent values of a cell that its median is taken of


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


class Estimator:
    """Collects times and adds up what remains.

    Parameters
    ----------
    compiled
        Method classes that compile in `build`, which takes seconds at any size.
    """

    def __init__(self, compiled: Container[str] = ()) -> None:
        self._is_compiled = compiled
        self._calls = _Seen(_CALL_S)
        self._builds = _Seen(_BUILD_S, kin=False)
        self._compiled = _Seen(_COMPILED_S, kin=False)
        self._references = _Seen(_REFERENCE_S)
        self._asides = _Seen(_ASIDE_S, kin=False)

    def call(self, block: Block, cell: Cell, seconds: float, aside: float | None = None) -> None:
        """Take note of a call, and of what had to be done around it."""
        if aside is not None:
            self._asides.add("aside", block.dimension, aside)
        for subject in ((cell.method, block.family), cell.method):
            self._calls.add(subject, block.dimension, seconds)

    def build(self, block: Block, cell: Cell, seconds: float) -> None:
        """Take note of a build."""
        for subject in ((cell.method, block.family), cell.method):
            self._builds_of(cell).add(subject, block.dimension, seconds)

    def reference(self, block: Block, seconds: float) -> None:
        """Take note of a reference and of drawing its instance."""
        self._references.add(block.family, block.dimension, seconds)

    def remaining(self, rest: Iterable[Rest]) -> float:
        """Return the seconds that the rest of the run will take, given all cells with any left."""
        total = 0.0
        instances: dict[str, tuple[Block, int]] = {}
        for item in rest:
            seconds, count = self._cell(item)
            aside = self._asides.guess(("aside",), item.block.dimension)
            total += seconds + count * max(aside, _ASIDE_S)  # it has a floor: messages, the disk
            known = instances.get(item.block.key, (item.block, 0))[1]
            instances[item.block.key] = (item.block, max(known, count))
        for block, count in instances.values():
            total += count * self._references.guess((block.family,), block.dimension)
        return total

    def _builds_of(self, cell: Cell) -> _Seen:
        return self._compiled if cell.worker in self._is_compiled else self._builds

    def _cell(self, item: Rest) -> tuple[float, int]:
        block, cell = item.block, item.cell
        subjects = ((cell.method, block.family), cell.method)
        seconds = 0.0
        if not item.prepared:
            build = self._builds_of(cell).guess(subjects, block.dimension)
            seconds += min(build, cell.build_limit_s)
        call = self._calls.guess(subjects, block.dimension)
        if call > 2 * cell.call_limit_s:
            return seconds + cell.call_limit_s, 1  # will be ended at its first call
        calls = item.calls
        if cell.cell_budget_s is not None and call > 0.0:
            left = max(cell.cell_budget_s - item.spent_s, 0.0)
            calls = min(calls, math.ceil(left / call))
        if not item.prepared:
            calls += 1 + cell.warmups
        return seconds + calls * call, calls


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
