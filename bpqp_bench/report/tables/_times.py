"""Tables of times share one shape: the paper's layout per protocol, then every statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row
from bpqp_bench.report.published import Published
from bpqp_bench.report.tables._common import (
    SCALE,
    active_text,
    method_cell,
    missing_cell,
    size_cell,
    time_cell,
)
from bpqp_bench.report.text import as_published, interval, significant
from bpqp_bench.results.cells import PROTOCOLS, Pass, Protocol
from bpqp_bench.statistics import paired_ratio, summarize

__all__ = ["BASE", "TimesTable", "peak_memory", "statistics_panel", "tidy_times", "times_panel"]

BASE = "bpqp"


def _nothing(method: MethodName, family: str, which: str, size: str) -> None:
    return None


def _no_line(method: MethodName, family: str, which: str, size: str) -> str:
    return ""


@dataclass(frozen=True)
class TimesTable:
    """What such a table shows.

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
        ``published(method, family, pass, size)``: the figure to stand beside, or None.
    below
        The second line of a cell, by the same arguments.
    """

    key: str
    families: Mapping[str, str]
    methods: Mapping[str, list[MethodName]]
    sizes: list[str]
    passes: tuple[Pass, ...] = ("backward", "total")
    unit: str = "ms"
    published: Callable[[MethodName, str, str, str], Published | None] = _nothing
    below: Callable[[MethodName, str, str, str], str] = _no_line


def times_panel(inputs: Inputs, table: TimesTable, protocol: Protocol) -> Panel:
    """Return mean ± std in the paper's layout: methods down, passes and sizes across."""
    columns = [Column("Method", numeric=False)]
    columns += [Column(size, which.capitalize()) for which in table.passes for size in table.sizes]
    rows: list[Row] = []
    for family, label in table.families.items():
        for method in table.methods[family]:
            row = [method_cell(inputs.cells, method, protocol)]
            for which in table.passes:
                for size in table.sizes:
                    made = time_cell(
                        inputs.cells,
                        family,
                        size,
                        method,
                        which=which,
                        protocol=protocol,
                        unit=table.unit,
                        below=table.below(method, family, which, size),
                    )
                    row.append(made)
            rows.append(Row(tuple(row), section=label))
    return Panel(
        f"{table.key}-{protocol}",
        f"Protocol: {protocol} ({table.unit})",
        tuple(columns),
        tuple(rows),
    )


def statistics_panel(inputs: Inputs, table: TimesTable, family: str, tidy: pd.DataFrame) -> Panel:
    """Return every statistic of every cell of one family, in long form."""
    columns = [Column("Size", numeric=False), Column("Pass", numeric=False)]
    columns += [Column("Method", numeric=False), Column("n")]
    for protocol in PROTOCOLS:
        columns += [
            Column("mean ± std", protocol),
            Column("median", protocol),
            Column("ratio to BPQP", protocol),
        ]
    columns += [Column("active"), Column("paper")]
    records = tidy[tidy["family"] == family].to_dict("records") if len(tidy) else []
    return Panel(
        f"{table.key}-statistics-{family}",
        f"{table.families[family]}: all statistics",
        tuple(columns),
        tuple(
            _statistics_row(inputs, table, {str(k): v for k, v in record.items()})
            for record in records
        ),
        caption=(
            f"Times in {table.unit}. ratio to BPQP: median over instances of method/BPQP on the "
            "same instance, with its 95 % bootstrap interval; above 1 means that BPQP is faster. "
            "active: number of active constraints, median (range)."
        ),
        long=True,
    )


def tidy_times(inputs: Inputs, table: TimesTable) -> pd.DataFrame:
    """Return one record per family, size, pass and method with all statistics, in seconds."""
    records: list[dict[str, Any]] = []
    for family, label in table.families.items():
        for size in table.sizes:
            active = inputs.cells.active(family, size)
            for which in table.passes:
                for method in table.methods[family]:
                    outcome = inputs.cells.outcome(family, size, method.key)
                    published = table.published(method, family, which, size)
                    record: dict[str, Any] = {
                        "dataset": label,
                        "family": family,
                        "size": size,
                        "pass": which,
                        "name": method.name,
                        "method": method.key,
                        "label": method.label,
                        "outcome": outcome.state,
                        "n": outcome.n,
                        "timeouts": outcome.timeouts,
                        "failures": outcome.failures,
                        "not_converged": outcome.not_converged,
                        "limit_s": outcome.limit_s,
                        "phases_split": inputs.cells.split(method.key),
                        "active_median": active[0] if active else None,
                        "peak_memory": peak_memory(inputs, family, size, method),
                        "published_mean_s": published.mean if published else None,
                        "published_std_s": published.std if published else None,
                        "notes": "; ".join(outcome.notes),
                    }
                    for protocol in PROTOCOLS:
                        record |= _measured(
                            inputs, family, size, method, which=which, protocol=protocol
                        )
                    records.append(record)
    return pd.DataFrame.from_records(records)


def peak_memory(inputs: Inputs, family: str, size: str, method: MethodName) -> float | None:
    """Return the largest peak memory of a cell's calls in bytes, None where it is not known."""
    found = inputs.cells.values(family, size, method.key, "peak_memory")
    return None if found.empty else float(found.max())


def _measured(
    inputs: Inputs, family: str, size: str, method: MethodName, *, which: Pass, protocol: Protocol
) -> dict[str, float | None]:
    names = ("mean_s", "std_s", "median_s", "ratio_to_bpqp", "ratio_low", "ratio_high")
    times = inputs.cells.times(family, size, method.key, which, protocol)
    if times.empty:
        return {f"{protocol}_{name}": float("nan") for name in names}
    found = summarize(times)
    base = inputs.names.method(BASE)
    compared = paired_ratio(times, inputs.cells.times(family, size, base.key, which, protocol))
    values = (
        found.mean,
        found.std,
        found.median,
        *((compared.median, compared.low, compared.high) if compared else (float("nan"),) * 3),
    )
    return {f"{protocol}_{name}": value for name, value in zip(names, values, strict=True)}


def _statistics_row(inputs: Inputs, table: TimesTable, record: dict[str, Any]) -> Row:
    family, size, which = record["family"], record["size"], record["pass"]
    method = MethodName(record["name"], record["method"], record["label"])
    cells = [size_cell(size), Cell(which), method_cell(inputs.cells, method, "solver")]
    outcome = inputs.cells.outcome(family, size, method.key)
    if outcome.state != "measured":
        cells += [Cell("0", 0.0, tone="muted"), missing_cell(outcome)] + [Cell("")] * 5
    else:
        cells.append(Cell(str(outcome.n), float(outcome.n)))
        for protocol in PROTOCOLS:
            made = time_cell(
                inputs.cells, family, size, method, which=which, protocol=protocol, unit=table.unit
            )
            cells.append(made)
            median = record[f"{protocol}_median_s"] * SCALE[table.unit]
            cells.append(Cell(significant(median), median))
            compared = [record[f"{protocol}_ratio{end}"] for end in ("_to_bpqp", "_low", "_high")]
            cells.append(_ratio_cell(*compared))
    cells.append(Cell(active_text(inputs.cells, family, size)))
    published = table.published(method, family, which, size)
    if published is None:
        cells.append(Cell("n/a", tone="muted"))
    else:
        text = as_published(published.mean, published.std, SCALE[table.unit])
        cells.append(Cell(text, published.mean))
    return Row(tuple(cells))


def _ratio_cell(median: float, low: float, high: float) -> Cell:
    if not math.isfinite(median):
        return Cell("n/a", tone="missing")
    return Cell(f"{significant(median)} {interval(low, high)}".strip(), median)
