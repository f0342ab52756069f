"""Tables of times share one shape: the paper's layout per protocol, then every statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel
from bpqp_bench.report.published import Published
from bpqp_bench.report.tables._common import (
    MARKS,
    SCALE,
    Entry,
    Place,
    active_text,
    grid,
    method_cell,
    places,
    right_cell,
    size_cell,
    time_cell,
    with_best,
)
from bpqp_bench.report.text import as_published, interval, plus_minus, significant
from bpqp_bench.results.cells import PROTOCOLS, Pass, Protocol
from bpqp_bench.statistics import paired_ratio, summarize

BASE = "bpqp"
_STATISTICS = ("mean_s", "std_s", "median_s", "ratio_to_bpqp", "ratio_low", "ratio_high")


@dataclass(frozen=True)
class Times:
    """A table of times.

    Attributes
    ----------
    key
        Prefix of the panels' keys.
    families
        Label of each family, which heads its section.
    methods
        Rows by family.
    sizes, passes, unit
        Columns, and "ms" or "s".
    published
        The figure to stand beside, or None.
    below
        The second line of a cell.
    """

    inputs: Inputs
    key: str
    families: Mapping[str, str]
    methods: Callable[[str], list[MethodName]]
    sizes: list[str]
    passes: tuple[Pass, ...] = ("backward", "total")
    unit: str = "ms"
    published: Callable[[Place], Published | None] = lambda place: None
    below: Callable[[Place], str] = lambda place: ""

    def panel(self, protocol: Protocol) -> Panel:
        """Return medians in the paper's layout: methods down, passes and sizes across.

        The fastest of each column is marked, among cells whose gradients are all right and that
        lost no call to the limit.
        """

        def entry(which: Pass, size: str) -> Entry:
            def cell(row: Place) -> Cell:
                place = Place(row.family, row.method, size, which)
                return self._time(place, protocol, self.below(place))

            return Column(size, which.capitalize()), cell

        names: Entry = (Column("Method", numeric=False), lambda place: self._name(place, protocol))
        made = grid(
            f"{self.key}-{protocol}",
            f"Protocol: {protocol} ({self.unit})",
            places(self.families, self.methods),
            [names, *(entry(which, size) for which in self.passes for size in self.sizes)],
        )
        return with_best(made) if protocol == "call" else made

    def statistics(self, family: str) -> Panel:
        """Return every statistic of every cell of one family, in long form."""
        entries: list[Entry] = [
            (Column("Size", numeric=False), lambda place: size_cell(place.size)),
            (Column("Pass", numeric=False), lambda place: Cell(place.which)),
            (Column("Method", numeric=False), lambda place: self._name(place, "solver")),
            (Column("n"), self._count),
            (Column("right"), self._right),
            *(entry for protocol in PROTOCOLS for entry in self._statistics(protocol)),
            (Column("active"), self._active),
            (Column("paper"), self._paper),
        ]
        label = self.families[family]
        return grid(
            f"{self.key}-statistics-{family}",
            f"{label}: all statistics",
            places({family: ""}, self.methods, self.sizes, self.passes),
            entries,
            caption=(
                f"Times in {self.unit}. right: gradients that are right, of those that can be "
                "judged. ratio to BPQP: median over instances of method/BPQP on the same instance, "
                "with its 95 % bootstrap interval from five instances on, where the gradients of "
                "both are right; above 1 means that BPQP is faster. active: number of active "
                "constraints, median (range)."
            ),
            long=True,
        )

    @cached_property
    def tidy(self) -> pd.DataFrame:
        """One record per family, size, pass and method with all statistics, in seconds."""
        rows = places(self.families, self.methods, self.sizes, self.passes)
        return pd.DataFrame.from_records([self._record(place) for place in rows])

    @cached_property
    def _measured(self) -> dict[tuple[Any, ...], dict[str, float]]:
        return {}

    def measured(self, place: Place, protocol: Protocol) -> dict[str, float]:
        """Return mean, deviation, median and paired ratio to BPQP with its interval, seconds."""
        key = (*place.key, place.which, protocol)
        if key not in self._measured:
            self._measured[key] = self._measure(place, protocol)
        return self._measured[key]

    def _measure(self, place: Place, protocol: Protocol) -> dict[str, float]:
        cells, (family, size) = self.inputs.cells, (place.family, place.size)
        times = cells.times(family, size, place.method.key, place.which, protocol)
        if times.empty:
            return dict.fromkeys(_STATISTICS, math.nan)
        found = summarize(times)
        base = self.inputs.names.method(BASE).key
        ratio = paired_ratio(times, cells.times(family, size, base, place.which, protocol))
        compared = (ratio.median, ratio.low, ratio.high) if ratio else (math.nan,) * 3
        values = (found.mean, found.std, found.median, *compared)
        return dict(zip(_STATISTICS, values, strict=True))

    def _record(self, place: Place) -> dict[str, Any]:
        cells = self.inputs.cells
        outcome, published = cells.outcome(*place.key), self.published(place)
        gradient = cells.gradient(*place.key)
        active = cells.active(place.family, place.size)
        record: dict[str, Any] = {
            "dataset": place.section,
            "family": place.family,
            "size": place.size,
            "pass": place.which,
            "name": place.method.name,
            "method": place.method.key,
            "label": place.method.label,
            "outcome": outcome.state,
            "n": outcome.n,
            "timeouts": outcome.timeouts,
            "failures": outcome.failures,
            "not_converged": outcome.not_converged,
            "limit_s": outcome.limit_s,
            "gradient": gradient.mark,
            "gradients_right": gradient.right,
            "gradients_judged": gradient.judged,
            "phases_split": cells.split(place.method.key),
            "active_median": active[0] if active else None,
            "peak_memory": peak_memory(self.inputs, place),
            "published_mean_s": published.mean if published else None,
            "published_std_s": published.std if published else None,
            "notes": "; ".join(outcome.notes),
        }
        for protocol in PROTOCOLS:
            found = self.measured(place, protocol)
            record |= {f"{protocol}_{name}": value for name, value in found.items()}
        return record

    def _time(self, place: Place, protocol: Protocol, below: str = "") -> Cell:
        return time_cell(self.inputs.cells, place, protocol, unit=self.unit, below=below)

    def _name(self, place: Place, protocol: Protocol) -> Cell:
        return method_cell(self.inputs.cells, place.method, protocol)

    def _answered(self, place: Place) -> bool:
        return self.inputs.cells.outcome(*place.key).state == "measured"

    def _count(self, place: Place) -> Cell:
        n = self.inputs.cells.outcome(*place.key).n
        return Cell(str(n), float(n), tone="" if self._answered(place) else "muted")

    def _right(self, place: Place) -> Cell:
        found = self.inputs.cells.gradient(*place.key)
        if not self._answered(place):
            return Cell("", tone="muted")
        return right_cell(found, f"n/a{MARKS[found.mark]}")

    def _comparable(self, place: Place) -> bool:
        base = self.inputs.names.method(BASE).key
        return all(
            self.inputs.cells.right(place.family, place.size, key)
            for key in (place.method.key, base)
        )

    def _statistics(self, protocol: Protocol) -> list[Entry]:
        def mean(place: Place, _: Protocol) -> Cell:
            found = self.measured(place, protocol)
            text = plus_minus(found["mean_s"], found["std_s"], SCALE[self.unit])
            return Cell(text, found["mean_s"] * SCALE[self.unit])

        def median(place: Place) -> Cell:
            # What stands for a missing figure is said once in a row.
            return self._time(place, protocol) if protocol == "call" else blank(place, self._time)

        def blank(place: Place, make: Callable[[Place, Protocol], Cell]) -> Cell:
            return make(place, protocol) if self._answered(place) else Cell("")

        def ratio(place: Place, _: Protocol) -> Cell:
            found = self.measured(place, protocol)
            if not (math.isfinite(found["ratio_to_bpqp"]) and self._comparable(place)):
                return Cell("n/a", tone="missing")
            text = interval(found["ratio_low"], found["ratio_high"])
            value = found["ratio_to_bpqp"]
            return Cell(f"{significant(value)} {text}".strip(), value)

        return [
            (Column("median (middle half)", protocol), median),
            (Column("mean ± std", protocol), lambda place: blank(place, mean)),
            (Column("ratio to BPQP", protocol), lambda place: blank(place, ratio)),
        ]

    def _active(self, place: Place) -> Cell:
        return Cell(active_text(self.inputs.cells, place.family, place.size))

    def _paper(self, place: Place) -> Cell:
        published = self.published(place)
        if published is None:
            return Cell("n/a", tone="muted")
        text = as_published(published.mean, published.std, SCALE[self.unit])
        return Cell(text, published.mean)


def peak_memory(inputs: Inputs, place: Place) -> float | None:
    """Return the largest peak memory of a cell's calls in bytes, None where it is not known."""
    found = inputs.cells.numbers(*place.key, "peak_memory")
    return float(found.max()) if found.size else None
