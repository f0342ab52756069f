"""Solver pairs: BPQP with any solver in either pass (the paper's solver-agnostic claim)."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._common import is_short, missing_cell
from bpqp_bench.report.tables.accuracy import regular
from bpqp_bench.report.text import significant, tiny
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

__all__ = ["BACKWARD", "FAMILIES", "FORWARD", "TABLE", "pair"]

FORWARD = ("osqp", "proxqp", "piqp", "clarabel", "daqp", "quadprog", "highs", "scs")
BACKWARD = ("osqp", "direct", "proxqp", "piqp", "clarabel")
FAMILIES = {"qp": "QP", "qp-active": "QP with planted active set"}
_FEW = (
    *(("osqp", "osqp"), ("osqp", "direct"), ("proxqp", "direct")),
    *(("clarabel", "clarabel"), ("piqp", "proxqp")),
)
_SIZES = ("100x20", "500x100")
_MOST_INSTANCES = 5
_CAPTION = (
    "Median time of forward and backward pass together (protocol call, ms); the second line is "
    "the median 1 − cos to the reference gradient. Rows: solver of the forward pass; columns: "
    "solver of the backward pass. The backward problem has equality constraints alone; direct is "
    "a factorization of its KKT system."
)


def pair(forward: str, backward: str) -> str:
    """Return the specification of BPQP with these solvers."""
    return f"bpqp[backward={backward},forward={forward}]"


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for all pairs at two sizes; a short profile for a few at its own sizes."""
    small = is_short(profile)
    pairs = _FEW if small else tuple(itertools.product(FORWARD, BACKWARD))
    return (
        Request(
            methods=tuple(pair(*names) for names in pairs),
            families=tuple(FAMILIES),
            sizes=profile.sizes if small else _SIZES,
            instances=min(profile.instances, _MOST_INSTANCES),
            call_limit_s=profile.call_limit_s,
            build_limit_s=profile.build_limit_s,
            cell_budget_s=None if profile.cell_budget_s is None else profile.cell_budget_s / 4,
        ),
    )


def render(inputs: Inputs) -> Table:
    """Render one grid of forward by backward solvers per family and size."""
    profile = inputs.profile
    small = profile is not None and is_short(profile)
    sizes = profile.sizes if profile is not None and small else _SIZES
    pairs = _FEW if small else tuple(itertools.product(FORWARD, BACKWARD))
    forward = [name for name in FORWARD if any(name == one for one, _ in pairs)]
    backward = [name for name in BACKWARD if any(name == two for _, two in pairs)]
    keys = [inputs.names.method(pair(*names)).key for names in pairs]
    panels: list[Panel] = []
    records: list[dict[str, Any]] = []
    for (family, label), size in itertools.product(FAMILIES.items(), sizes):
        if not inputs.expects(family, sizes=(size,), methods=keys):
            continue
        rows: list[Row] = []
        for one in forward:
            cells = [Cell(one, one)]
            for two in backward:
                if (one, two) not in pairs:
                    cells.append(Cell("", tone="muted"))
                    continue
                cell, record = _pair_cell(inputs, family, size, (one, two))
                cells.append(cell)
                records.append({"dataset": label} | record)
            rows.append(Row(tuple(cells)))
        columns = (
            Column("forward", numeric=False),
            *(Column(name, "backward") for name in backward),
        )
        panels.append(Panel(f"solvers-{family}-{size}", f"{label}, {size}", columns, tuple(rows)))
    return Table(
        TABLE.key, TABLE.title, _CAPTION, tuple(panels), pd.DataFrame.from_records(records)
    )


def _pair_cell(
    inputs: Inputs, family: str, size: str, names: tuple[str, str]
) -> tuple[Cell, dict[str, Any]]:
    method = inputs.names.method(pair(*names))
    outcome = inputs.cells.outcome(family, size, method.key)
    record: dict[str, Any] = {
        "family": family,
        "size": size,
        "forward": names[0],
        "backward": names[1],
        "method": method.key,
        "outcome": outcome.state,
        "n": outcome.n,
        "notes": "; ".join(outcome.notes),
    }
    if outcome.state != "measured":
        return missing_cell(outcome), record
    times = inputs.cells.times(family, size, method.key, "total", "call") * 1e3
    for which in ("forward", "backward", "total"):
        found = inputs.cells.values(family, size, method.key, f"time.{which}.call")
        record[f"{which}_median_s"] = found.median()
    cosine = regular(inputs, family, size, method.key)[0]["accuracy.q.one_minus_cos"]
    record |= {"one_minus_cos_median": cosine.median(), "one_minus_cos_worst": cosine.max()}
    cell = Cell(
        significant(float(times.median())),
        float(times.median()),
        below=tiny(float(cosine.median())) if len(cosine) else "n/a",
        notes=outcome.notes,
        runs=tuple(float(value) for value in times),
        unit="ms",
    )
    return cell, record


TABLE = TableModule("solvers", "Solver pairs of BPQP", 50, requests, render)
