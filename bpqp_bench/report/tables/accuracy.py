"""Table 3: accuracy of the backward pass, and of the forward pass under it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.published import published_accuracy
from bpqp_bench.report.tables._common import (
    SETTINGS,
    Entry,
    Place,
    base_name,
    grid,
    is_short,
    method_entry,
    missing_cell,
    number_cell,
    places,
    request,
    size_cell,
    table_sizes,
)
from bpqp_bench.report.tables.dc3 import FAMILIES as LEARNED
from bpqp_bench.report.tables.dc3 import dc3_methods
from bpqp_bench.report.tables.efficiency import FAMILIES, LP_ONLY, METHODS, table_methods
from bpqp_bench.report.tables.real import REAL
from bpqp_bench.report.text import tiny
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

_FURTHER = {"socp-robust": "SOCP (robust)"}
_SHARES = (0.1, 0.5, 0.9)
_MOST_INSTANCES = 20
_COSINE = "accuracy.q.one_minus_cos"
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

    limits = {
        "instances": min(profile.instances, _MOST_INSTANCES),
        "cell_budget_s": profile.accuracy_budget_s,
    }
    further = (*_FURTHER, *(f"qp-active[active_share={share:g}]" for share in shares))
    return (
        request(profile, _FEW_METHODS if small else _METHODS, further, **limits),
        request(profile, METHODS, FAMILIES, **limits),
        request(profile, LP_ONLY, ("lp",), **limits),
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
        if base_name(family) not in REAL:  # table 8 has those
            found.setdefault(family, inputs.names.family_label(family))
    return found


def render(inputs: Inputs) -> Table:
    """Render 1 − cos by size, then all measures of both passes."""
    families = accuracy_families(inputs)
    planned = inputs.profile.sizes if inputs.profile else ()
    sizes = table_sizes(inputs, planned, PROFILES[-1].large_sizes, *families)

    @cache
    def methods(family: str) -> list[MethodName]:
        return _methods(inputs, family)

    every = places(families, methods, sizes)
    names = method_entry(inputs.cells)
    cosine = grid(
        "table3-cosine",
        "Distance to the reference gradient",
        places(families, methods),
        [
            names,
            *(_cosine_entry(inputs, size) for size in sizes),
            (Column("here", "L2 error, all sizes"), lambda place: _l2(inputs, place, sizes)),
            (Column("paper", "L2 error, all sizes"), _paper),
        ],
    )
    answered = [place for place in every if inputs.cells.outcome(*place.key).state == "measured"]
    panels = (cosine, _everything(inputs, names, answered))
    return TABLE.filled(_CAPTION, panels, [_record(inputs, place) for place in every])


def _methods(inputs: Inputs, family: str) -> list[MethodName]:
    if family in FAMILIES:
        return table_methods(inputs, family)
    if family in {inputs.names.family(learned) for learned in LEARNED}:
        return dc3_methods(inputs)
    lp_only = {name.key for name in inputs.names.methods(LP_ONLY)}
    small = inputs.profile is not None and is_short(inputs.profile)
    asked = _FEW_METHODS if small else _METHODS
    # A method that table 1 runs has a row here too if it was measured on this family.
    more = [
        name for name in METHODS if inputs.names.method(name).key in inputs.cells.methods(family)
    ]
    return [name for name in inputs.rows([*asked, *more], family) if name.key not in lp_only]


def _cosine_entry(inputs: Inputs, size: str) -> Entry:
    def cell(row: Place) -> Cell:
        key = (row.family, size, row.method.key)
        outcome = inputs.cells.outcome(*key)
        if outcome.state != "measured":
            return missing_cell(outcome)
        values = inputs.cells.regular(*key, _COSINE)
        if values.empty:
            apart = inputs.cells.apart(*key)
            notes = (f"{row.method.label}: all {apart} instances are degenerate",)
            return Cell("n/a", tone="missing", notes=notes if apart else outcome.notes)
        return Cell(
            f"{tiny(values.median())} ({tiny(values.max())})",
            float(values.median()),
            notes=outcome.notes,
            runs=tuple(values.tolist()),
            unit="1 − cos",
        )

    return Column(size, "1 − cos: median (worst)"), cell


def _l2(inputs: Inputs, row: Place, sizes: list[str]) -> Cell:
    found = [
        inputs.cells.regular(row.family, size, row.method.key, "accuracy.q.l2") for size in sizes
    ]
    values = pd.concat(found) if found else pd.Series(dtype=float)
    if values.empty:
        return Cell("n/a", tone="missing")
    spread = f" ± {tiny(values.std())}" if len(values) > 1 else ""
    text = f"{tiny(values.mean())}{spread}"
    return Cell(text, float(values.mean()), runs=tuple(values.tolist()), unit="L2 error")


def _paper(row: Place) -> Cell:
    published = published_accuracy(row.method.name, row.family)
    if published is None:
        return Cell("n/a", tone="muted")
    spread = "" if published.std is None else f" ± {tiny(published.std)}"
    return Cell(f"{tiny(published.mean)}{spread}", published.mean)


def _everything(inputs: Inputs, names: Entry, answered: list[Place]) -> Panel:
    def count(place: Place) -> Cell:
        found = len(inputs.cells.regular(*place.key, _COSINE))
        return Cell(str(found), float(found))

    def apart(place: Place) -> Cell:
        found = inputs.cells.apart(*place.key)
        return Cell(str(found), float(found), tone="" if found else "muted")

    def entry(
        column: Column, name: str, how: str, unit: str, read: Callable[..., pd.Series]
    ) -> Entry:
        return column, lambda place: _measure(read(*place.key, name), how, unit)

    cells = inputs.cells
    regular, degenerate = cells.regular, cells.degenerate
    return grid(
        "table3-statistics",
        "All measures",
        answered,
        [
            (Column("Size", numeric=False), lambda place: size_cell(place.size)),
            names,
            (Column("n"), count),
            entry(Column("median", "1 − cos"), _COSINE, "median", "1 − cos", regular),
            entry(Column("worst", "1 − cos"), _COSINE, "max", "1 − cos", regular),
            entry(
                Column("relative L2", "median"),
                *("accuracy.q.rel_l2", "median", "relative L2 error"),
                regular,
            ),
            entry(Column("L2", "median"), "accuracy.q.l2", "median", "L2 error", regular),
            *(
                entry(
                    Column(label, "forward pass, worst"),
                    *(name, "max", name.replace("_", " ")),
                    cells.values,
                )
                for name, label in _FORWARD.items()
            ),
            (Column("count", "degenerate"), apart),
            entry(Column("1 − cos", "degenerate"), _COSINE, "median", "1 − cos", degenerate),
        ],
        caption=(
            "Forward pass: KKT residuals (∞-norm) and objective gap relative to 1 + |optimal "
            "value|, worst over instances; n/a where the method gives no multipliers."
        ),
        long=True,
    )


def _measure(values: pd.Series, how: str, unit: str) -> Cell:
    numbers = values.to_numpy()[np.isfinite(values)]
    value = float(getattr(np, how)(numbers)) if numbers.size else math.nan
    return number_cell(value, runs=tuple(numbers.tolist()), unit=unit)


def _record(inputs: Inputs, place: Place) -> dict[str, Any]:
    outcome = inputs.cells.outcome(*place.key)

    def regular(name: str) -> pd.Series:
        return inputs.cells.regular(*place.key, f"accuracy.q.{name}")

    record: dict[str, Any] = {
        "dataset": place.section,
        "family": place.family,
        "size": place.size,
        "method": place.method.key,
        "label": place.method.label,
        "outcome": outcome.state,
        "n": len(regular("l2")),
        "degenerate": inputs.cells.apart(*place.key),
    }
    for name in ("one_minus_cos", "rel_l2", "l2"):
        values = regular(name)
        record |= {f"{name}_median": values.median(), f"{name}_worst": values.max()}
    record |= {"l2_mean": regular("l2").mean(), "l2_std": regular("l2").std()}
    for name in (*_FORWARD, "solution_error"):
        record[f"{name}_worst"] = inputs.cells.values(*place.key, name).max()
    record["notes"] = "; ".join(outcome.notes)
    return record


TABLE = TableModule("table3", "Table 3: Accuracy", 30, requests, render)
