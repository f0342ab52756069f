"""Table 3: accuracy of the backward pass, and of the forward pass under it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.published import published_accuracy
from bpqp_bench.report.tables._common import (
    SETTINGS,
    is_short,
    method_cell,
    missing_cell,
    size_cell,
    table_sizes,
)
from bpqp_bench.report.tables.dc3 import FAMILIES as LEARNED
from bpqp_bench.report.tables.dc3 import dc3_methods
from bpqp_bench.report.tables.efficiency import FAMILIES, LP_ONLY, METHODS, table_methods
from bpqp_bench.report.text import tiny
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

__all__ = ["TABLE", "accuracy_families", "regular"]

_FURTHER = {"socp-robust": "SOCP (robust)"}
_SHARES = (0.1, 0.5, 0.9)
_MOST_INSTANCES = 20
# Gradients of these families are of norm 1e-3 and more; zero ones were seen at 1e-36.
_ZERO_GRADIENT = 1e-20
# Variants whose gradients are those of another one up to rounding, or its time alone, are left out.
_METHODS = (
    *("exact", "exact-solve", "cvxpy", "qpth", "altdiff", "altdiff-paper"),
    *("jaxopt", "jaxopt-accurate", "bpqp", "bpqp-paper", "bpqp-direct", "bpqp-fast"),
)
_FEW_METHODS = ("exact", "cvxpy", "qpth", "altdiff", "bpqp", "bpqp-fast")
_CAPTION = (
    "1 − cos: one minus the cosine similarity of ∂L/∂q to the reference gradient, so that 1e−12 is "
    "told from 1e−6; the number of instances behind each figure is in the panel of all measures. "
    "DC3 has a place only where all instances share their data (fixed data). Instances whose "
    "gradient is zero, does not exist, or whose strict-complementarity margin is too small to say "
    "(degenerate) are left out here, and counted and reported apart in the panel of all measures. "
    "The published figures are L2 errors, mean ± std, over sizes that the paper does not state. "
    f"{SETTINGS}"
)
_FORWARD = {
    "primal_residual": "primal",
    "dual_residual": "dual",
    "complementarity": "compl.",
    "objective_gap": "gap",
}


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for further families, and for as many instances of table 1's as accuracy is judged by.

    DC3 needs families with fixed data, which table 5 asks for.
    """
    small = is_short(profile)
    shares = _SHARES[1:2] if small else _SHARES

    def ask(methods: tuple[str, ...], families: tuple[str, ...]) -> Request:
        return Request(
            methods=methods,
            families=families,
            sizes=profile.sizes,
            instances=min(profile.instances, _MOST_INSTANCES),
            call_limit_s=profile.call_limit_s,
            build_limit_s=profile.build_limit_s,
            cell_budget_s=profile.accuracy_budget_s,
        )

    further = (*_FURTHER, *(f"qp-active[active_share={share:g}]" for share in shares))
    return (
        ask(_FEW_METHODS if small else _METHODS, further),
        ask(METHODS, tuple(FAMILIES)),
        ask(LP_ONLY, ("lp",)),
    )


def accuracy_families(inputs: Inputs) -> dict[str, str]:
    """Label of every family of the table by key: planned ones, then any other measured one."""
    found = dict(FAMILIES) | _FURTHER
    small = inputs.profile is not None and is_short(inputs.profile)
    for share in _SHARES:
        key = inputs.names.family(f"qp-active[active_share={share:g}]")
        planned = inputs.profile is not None and (not small or share == _SHARES[1])
        if planned or key in inputs.cells.families():
            found[key] = f"QP, {share:.0%} of inequalities active"
    found |= {inputs.names.family(family): label for family, label in LEARNED.items()}
    found = {key: label for key, label in found.items() if inputs.expects(key)}
    for family in inputs.cells.families():
        found.setdefault(family, family)
    return found


def regular(inputs: Inputs, family: str, size: str, method: str) -> tuple[pd.DataFrame, int]:
    """Return the answers of a cell on instances whose gradient has a direction; how many others.

    Only answers with an accuracy count. At a vertex the gradient is zero, of which the reference
    holds a rounding error that points nowhere; such an instance is set apart like one whose
    gradient does not exist.
    """
    rows = inputs.cells.measured(family, size, method)
    rows = rows[rows["accuracy.q.one_minus_cos"].notna()]
    apart = rows["reference.degenerate"].fillna(False).astype(bool)
    apart |= pd.to_numeric(rows["accuracy.q.norm"]) < _ZERO_GRADIENT
    return rows[~apart], int(apart.sum())


def render(inputs: Inputs) -> Table:
    """Render 1 − cos by size, then all measures of both passes."""
    families = accuracy_families(inputs)
    large = PROFILES[-1].large_sizes
    sizes = table_sizes(inputs, inputs.profile.sizes if inputs.profile else (), large, *families)
    methods = {family: _methods(inputs, family) for family in families}
    tidy = _tidy(inputs, families, methods, sizes)
    columns = [
        Column("Method", numeric=False),
        *(Column(size, "1 − cos: median (worst)") for size in sizes),
        Column("here", "L2 error, all sizes"),
        Column("paper", "L2 error, all sizes"),
    ]
    rows = [
        Row(
            (
                method_cell(inputs.cells, method),
                *(_cosine_cell(inputs, family, size, method) for size in sizes),
                *_l2_cells(inputs, family, method, sizes),
            ),
            section=label,
        )
        for family, label in families.items()
        for method in methods[family]
    ]
    panels = (
        Panel("table3-cosine", "Distance to the reference gradient", tuple(columns), tuple(rows)),
        _everything(inputs, families, methods, sizes),
    )
    return Table(TABLE.key, TABLE.title, _CAPTION, panels, tidy)


def _methods(inputs: Inputs, family: str) -> list[MethodName]:
    if family in FAMILIES:
        return table_methods(inputs, family)
    if family in {inputs.names.family(learned) for learned in LEARNED}:
        return dc3_methods(inputs)
    lp_only = {name.key for name in inputs.names.methods(LP_ONLY)}
    small = inputs.profile is not None and is_short(inputs.profile)
    asked = _FEW_METHODS if small else _METHODS
    # What table 1 runs elsewhere and was measured here too has a row all the same.
    more = [
        name for name in METHODS if inputs.names.method(name).key in inputs.cells.methods(family)
    ]
    return [name for name in inputs.rows([*asked, *more], family) if name.key not in lp_only]


def _cosine_cell(inputs: Inputs, family: str, size: str, method: MethodName) -> Cell:
    outcome = inputs.cells.outcome(family, size, method.key)
    if outcome.state != "measured":
        return missing_cell(outcome)
    rows, degenerate = regular(inputs, family, size, method.key)
    values = rows["accuracy.q.one_minus_cos"]
    if values.empty:
        notes = (f"{method.label}: all {degenerate} instances are degenerate",)
        return Cell("n/a", tone="missing", notes=notes if degenerate else outcome.notes)
    return Cell(
        f"{tiny(values.median())} ({tiny(values.max())})",
        float(values.median()),
        notes=outcome.notes,
        runs=tuple(float(value) for value in values),
        unit="1 − cos",
    )


def _l2_cells(
    inputs: Inputs, family: str, method: MethodName, sizes: list[str]
) -> tuple[Cell, Cell]:
    found = [regular(inputs, family, size, method.key)[0]["accuracy.q.l2"] for size in sizes]
    values = pd.concat(found) if found else pd.Series(dtype=float)
    published = published_accuracy(method.name, family)
    paper = Cell("n/a", tone="muted")
    if published is not None:
        spread = "" if published.std is None else f" ± {tiny(published.std)}"
        paper = Cell(f"{tiny(published.mean)}{spread}", published.mean)
    if values.empty:
        return Cell("n/a", tone="missing"), paper
    spread = f" ± {tiny(values.std())}" if len(values) > 1 else ""
    here = Cell(
        f"{tiny(values.mean())}{spread}",
        float(values.mean()),
        runs=tuple(float(value) for value in values),
        unit="L2 error",
    )
    return here, paper


def _everything(
    inputs: Inputs,
    families: dict[str, str],
    methods: dict[str, list[MethodName]],
    sizes: list[str],
) -> Panel:
    columns = [Column("Size", numeric=False), Column("Method", numeric=False), Column("n")]
    columns += [Column(label, "1 − cos") for label in ("median", "worst")]
    columns += [Column("relative L2", "median"), Column("L2", "median")]
    columns += [Column(label, "forward pass, worst") for label in _FORWARD.values()]
    columns += [Column("count", "degenerate"), Column("1 − cos", "degenerate")]
    rows: list[Row] = []
    for family, label in families.items():
        for size in sizes:
            for method in methods[family]:
                if inputs.cells.outcome(family, size, method.key).state == "measured":
                    rows.append(Row(_row(inputs, family, size, method), section=label))
    return Panel(
        "table3-statistics",
        "All measures",
        tuple(columns),
        tuple(rows),
        caption=(
            "Forward pass: KKT residuals (∞-norm) and objective gap relative to 1 + |optimal "
            "value|, worst over instances; n/a where the method gives no multipliers."
        ),
        long=True,
    )


def _row(inputs: Inputs, family: str, size: str, method: MethodName) -> tuple[Cell, ...]:
    rows, degenerate = regular(inputs, family, size, method.key)
    every = inputs.cells.measured(family, size, method.key)
    apart = every[every["reference.degenerate"].fillna(False).astype(bool)]
    cosine = rows["accuracy.q.one_minus_cos"]
    return (
        size_cell(size),
        method_cell(inputs.cells, method),
        Cell(str(len(rows)), float(len(rows))),
        _measure(cosine, "median", "1 − cos"),
        _measure(cosine, "max", "1 − cos"),
        _measure(rows["accuracy.q.rel_l2"], "median", "relative L2 error"),
        _measure(rows["accuracy.q.l2"], "median", "L2 error"),
        *(_measure(every[name], "max", name.replace("_", " ")) for name in _FORWARD),
        Cell(str(degenerate), float(degenerate), tone="" if degenerate else "muted"),
        _measure(apart["accuracy.q.one_minus_cos"], "median", "1 − cos"),
    )


def _measure(values: pd.Series, how: str, unit: str) -> Cell:
    numbers = pd.to_numeric(values).dropna()
    numbers = numbers[numbers.abs() != float("inf")]
    if numbers.empty:
        return Cell("n/a", tone="muted")
    value = float(numbers.agg(how))
    return Cell(tiny(value), value, runs=tuple(float(number) for number in numbers), unit=unit)


def _tidy(
    inputs: Inputs,
    families: dict[str, str],
    methods: dict[str, list[MethodName]],
    sizes: list[str],
) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    for family, label in families.items():
        for size in sizes:
            for method in methods[family]:
                outcome = inputs.cells.outcome(family, size, method.key)
                rows, degenerate = regular(inputs, family, size, method.key)
                every = inputs.cells.measured(family, size, method.key)
                record: dict[str, Any] = {
                    "dataset": label,
                    "family": family,
                    "size": size,
                    "method": method.key,
                    "label": method.label,
                    "outcome": outcome.state,
                    "n": len(rows),
                    "degenerate": degenerate,
                }
                for name in ("one_minus_cos", "rel_l2", "l2"):
                    values = rows[f"accuracy.q.{name}"]
                    record |= {f"{name}_median": values.median(), f"{name}_worst": values.max()}
                record["l2_mean"] = rows["accuracy.q.l2"].mean()
                record["l2_std"] = rows["accuracy.q.l2"].std()
                for name in (*_FORWARD, "solution_error"):
                    record[f"{name}_worst"] = pd.to_numeric(every[name]).max()
                record["notes"] = "; ".join(outcome.notes)
                records.append(record)
    return pd.DataFrame.from_records(records)


TABLE = TableModule("table3", "Table 3: Accuracy", 30, requests, render)
