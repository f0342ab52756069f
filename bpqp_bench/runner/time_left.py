"""How long measurements, tasks and report will still take, by their pace so far."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, inf, log

from bpqp_bench.runner.progress import Progress, Silent, State

Kind = tuple[str, ...]
_RECENT = 8  # steps that a pace is a mean of: what comes next is like what came last
_SHOW_EVERY_S = 0.2


@dataclass(frozen=True)
class Work:
    """Equal steps: how many, what each takes up to a factor, what all take at most.

    ``kind`` is the identity, from the general to the special: ("call", "bpqp", "qp 10x5"). Before
    a step of it was done, it is expected to go at the pace of its nearest relative.
    """

    kind: Kind
    steps: int = 1
    nominal_s: float = 1.0
    limit_s: float = inf


class TimeLeft:
    """Keeps track of what is left to do, and shows it on ``progress``; ``clock`` in seconds."""

    def __init__(
        self, progress: Progress | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress or Silent()
        self._clock = clock
        self._start = clock()
        self._shown = -inf
        self._work: dict[Kind, Work] = {}
        self._done: Counter[Kind] = Counter()
        self._spent: defaultdict[Kind, float] = defaultdict(float)
        self._pace: dict[Kind, tuple[float, int]] = {}  # logarithm of the mean factor, its steps
        self._running: tuple[Kind, float] | None = None

    def plan(self, works: Iterable[Work]) -> None:
        """Expect work."""
        self._work |= {work.kind: work for work in works}

    def drop(self, kinds: Iterable[Kind]) -> None:
        """Expect nothing more of some work."""
        self._done |= Counter(
            {kind: self._work[kind].steps for kind in kinds if kind in self._work}
        )

    def spent(self, kind: Kind, seconds: float, *, counts: bool = True) -> None:
        """Say what one step took; one that does not count, a warm-up, shows the pace alone."""
        if counts:
            self._spent[kind] += seconds
            self._done[kind] += 1
        factor = log(max(seconds, 1e-6) / self._work[kind].nominal_s)
        for prefix in (kind[:length] for length in range(1, len(kind) + 1)):
            mean, count = self._pace.get(prefix, (0.0, 0))
            self._pace[prefix] = (mean + (factor - mean) / (count + 1), min(count + 1, _RECENT - 1))

    @contextmanager
    def running(self, work: Work, what: str) -> Iterator[None]:
        """Time some work; nothing is left of it afterwards, also where it raised."""
        self.plan([work])
        self._running = (work.kind, self._clock())
        self.show(what, force=True)
        try:
            yield
            if work.steps == 1:
                self.spent(work.kind, self._clock() - self._running[1])
        finally:
            self._running = None
            self.drop([work.kind])

    def repeated(self, what: str, least_s: float = 0.0) -> None:
        """Say that a step of the running work is over, which took at least ``least_s``."""
        if self._running is not None:
            (kind, since), now = self._running, self._clock()
            if now - since < least_s:  # read from a file
                self._done[kind] += 1
            else:
                self.spent(kind, now - since)
            self._running = (kind, now)
        self.show(what)

    def left(self) -> float:
        """Seconds that everything planned will still take."""
        total = 0.0
        for kind, work in self._work.items():
            if (steps := work.steps - self._done[kind]) > 0:
                prefixes = (kind[:length] for length in range(len(kind), 0, -1))
                factor = exp(
                    next((self._pace[near][0] for near in prefixes if near in self._pace), 0.0)
                )
                seconds = steps * work.nominal_s * factor
                if self._running is not None and self._running[0] == kind:
                    seconds -= min(self._clock() - self._running[1], seconds / steps)
                total += max(min(seconds, work.limit_s - self._spent[kind]), 0.0)
        return total

    def show(self, what: str, *, force: bool = False) -> None:
        """Show what is going on, unless something was shown just before."""
        now = self._clock()
        if force or now - self._shown >= _SHOW_EVERY_S:
            self._shown = now
            steps = sum(work.steps for work in self._work.values())
            done = sum(min(self._done[kind], work.steps) for kind, work in self._work.items())
            self._progress.update(State(what, done, steps, now - self._start, self.left()))

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._progress.note(text)
