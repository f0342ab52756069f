"""Table 5: DC3, which learns to solve one family of problems, against methods that solve each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._common import (
    base_name,
    method_cell,
    missing_cell,
    size_cell,
    table_sizes,
)
from bpqp_bench.report.tables._times import TimesTable, statistics_panel, tidy_times, times_panel
from bpqp_bench.report.tables.scaling import fit_cells
from bpqp_bench.report.text import interval, significant, tiny
from bpqp_bench.results.cells import PROTOCOLS
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

__all__ = ["FAMILIES", "OTHERS", "TABLE", "dc3_methods"]

FAMILIES = {"qp[fixed=true]": "QP, fixed data", "lp[fixed=true]": "LP, fixed data"}
OTHERS = ("exact-solve", "bpqp")
_CAPTION = (
    "DC3 learns a map from q to a solution for one P, A, b, G, h, so all instances of a size share "
    "these and only q varies. Milliseconds per instance, mean ± standard deviation. Its training "
    "is paid before the first instance and stands apart; its solutions need not be feasible or "
    "optimal, so the residuals belong to the times. The published figures of this table are not "
    "to be had."
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for DC3, trained as the profile says, and for two methods that solve each instance."""
    trained = f"dc3[epochs={profile.dc3_epochs},samples={profile.dc3_samples}]"
    return (
        Request(
            methods=(trained, *OTHERS),
            families=tuple(FAMILIES),
            sizes=profile.sizes,
            instances=profile.instances,
            call_limit_s=profile.call_limit_s,
            build_limit_s=profile.build_limit_s,
            cell_budget_s=profile.cell_budget_s,
        ),
    )


def dc3_methods(inputs: Inputs) -> list[MethodName]:
    """Rows of the table: DC3 as trained in this run, then the others."""
    families = [inputs.names.family(family) for family in FAMILIES]
    trained = [key for key in inputs.cells.methods(*families) if base_name(key) == "dc3"]
    if not trained and inputs.profile is not None:
        trained = list(requests(inputs.profile)[0].methods[:1])
    named = inputs.names.methods([*(trained or ["dc3"]), *OTHERS])
    return [
        MethodName(name.name, name.key, inputs.cells.label(name.key) or name.label)
        for name in named
        if name.key == named[0].key or inputs.expects(*families, methods=(name.key,))
    ]


def render(inputs: Inputs) -> Table:
    """Render times, then quality and training, then all statistics."""
    named = {inputs.names.family(family): label for family, label in FAMILIES.items()}
    families = {family: label for family, label in named.items() if inputs.expects(family)}
    planned = inputs.profile.sizes if inputs.profile else ()
    rows = dc3_methods(inputs)
    times = TimesTable(
        key="table5",
        families=families,
        methods=dict.fromkeys(families, rows),
        sizes=table_sizes(inputs, planned, PROFILES[-1].large_sizes, *families),
        passes=("forward", "backward", "total"),
    )
    tidy = tidy_times(inputs, times)
    quality = _quality(inputs, times)
    panels = [times_panel(inputs, times, protocol) for protocol in PROTOCOLS]
    panels += [quality, _slopes(inputs, times)]
    panels += [statistics_panel(inputs, times, family, tidy) for family in families]
    extra = pd.DataFrame.from_records(
        [
            _quality_record(inputs, family, size, method)
            for family in families
            for size in times.sizes
            for method in rows
        ]
    )
    if len(tidy) and len(extra):
        tidy = tidy.merge(extra, on=["family", "size", "method"], how="left")
    return Table(TABLE.key, TABLE.title, _CAPTION, tuple(panels), tidy)


_QUALITY = ("build_s", "primal_residual", "objective_gap", "solution_error", "one_minus_cos")


def _quality_record(inputs: Inputs, family: str, size: str, method: MethodName) -> dict[str, Any]:
    rows = inputs.cells.measured(family, size, method.key)
    record: dict[str, Any] = {"family": family, "size": size, "method": method.key}
    record["build_s_median"] = _training_s(rows).median()
    for name in _QUALITY[1:]:
        column = "accuracy.q.one_minus_cos" if name == "one_minus_cos" else name
        record[f"{name}_median"] = pd.to_numeric(rows[column]).median()
    return record


def _training_s(rows: pd.DataFrame) -> pd.Series:
    """Seconds of the training when it was done: a network from the cache took that time too."""
    built = pd.to_numeric(rows["build_s"])
    if "info" not in rows:
        return built
    said = rows["info"].map(lambda info: info.get("training", {}).get("seconds"), "ignore")
    return pd.to_numeric(said).fillna(built)


def _quality(inputs: Inputs, times: TimesTable) -> Panel:
    columns = [Column("Size", numeric=False), Column("Method", numeric=False)]
    columns += [Column("training (s)"), Column("violation"), Column("objective gap")]
    columns += [Column("solution error"), Column("1 − cos")]
    rows: list[Row] = []
    for family, label in times.families.items():
        for size in times.sizes:
            for method in times.methods[family]:
                outcome = inputs.cells.outcome(family, size, method.key)
                head = (size_cell(size), method_cell(inputs.cells, method))
                if outcome.state != "measured":
                    empty = (missing_cell(outcome), *([Cell("")] * 4))
                    rows.append(Row((*head, *empty), section=label))
                    continue
                record = _quality_record(inputs, family, size, method)
                build = record.pop("build_s_median")
                cells = [Cell("n/a" if pd.isna(build) else significant(build), build)]
                for name in _QUALITY[1:]:
                    value = record[f"{name}_median"]
                    shown = (
                        Cell("n/a", tone="muted") if pd.isna(value) else Cell(tiny(value), value)
                    )
                    cells.append(shown)
                rows.append(Row((*head, *cells), section=label))
    return Panel(
        "table5-quality",
        "Quality of the solutions, and what the training cost",
        tuple(columns),
        tuple(rows),
        caption=(
            "Medians over instances: largest violation of a constraint, objective gap relative to "
            "1 + |optimal value|, error of the solution relative to ‖z*‖, and distance of the "
            "gradient. training: seconds of the training, once per family and size, when it was "
            "done; for methods without one, of build."
        ),
    )


def _slopes(inputs: Inputs, times: TimesTable) -> Panel:
    columns = [Column("Method", numeric=False)]
    columns += [
        Column(which, f"Protocol: {protocol}") for protocol in PROTOCOLS for which in times.passes
    ]
    rows: list[Row] = []
    for family, label in times.families.items():
        for method in times.methods[family]:
            cells = [method_cell(inputs.cells, method)]
            for protocol in PROTOCOLS:
                for which in times.passes:
                    fit = fit_cells(inputs.cells, family, method.key, which, protocol)
                    if fit is None:
                        cells.append(Cell("n/a", tone="missing"))
                        continue
                    text = f"{significant(fit.exponent)} {interval(fit.low, fit.high)}".strip()
                    notes = () if fit.trusted else ("two sizes only: no evidence of any law",)
                    cells.append(Cell(text, fit.exponent, notes=notes))
            rows.append(Row(tuple(cells), section=label))
    return Panel(
        "table5-slopes",
        "Exponent of time over n",
        tuple(columns),
        tuple(rows),
        caption="Linear growth is an exponent of 1; see the scaling table for how it is fitted.",
    )


TABLE = TableModule("table5", "Table 5: DC3", 40, requests, render)
