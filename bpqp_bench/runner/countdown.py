"""How long the whole of a `reproduce` will take: measurements, then the parts that follow them.

The measurements have an estimate of their own (`estimate`). The parts that follow, the portfolio
experiment's and the report, are few and known beforehand; each is expected to take what it took in
the reference run, and what it takes here as soon as one like it is over.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType
from typing import Any, NamedTuple

from bpqp_bench.errors import ResultsError
from bpqp_bench.runner.progress import Progress, State
from bpqp_bench.runner.time_split import describe_quality, keep_eta

__all__ = [
    "COUNTDOWN",
    "EXPECTED_PARTS",
    "Countdown",
    "Followed",
    "Part",
    "PartKey",
    "Shown",
    "expected_parts_csv",
    "load_expected_parts",
]

COUNTDOWN = "countdown.json"  # of a run directory
EXPECTED_PARTS = "expected_parts.csv"  # of the package
_UNKNOWN_S = 1.0
_TOO_SHORT_S = 0.05  # below it, a ratio to the prior is noise


class PartKey(NamedTuple):
    """What parts have in common that are expected to take the same time.

    Attributes
    ----------
    kind
        "data" (drawing and preparing a market), "network" (DC3's), "build", "epoch", "test" (one
        training), "judge", "gradient", "speed", "report".
    data, method
        Market and name of the method, empty where there is none.
    assets, units
        Planned number of assets, and of what the time is proportional to: days, samples; 0 where
        the plan does not say.
    """

    kind: str
    data: str = ""
    method: str = ""
    assets: int = 0
    units: int = 0


@dataclass(frozen=True)
class Part:
    """One thing to do.

    Attributes
    ----------
    key
        What it is.
    seed
        Which of several with this key.
    repeats
        It consists of at most so many equal steps: epochs.
    """

    key: PartKey
    seed: int = 0
    repeats: int = 1


@dataclass(frozen=True)
class Shown:
    """What there is to show.

    Attributes
    ----------
    what
        What is going on.
    done, total
        Epochs; what ended early counts as done.
    elapsed_s, left_s
        Since the beginning, and expected until the end.
    """

    what: str
    done: int
    total: int
    elapsed_s: float
    left_s: float


@dataclass
class _Spent:
    # Of all parts with one key.
    seconds: list[float] = field(default_factory=list)  # of every repeat
    repeats: list[int] = field(default_factory=list)  # of every part that is over


class Countdown:
    """Keeps account of the parts that follow the measurements.

    Parameters
    ----------
    expected
        The prior; see `load_expected_parts`. It serves the estimate alone.
    show
        Called whenever something begins or a step is over.
    clock
        Seconds.
    """

    def __init__(
        self,
        expected: Mapping[PartKey, float] | None = None,
        show: Callable[[Shown], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = expected or {}
        self._show = show
        self._clock = clock
        self._start = clock()
        self._left: dict[Part, int] = {}  # repeats
        self._begun: tuple[Part, float] | None = None
        self._spent: dict[PartKey, _Spent] = defaultdict(_Spent)
        self._planned: dict[Part, None] = {}
        self._pace = 1.0
        self._following: float | None = None  # at this pace, while the measurements run
        self._eta: list[tuple[float, float]] = []

    def plan(self, parts: Iterable[Part]) -> None:
        """Expect parts; what was planned before is not planned twice."""
        for part in parts:
            if part not in self._planned:
                self._planned[part] = None
                self._left[part] = part.repeats
        self._following = None

    def drop(self, parts: Iterable[Part]) -> None:
        """Expect nothing more of some parts."""
        for part in parts:
            self._left.pop(part, None)

    @contextmanager
    def running(self, part: Part, what: str) -> Iterator[None]:
        """Time a part; when it is over, in whatever way, nothing is left of it."""
        self._begun = (part, self._clock())
        self.show(what)
        try:
            yield
            if part.repeats == 1:
                self._spent[part.key].seconds.append(self._clock() - self._begun[1])
            else:
                self._spent[part.key].repeats.append(part.repeats - self._left.get(part, 0))
        finally:
            self._left.pop(part, None)
            self._begun = None

    def repeated(self, what: str, seconds: float | None = None) -> None:
        """Say that one step of the running part is over.

        Parameters
        ----------
        what
            To show.
        seconds
            That it took at least; if less time has passed, it was read and not run, and says
            nothing of what others will take.
        """
        if self._begun is None:
            return
        (part, since), now = self._begun, self._clock()
        if seconds is None or now - since >= seconds:
            self._spent[part.key].seconds.append(now - since)
        self._left[part] = max(self._left.get(part, 1) - 1, 0)
        self._begun = (part, now)
        self.show(what)

    def show(self, what: str) -> None:
        """Show what is going on, and put the estimate on record."""
        left = self.left()
        keep_eta(self._eta, self.elapsed(), left)
        if self._show is not None:
            epochs = [part for part in self._planned if part.key.kind == "epoch"]
            total = sum(part.repeats for part in epochs)
            done = total - sum(self._left.get(part, 0) for part in epochs)
            self._show(Shown(what, done, total, self.elapsed(), left))

    def follow(self, state: State) -> State:
        """Add what follows to the state of the measurements."""
        if state.eta_s is None:
            return replace(state, elapsed_s=self.elapsed())
        # Between any two calls: what follows is added up again only when the pace has changed.
        if self._following is None or state.pace != self._pace:
            self._pace = state.pace
            self._following = self.left()
        left = state.eta_s + self._following
        keep_eta(self._eta, self.elapsed(), left)
        return replace(state, eta_s=left, elapsed_s=self.elapsed())

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    def left(self) -> float:
        """Seconds that all planned parts will still take."""
        factor = self._factor()
        lengths = self._lengths()
        total = 0.0
        for part, repeats in self._left.items():
            done = part.repeats - repeats
            length = min(lengths.get(part.key.data, part.repeats), part.repeats)
            each = self._guess(part.key, factor)
            total += each * (max(length - done, 1.0) if repeats else 0.0)
            if self._begun is not None and self._begun[0] == part and repeats:
                total -= min(self._clock() - self._begun[1], each)
        return total

    def describe(self) -> str | None:
        """Say how good the estimate was, or None where it was too short a run to say."""
        return describe_quality(self._eta, self.elapsed(), "everything")

    def to_dict(self) -> dict[str, Any]:
        """Return length, estimates as shown, and the mean seconds of every part's step."""
        return {
            "wall": round(self.elapsed(), 3),
            "eta": [list(pair) for pair in self._eta],
            "parts": [
                {**key._asdict(), "seconds": round(fmean(spent.seconds), 6)}
                for key, spent in self._spent.items()
                if spent.seconds
            ],
        }

    def _factor(self) -> float:
        # How many times as long as in the prior things take here. The measurements have a vote.
        ratios = [
            fmean(spent.seconds) / self._expected[key]
            for key, spent in self._spent.items()
            if spent.seconds and min(self._expected.get(key, 0.0), *spent.seconds) > _TOO_SHORT_S
        ]
        return median([self._pace, *ratios])

    def _lengths(self) -> dict[str, float]:
        # How many epochs trainings took, by market: most end before their last.
        found: dict[str, list[int]] = defaultdict(list)
        for key, spent in self._spent.items():
            if spent.repeats:
                found[key.data] += spent.repeats
        return {data: fmean(repeats) for data, repeats in found.items()}

    def _guess(self, key: PartKey, factor: float) -> float:
        """Seconds of one step: as others with this key here, else as in the prior, else of kin."""
        own = self._spent.get(key)
        if own is not None and own.seconds:
            return fmean(own.seconds)
        if key in self._expected:
            return self._expected[key] * factor
        scaled = {
            other: seconds * _scale(other, key)
            for other, seconds in self._expected.items()
            if other.kind == key.kind
        }
        for alike in (
            lambda other: (other.data, other.method) == (key.data, key.method),
            lambda other: other.method == key.method,
            lambda other: True,
        ):
            if kin := [seconds for other, seconds in scaled.items() if alike(other)]:
                return median(kin) * factor
        here = [
            fmean(spent.seconds) * _scale(other, key)
            for other, spent in self._spent.items()
            if spent.seconds and other.kind == key.kind
        ]
        return median(here) if here else _UNKNOWN_S


class Followed:
    """Shows a run's progress with the time that everything will take, not the run alone.

    Parameters
    ----------
    inner
        Where it is shown.
    countdown
        What follows the run.
    """

    def __init__(self, inner: Progress, countdown: Countdown) -> None:
        self._inner = inner
        self._countdown = countdown

    def update(self, state: State) -> None:
        """Show a state."""
        self._inner.update(self._countdown.follow(state))

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._inner.note(text)

    def __enter__(self) -> Followed:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)


def expected_parts_csv(run: Path) -> str | None:
    """Return the contents of the prior for a run, or None if it is none of `reproduce`.

    Raises
    ------
    ResultsError
        If its record cannot be read.
    """
    path = run / COUNTDOWN
    if not path.is_file():
        return None
    try:
        parts: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["parts"]
        rows = sorted((PartKey(*(p[k] for k in PartKey._fields)), p["seconds"]) for p in parts)
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} is not the record of a countdown: {error!r}") from None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*PartKey._fields, "seconds"))
    for key, seconds in rows:
        writer.writerow((*key, f"{seconds:.3g}"))
    return text.getvalue()


def load_expected_parts() -> Mapping[PartKey, float]:
    """Read the prior of the package."""
    source = resources.files("bpqp_bench.runner") / "data" / EXPECTED_PARTS
    _, *rows = csv.reader(io.StringIO(source.read_text(encoding="utf-8")))
    return MappingProxyType(
        {
            PartKey(kind, data, method, int(assets), int(units)): float(seconds)
            for kind, data, method, assets, units, seconds in rows
        }
    )


def _scale(source: PartKey, target: PartKey) -> float:
    """Ratio of the times of two sizes, for want of anything better."""
    days = target.units / source.units if source.units and target.units else 1.0
    assets = target.assets / source.assets if source.assets and target.assets else 1.0
    # Per day a predictor's pass is linear in the assets, a layer's quadratic to cubic.
    return days * (assets if assets < 1.0 else assets**2)
