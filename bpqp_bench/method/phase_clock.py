"""The one clock of the suite: phases of a pass, and the whole call around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from bpqp_bench.errors import BenchError

_T = TypeVar("_T")

PHASES = ("prepare", "setup", "solve", "extract")


@dataclass(frozen=True)
class PassTime:
    """Seconds of one pass.

    ``call`` is everything that a training step pays (the *call* protocol); ``solve`` alone is the
    *solver* protocol, what the authors of BPQP timed. ``other`` is time in no phase.
    """

    call: float
    prepare: float
    setup: float
    solve: float
    extract: float
    other: float


class PhaseClock:
    """Adds up time by phase: ``with clock("solve"): ...`` inside `measure`.

    Parameters
    ----------
    synchronize
        Called before every reading, so that work queued on a device is counted where it belongs.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self._synchronize = synchronize
        self._spent = dict.fromkeys(PHASES, 0)
        self._running: str | None = None

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the body under ``phase``; phases of one pass may repeat but not nest.

        Raises
        ------
        BenchError
            If the phase is unknown or another one is running.
        """
        if phase not in self._spent:
            raise BenchError(f"unknown phase {phase!r}; phases are {', '.join(PHASES)}")
        if self._running is not None:
            raise BenchError(f"phase {phase!r} begins inside phase {self._running!r}")
        self._running = phase
        start = self._now()
        try:
            yield
        finally:
            self._spent[phase] += self._now() - start
            self._running = None

    def measure(self, call: Callable[[], _T]) -> tuple[_T, PassTime]:
        """Run one pass and return its result with its times in seconds."""
        self._spent = dict.fromkeys(PHASES, 0)
        start = self._now()
        result = call()
        total = self._now() - start
        spent = {phase: ns * 1e-9 for phase, ns in self._spent.items()}
        other = max(total - sum(self._spent.values()), 0) * 1e-9
        return result, PassTime(call=total * 1e-9, other=other, **spent)

    def _now(self) -> int:
        if self._synchronize is not None:
            self._synchronize()
        return time.perf_counter_ns()
