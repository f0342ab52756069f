"""Solver pairs: BPQP with any solver in either pass (the paper's solver-agnostic claim)."""

from __future__ import annotations

import itertools
from typing import Any

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table, TableModule
from bpqp_bench.report.tables._common import LEGEND, MARKS, is_short, missing_cell, request
from bpqp_bench.report.text import significant, tiny
from bpqp_bench.results.cells import PASSES
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

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
    f"a factorization of its KKT system. {LEGEND}"
)


def pair(forward: str, backward: str) -> str:
    """Return the specification of BPQP with these solvers."""
    return f"bpqp[backward={backward},forward={forward}]"


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for all pairs at two sizes; a short profile for a few at its own sizes."""
    small = is_short(profile)
    pairs = _FEW if small else tuple(itertools.product(FORWARD, BACKWARD))
    return (
        request(
            profile,
            (pair(*names) for names in pairs),
            FAMILIES,
            sizes=profile.sizes if small else _SIZES,
            instances=min(profile.instances, _MOST_INSTANCES),
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
        found = {names: _pair_cell(inputs, family, size, names) for names in pairs}
        rows = tuple(
            Row((Cell(one, one), *(found.get((one, two), _NO_PAIR)[0] for two in backward)))
            for one in forward
        )
        records += [
            {"dataset": label} | found[names][1]
            for names in itertools.product(forward, backward)
            if names in found
        ]
        columns = (
            Column("forward", numeric=False),
            *(Column(name, "backward") for name in backward),
        )
        panels.append(Panel(f"solvers-{family}-{size}", f"{label}, {size}", columns, rows))
    return TABLE.filled(_CAPTION, panels, records)


_NO_PAIR: tuple[Cell, dict[str, Any]] = (Cell("", tone="muted"), {})


def _pair_cell(
    inputs: Inputs, family: str, size: str, names: tuple[str, str]
) -> tuple[Cell, dict[str, Any]]:
    key = (family, size, inputs.names.method(pair(*names)).key)
    outcome = inputs.cells.outcome(*key)
    record: dict[str, Any] = {
        "family": family,
        "size": size,
        "forward": names[0],
        "backward": names[1],
        "method": key[2],
        "outcome": outcome.state,
        "n": outcome.n,
        "notes": "; ".join(outcome.notes),
    }
    if outcome.state != "measured":
        return missing_cell(outcome), record
    for which in PASSES:
        record[f"{which}_median_s"] = inputs.cells.times(*key, which, "call").median()
    times = inputs.cells.times(*key, "total", "call") * 1e3
    cosine = inputs.cells.regular(*key, "accuracy.q.one_minus_cos")
    mark = inputs.cells.gradient(*key).mark
    record |= {
        "gradient": mark,
        "one_minus_cos_median": cosine.median(),
        "one_minus_cos_worst": cosine.max(),
    }
    cell = Cell(
        f"{significant(float(times.median()))}{MARKS[mark]}",
        float(times.median()),
        below=tiny(float(cosine.median())),
        notes=outcome.notes,
        runs=tuple(times.tolist()),
        unit="ms",
        tone="wrong" if mark == "wrong" else "",
        comparable=inputs.cells.right(*key),
    )
    return cell, record


TABLE = TableModule("solvers", "Solver pairs of BPQP", 50, requests, render)
