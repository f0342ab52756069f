"""Scaling: fitted exponent of time over size per method, pass and protocol."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._common import method_cell
from bpqp_bench.report.tables.efficiency import FAMILIES, table_methods
from bpqp_bench.report.text import interval, significant
from bpqp_bench.results.cells import PROTOCOLS, Cells, Pass, Protocol
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.statistics import PowerFit, fit_power

__all__ = ["TABLE", "fit_cells"]

_PASSES: tuple[Pass, ...] = ("forward", "backward", "total")
_CAPTION = (
    "Exponent k of time ∝ nᵏ by least squares on the mean log time of each size, with its 95 % "
    "bootstrap interval over instances. The interval knows the scatter of the runs and not "
    "whether a power law holds; the second line gives the exponent between neighbouring sizes, "
    "which would be equal if one did. The number of constraints grows with n too, by the sizes' "
    "own ratio."
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for nothing: the fit uses what the other tables measure."""
    return ()


def fit_cells(
    cells: Cells, family: str, method: str, which: Pass, protocol: Protocol
) -> PowerFit | None:
    """Fit time over n for one method on all measured sizes of a family."""
    times: dict[float, list[float]] = {}
    for size in cells.sizes(family):
        found = cells.times(family, size, method, which, protocol)
        positive = found[found > 0]
        if len(positive):
            times.setdefault(float(size.partition("x")[0]), []).extend(positive.tolist())
    return fit_power(times)


def render(inputs: Inputs) -> Table:
    """Render one row per dataset and method."""
    columns = [Column("Method", numeric=False)]
    columns += [
        Column(which, f"Protocol: {protocol}") for protocol in PROTOCOLS for which in _PASSES
    ]
    families = dict(FAMILIES) | {
        family: f"{family} (fixed data)" for family in inputs.cells.families() if "fixed=" in family
    }
    rows: list[Row] = []
    records: list[dict[str, Any]] = []
    for family, label in families.items():
        for method in _methods(inputs, family):
            row = [method_cell(inputs.cells, method)]
            for protocol in PROTOCOLS:
                for which in _PASSES:
                    fit = fit_cells(inputs.cells, family, method.key, which, protocol)
                    row.append(_cell(fit))
                    records.append(
                        _record(label, family, method, which=which, protocol=protocol, fit=fit)
                    )
            rows.append(Row(tuple(row), section=label))
    panel = Panel("scaling-exponents", "Exponents", tuple(columns), tuple(rows))
    return Table(TABLE.key, TABLE.title, _CAPTION, (panel,), pd.DataFrame.from_records(records))


def _methods(inputs: Inputs, family: str) -> list[MethodName]:
    if family in FAMILIES:
        return table_methods(inputs, family)
    return [
        MethodName(key, key, inputs.cells.label(key) or key) for key in inputs.cells.methods(family)
    ]


def _cell(fit: PowerFit | None) -> Cell:
    if fit is None:
        return Cell("n/a", tone="missing", notes=("n/a: fewer than two sizes were measured",))
    text = f"{significant(fit.exponent)} {interval(fit.low, fit.high)}".strip()
    notes = (
        ()
        if fit.trusted
        else (
            "two sizes only: any two points lie on a line, so this is no evidence of a power law",
        )
    )
    local = ", ".join(significant(slope, 2) for slope in fit.local)
    return Cell(text, fit.exponent, below=local if fit.trusted else "", notes=notes)


def _record(
    label: str,
    family: str,
    method: MethodName,
    *,
    which: Pass,
    protocol: Protocol,
    fit: PowerFit | None,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "dataset": label,
        "family": family,
        "method": method.key,
        "label": method.label,
        "pass": which,
        "protocol": protocol,
    }
    if fit is not None:
        record |= {
            "exponent": fit.exponent,
            "low": fit.low,
            "high": fit.high,
            "local": " ".join(f"{slope:.4g}" for slope in fit.local),
            "sizes": fit.sizes,
            "points": fit.points,
            "trusted": fit.trusted,
        }
    return record


TABLE = TableModule("scaling", "Scaling of time with size", 60, requests, render)
