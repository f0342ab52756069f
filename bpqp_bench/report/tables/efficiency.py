"""Table 1: efficiency of the methods on QP, LP and SOCP (the paper's table 1)."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bpqp_bench.plan import Request
from bpqp_bench.profiles import PROFILES, Profile
from bpqp_bench.published import SOURCE, published_time
from bpqp_bench.report.cells import PROTOCOLS, Pass, Protocol
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._common import (
    active_text,
    method_cell,
    missing_cell,
    published_text,
    table_sizes,
    time_cell,
)
from bpqp_bench.report.text import interval, milliseconds, significant
from bpqp_bench.statistics import paired_ratio, summarize

__all__ = ["BASE", "FAMILIES", "LP_ONLY", "METHODS", "TABLE", "table_methods"]

FAMILIES = {"qp": "QP", "lp": "LP", "socp": "SOCP"}
METHODS = (
    *("exact", "exact-solve", "cvxpy", "qpth", "altdiff", "altdiff-paper"),
    *("jaxopt", "jaxopt-accurate", "bpqp", "bpqp-paper", "bpqp-direct", "bpqp-fast"),
)
LP_ONLY = ("cvxpy-lp0",)
BASE = "bpqp"

_SHOWN: tuple[Pass, ...] = ("backward", "total")
_CAPTION = (
    "Milliseconds per instance, mean ± standard deviation over instances. "
    "call: everything that a training step pays; solver: the solve phase alone, which is what the "
    "authors timed for BPQP. The second line is the published figure, from another machine: "
    f"{SOURCE}. “≥” marks a mean from which calls that hit the time limit are missing."
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for every method on QP, LP and SOCP, and for the paper's own LP under CVXPY."""

    def ask(methods: tuple[str, ...], families: tuple[str, ...]) -> Request:
        return Request(
            methods=methods,
            families=families,
            sizes=profile.sizes,
            instances=profile.instances,
            call_limit_s=profile.call_limit_s,
            build_limit_s=profile.build_limit_s,
            cell_budget_s=profile.cell_budget_s,
        )

    return (ask(METHODS, tuple(FAMILIES)), ask(LP_ONLY, ("lp",)))


def table_methods(inputs: Inputs, family: str) -> list[MethodName]:
    """Rows of a dataset's block: what the table asked for, then a user's own methods."""
    asked = list(METHODS)
    if family == "lp":
        asked[asked.index("cvxpy") + 1 : asked.index("cvxpy") + 1] = LP_ONLY
    elsewhere = {name.key for name in inputs.names.methods(LP_ONLY)} if family != "lp" else set()
    return [name for name in inputs.rows(asked, family) if name.key not in elsewhere]


def render(inputs: Inputs) -> Table:
    """Render the two protocols in the paper's layout, then every statistic of every cell."""
    tidy = _tidy(inputs)
    panels = [_times(inputs, protocol) for protocol in PROTOCOLS]
    panels += [_statistics(inputs, family, tidy) for family in FAMILIES]
    return Table("table1", "Table 1: Efficiency", _CAPTION, tuple(panels), tidy)


def _sizes(inputs: Inputs) -> list[str]:
    large = PROFILES[-1].large_sizes
    planned = inputs.profile.sizes if inputs.profile else ()
    return table_sizes(inputs, planned, large, *FAMILIES)


def _times(inputs: Inputs, protocol: Protocol) -> Panel:
    sizes = _sizes(inputs)
    columns = [Column("Method", numeric=False)]
    columns += [Column(size, which.capitalize()) for which in _SHOWN for size in sizes]
    rows: list[Row] = []
    for family, label in FAMILIES.items():
        for method in table_methods(inputs, family):
            row = [method_cell(inputs.cells, method, protocol)]
            for which in _SHOWN:
                for size in sizes:
                    below = published_text(published_time(method.name, family, which, size), "ms")
                    row.append(
                        time_cell(
                            inputs.cells,
                            family,
                            size,
                            method,
                            which=which,
                            protocol=protocol,
                            below=below,
                        )
                    )
            rows.append(Row(tuple(row), section=label))
    return Panel(f"table1-{protocol}", f"Protocol: {protocol} (ms)", tuple(columns), tuple(rows))


def _statistics(inputs: Inputs, family: str, tidy: pd.DataFrame) -> Panel:
    columns = [
        Column("Size", numeric=False),
        Column("Pass", numeric=False),
        Column("Method", numeric=False),
        Column("n"),
    ]
    for protocol in PROTOCOLS:
        columns += [
            Column("mean ± std", protocol),
            Column("median", protocol),
            Column("ratio to BPQP", protocol),
        ]
    columns += [Column("active"), Column("paper")]
    rows = [_statistics_row(inputs, record) for record in _records(tidy, family)]
    return Panel(
        f"table1-statistics-{family}",
        f"{FAMILIES[family]}: all statistics",
        tuple(columns),
        tuple(rows),
        caption=(
            "Times in ms. ratio to BPQP: median over instances of method/BPQP on the same "
            "instance, with its 95 % bootstrap interval; above 1 means that BPQP is faster. "
            "active: number of active constraints, median (range)."
        ),
        long=True,
    )


def _records(tidy: pd.DataFrame, family: str) -> list[dict[str, Any]]:
    if tidy.empty:
        return []
    return [
        {str(key): value for key, value in record.items()}
        for record in tidy[tidy["family"] == family].to_dict("records")
    ]


def _statistics_row(inputs: Inputs, record: dict[str, Any]) -> Row:
    family, size, which = record["family"], record["size"], record["pass"]
    method = MethodName(record["name"], record["method"], record["label"])
    n, _, m = size.partition("x")
    cells = [
        Cell(size, float(n) + float(m) * 1e-6),
        Cell(which),
        method_cell(inputs.cells, method, "solver"),
    ]
    outcome = inputs.cells.outcome(family, size, method.key)
    published = published_time(method.name, family, which, size)
    if outcome.state != "measured":
        cells += [Cell("0", 0.0, tone="muted"), missing_cell(outcome)] + [Cell("")] * 5
    else:
        cells.append(Cell(str(outcome.n), float(outcome.n)))
        for protocol in PROTOCOLS:
            cells.append(
                time_cell(inputs.cells, family, size, method, which=which, protocol=protocol)
            )
            median = record[f"{protocol}_median_s"]
            cells.append(Cell(significant(median * 1e3), median))
            compared = [record[f"{protocol}_ratio{part}"] for part in ("_to_bpqp", "_low", "_high")]
            cells.append(_ratio_cell(*compared))
    cells.append(Cell(active_text(inputs.cells, family, size)))
    text = "n/a" if published is None else milliseconds(published.mean, published.std)
    cells.append(Cell(text, published.mean if published else None))
    return Row(tuple(cells))


def _ratio_cell(median: float, low: float, high: float) -> Cell:
    if not math.isfinite(median):
        return Cell("n/a", tone="missing")
    return Cell(f"{significant(median)} {interval(low, high)}".strip(), median)


def _tidy(inputs: Inputs) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    for family, label in FAMILIES.items():
        for size in _sizes(inputs):
            active = inputs.cells.active(family, size)
            for which in _SHOWN:
                for method in table_methods(inputs, family):
                    outcome = inputs.cells.outcome(family, size, method.key)
                    published = published_time(method.name, family, which, size)
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


TABLE = TableModule("table1", "Table 1: Efficiency", 10, requests, render)
