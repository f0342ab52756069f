"""Performance profiles after Dolan and Moré, of all answers and of right gradients alone."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from bpqp_bench.reference.accuracy import COSINE_RIGHT, ERROR_RIGHT
from bpqp_bench.report.figures._vega import Spec, facets, figure, log, method_scales
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Drawing, FigureModule
from bpqp_bench.report.tables.efficiency import table_methods
from bpqp_bench.report.tables.real import random_families
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.statistics import performance_profile


def draw(inputs: Inputs) -> tuple[Drawing, ...]:
    """Draw one column per dataset; the upper row counts any answer, the lower right ones."""
    records: list[dict[str, Any]] = []
    families = random_families(inputs)
    for (family, label), right in itertools.product(families.items(), (False, True)):
        records += profile_records(inputs, _times(inputs, family, right), _ROWS[right], label)
    if not records:
        return ()
    layer = profile_layer(inputs, records, "share of instances")
    body = facets(layer, _ROWS, list(families.values()), (210, 150))
    return (
        Drawing(
            "performance-profiles",
            "Performance profiles",
            "Share of all instances of the sizes of table 1 that a method answered within τ times "
            "the fastest total time (protocol call). Below, only right gradients count (1 − cos ≤ "
            f"{COSINE_RIGHT:g}, relative error ≤ {ERROR_RIGHT:g}); degenerate instances are left "
            "out there.",
            spec=figure(body, records),
        ),
    )


def profile_records(
    inputs: Inputs, times: pd.DataFrame, row: str = "", column: str = ""
) -> list[dict[str, Any]]:
    """Return the steps of the profile of ``times``, a column a method, for one chart of a grid."""
    profile = performance_profile(times)
    # A profile stays at its last value; it is drawn to the edge.
    edge = 1.3 * max((float(f[-1]) for f, _ in profile.values() if len(f)), default=1.0)
    records: list[dict[str, Any]] = []
    for key, (factors, share) in profile.items():
        steps = [(1.0, 0.0), *zip(factors, share, strict=True)]
        records += [
            {"label": inputs.cells.label(key) or key, "factor": float(x), "share": float(y)}
            | {"row": row, "column": column}
            for x, y in [*steps, (edge, steps[-1][1])]
        ]
    return records


def profile_layer(inputs: Inputs, records: list[dict[str, Any]], share: str) -> list[Spec]:
    """Return the marks of such a chart: steps, and the method's shape at the end of each."""
    color, shape = method_scales(inputs, (record["label"] for record in records))
    where = {
        "x": log("factor", "τ, factor of the fastest time", axis={"tickCount": 4}),
        "y": {"field": "share", "type": "quantitative", "title": share},
        "color": color,
    }
    line = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.2}
    last = [
        {
            "joinaggregate": [{"op": "max", "field": "factor", "as": "last"}],
            "groupby": ["label", "row", "column"],
        },
        {"filter": "datum.factor == datum.last"},
    ]
    return [
        {"mark": line, "encoding": where},
        {
            "transform": last,
            "mark": {"type": "point", "filled": True, "size": 34, "opacity": 1},
            "encoding": where | {"shape": shape},
        },
    ]


_ROWS = ("any answer", "right gradients")


def _times(inputs: Inputs, family: str, accurate: bool) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    problems: set[str] = set()
    degenerate: set[str] = set()
    # The large sizes have a table of their own, with few of the methods.
    large = PROFILES[-1].large_sizes
    sizes = [size for size in inputs.cells.sizes(family) if size not in large]
    for method in table_methods(inputs, family):
        pieces: list[pd.Series] = []
        measured = [inputs.cells.measured(family, size, method.key) for size in sizes]
        # A variant that solves another problem (the paper's LP with ε = 0) does not compete here.
        if any("posed" in rows and rows["posed"].notna().any() for rows in measured):
            continue
        for rows in measured:
            problems |= set(rows.index)
            bad = rows["reference.degenerate"].eq(True)
            degenerate |= set(rows.index[bad])
            kept = pd.Series(True, index=rows.index)
            if accurate:
                kept = rows["accuracy.q.one_minus_cos"] <= COSINE_RIGHT
                kept &= rows["accuracy.q.rel_l2"] <= ERROR_RIGHT
            pieces.append(rows.loc[kept, "time.total.call"])
        joined = pd.concat(pieces) if pieces else pd.Series(dtype=float)
        tried = any(
            inputs.cells.outcome(family, size, method.key).state not in ("missing", "unsupported")
            for size in sizes
        )
        if tried:
            columns[method.key] = joined
    index = sorted(problems - degenerate if accurate else problems)
    return pd.DataFrame({key: column.reindex(index) for key, column in columns.items()})


FIGURE = FigureModule("performance-profiles", 30, draw)
