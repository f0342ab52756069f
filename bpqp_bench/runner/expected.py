"""What the parts of a run took in the reference run: a prior for the estimate of what remains.

The file is generated from a run by `bpqp-bench publish` and serves the estimate alone: no limit,
no budget and no result depends on it.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import load_measurements

__all__ = ["EXPECTED", "Key", "expected_csv", "expected_times", "load_expected"]

EXPECTED = "expected_times.csv"
_COLUMNS = ("kind", "method", "family", "size", "seconds")


class Key(NamedTuple):
    """What a time is of.

    Attributes
    ----------
    kind
        "call" (both passes), "build" (until it was ended, if it was), "aside" (all that is done
        around a call: messages, judging, writing), "reference" (drawing an instance and computing
        its reference); and for cells without a single call that came back, by their status:
        "timeout" (time until it was ended) and "unsupported".
    method, family, size
        As in `Measurement`; the method of a reference is empty.
    """

    kind: str
    method: str
    family: str
    size: str


def expected_times(measurements: Sequence[Measurement]) -> dict[Key, float]:
    """Return the median seconds of every part of a run.

    Parameters
    ----------
    measurements
        Of one run, in the order in which they were made.

    Notes
    -----
    References and asides are not stored. They are what lies between the time stamps of two
    consecutive measurements beside the call: an aside if both are of one instance, else drawing
    the new instance and its reference.
    """
    found: dict[Key, list[float]] = defaultdict(list)
    came_back = {
        (m.method, m.family, m.size)
        for m in measurements
        if m.role == "measured" and m.forward is not None
    }
    for m in measurements:
        cell = (m.method, m.family, m.size)
        if m.role == "first" and m.build_s is not None and m.status != "unsupported":
            found[Key("build", *cell)].append(m.build_s)
        if m.role == "measured" and cell in came_back:
            found[Key("call", *cell)].append(_seconds(m))
        at_build = m.status == "timeout" and m.info.get("stage") == "build"
        if cell not in came_back and m.status in ("timeout", "unsupported") and not at_build:
            found[Key(m.status, *cell)].append(_seconds(m))
    for before, m in pairwise(measurements):
        if m.role != "measured":
            continue
        rest = (_moment(m) - _moment(before)).total_seconds() - _seconds(m)
        key = (
            Key("aside", m.method, m.family, m.size)
            if (before.role, before.instance) == ("measured", m.instance)
            else Key("reference", "", m.family, m.size)
        )
        found[key].append(max(rest, 0.0))  # stamps are rounded to milliseconds
    return {key: median(values) for key, values in sorted(found.items())}


def expected_csv(run: Path) -> str:
    """Return the contents of the file for a run.

    Raises
    ------
    ResultsError
        If the run cannot be read.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for key, seconds in expected_times(load_measurements(run)).items():
        writer.writerow((*key, f"{seconds:.3g}"))
    return text.getvalue()


def load_expected() -> Mapping[Key, float]:
    """Read the file of the package."""
    source = resources.files("bpqp_bench.runner") / "data" / EXPECTED
    _, *rows = csv.reader(io.StringIO(source.read_text(encoding="utf-8")))
    return MappingProxyType({Key(*names): float(seconds) for *names, seconds in rows})


def _seconds(m: Measurement) -> float:
    parts = [part.call for part in (m.forward, m.backward) if part is not None]
    return sum(parts) if parts else float(m.info.get("seconds", 0.0))


def _moment(m: Measurement) -> datetime:
    return datetime.fromisoformat(m.at)
