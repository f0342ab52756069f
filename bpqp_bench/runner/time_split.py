"""What a run did, and where its wall time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Part = Literal["calls", "builds", "references", "start", "draw", "judge", "write", "other"]


@dataclass(frozen=True)
class TimeSplit:
    """Wall time of a run in seconds, by what it was spent on.

    Attributes
    ----------
    calls
        Measured passes, first and warm-up calls included, and passes that were ended at a limit.
    builds
        `Method.build`.
    references
        Reference solutions and gradients.
    start
        Waiting for worker processes to start and to import their libraries.
    draw
        Drawing the instances.
    judge
        Residuals, and comparison of the answers with the references.
    write
        Putting measurements on disk.
    other
        All the rest: messages, copies of instances for each worker, garbage collection.
    """

    calls: float = 0.0
    builds: float = 0.0
    references: float = 0.0
    start: float = 0.0
    draw: float = 0.0
    judge: float = 0.0
    write: float = 0.0
    other: float = 0.0

    @property
    def wall(self) -> float:
        """The whole."""
        return self.calls + self.builds + self.references + self.overhead

    @property
    def overhead(self) -> float:
        """All that is not a call, a build or a reference."""
        return self.start + self.draw + self.judge + self.write + self.other

    @property
    def overhead_share(self) -> float:
        """Overhead as a share of the whole."""
        return self.overhead / self.wall if self.wall > 0.0 else 0.0


class Stopwatch:
    """Divides the time since its creation among the parts; what no part claims is "other"."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent: Counter[Part] = Counter()
        self._inner = 0.0

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Count the body under a part, less what `move` takes out of it."""
        started, before = time.perf_counter(), self._inner
        try:
            yield
        finally:
            moved = self._inner - before
            self._spent[part] += max(time.perf_counter() - started - moved, 0.0)  # type: ignore[assignment]

    def move(self, part: Part, seconds: float) -> None:
        """Count seconds of the body that is running under another part; only within a body."""
        self._inner += seconds
        self._spent[part] += seconds  # type: ignore[assignment]

    def elapsed(self) -> float:
        """Seconds since the creation."""
        return time.perf_counter() - self._began

    def split(self) -> TimeSplit:
        """Return the division so far."""
        known: dict[str, float] = {part: float(value) for part, value in self._spent.items()}
        rest = self.elapsed() - sum(known.values())
        known["other"] = known.get("other", 0.0) + max(rest, 0.0)
        return TimeSplit(**known)


@dataclass(frozen=True)
class RunSummary:
    """What `execute` returns.

    Attributes
    ----------
    measurements
        Written in this session.
    before
        Found from earlier sessions.
    statuses
        How many of this session's counted calls ended with each status.
    ended
        Cells that ended before their last instance, by reason ("budget", "timeout", …).
    problems
        One line for everything that was asked for and could not be done: a block whose instances
        cannot be drawn. A method that fails is a result and not listed.
    split
        Where the time went.
    """

    measurements: int
    before: int
    statuses: Mapping[str, int]
    ended: Mapping[str, int]
    problems: tuple[str, ...]
    split: TimeSplit
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parts = (
            *("wall", "calls", "builds", "references", "overhead", "overhead_share"),
            *("start", "draw", "judge", "write", "other"),
        )
        return {
            "measurements": self.measurements,
            "before": self.before,
            "statuses": dict(self.statuses),
            "ended": dict(self.ended),
            "problems": list(self.problems),
            "notes": list(self.notes),
            "seconds": {name: round(getattr(self.split, name), 6) for name in parts},
        }

    def describe(self) -> str:
        """Print outcome and split of the wall time, a few lines."""
        s = self.split
        statuses = ", ".join(f"{count} {name}" for name, count in sorted(self.statuses.items()))
        ended = ", ".join(f"{count} at {name}" for name, count in sorted(self.ended.items()))
        earlier = f", {self.before} from earlier sessions" if self.before else ""
        counted = sum(self.statuses.values())
        lines = [
            f"{self.measurements} measurements: {counted} counted calls ({statuses or 'none'}), "
            f"{max(self.measurements - counted, 0)} first calls and warm-ups{earlier}"
        ]
        if ended:
            lines.append(f"cells that ended early: {ended}")
        lines += [
            f"wall time {s.wall:.1f} s = calls {s.calls:.1f} + builds {s.builds:.1f} "
            f"+ references {s.references:.1f} + overhead {s.overhead:.1f} "
            f"({s.overhead_share:.1%} of it)",
            f"overhead = start-up of workers {s.start:.1f} + drawing {s.draw:.1f} "
            f"+ judging {s.judge:.1f} + writing {s.write:.1f} + rest {s.other:.1f}",
        ]
        return "\n".join([*lines, *self.notes, *(f"not done: {text}" for text in self.problems)])
