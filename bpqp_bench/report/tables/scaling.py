"""Scaling: fitted exponent of time over size per method, pass and protocol."""

from __future__ import annotations

from typing import Any

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Table, TableModule
from bpqp_bench.report.tables._common import (
    exponent_entries,
    fit_cells,
    grid,
    method_entry,
    places,
)
from bpqp_bench.report.tables.efficiency import FAMILIES, table_families, table_methods
from bpqp_bench.results.cells import PASSES, PROTOCOLS
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.statistics import PowerFit

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


def render(inputs: Inputs) -> Table:
    """Render one row per dataset and method."""
    families = table_families(inputs) | {
        family: f"{family} (fixed data)" for family in inputs.cells.families() if "fixed=" in family
    }
    rows = places(families, lambda family: _methods(inputs, family))
    fits = {
        (place.family, place.method.key, which, protocol): fit_cells(
            inputs.cells, place.family, place.method.key, which, protocol
        )
        for place in rows
        for protocol in PROTOCOLS
        for which in PASSES
    }
    entries = exponent_entries(
        lambda place, which, protocol: fits[place.family, place.method.key, which, protocol],
        PASSES,
        local=True,
    )
    panel = grid("scaling-exponents", "Exponents", rows, [method_entry(inputs.cells), *entries])
    records = [
        {"dataset": place.section, "family": place.family, "method": place.method.key}
        | {"label": place.method.label, "pass": which, "protocol": protocol}
        | _record(fits[place.family, place.method.key, which, protocol])
        for place in rows
        for protocol in PROTOCOLS
        for which in PASSES
    ]
    return TABLE.filled(_CAPTION, [panel], records)


def _methods(inputs: Inputs, family: str) -> list[MethodName]:
    if family in FAMILIES:
        return table_methods(inputs, family)
    return [
        MethodName(key, key, inputs.cells.label(key) or key) for key in inputs.cells.methods(family)
    ]


def _record(fit: PowerFit | None) -> dict[str, Any]:
    if fit is None:
        return {}
    return {
        "exponent": fit.exponent,
        "low": fit.low,
        "high": fit.high,
        "local": " ".join(f"{slope:.4g}" for slope in fit.local),
        "sizes": fit.sizes,
        "points": fit.points,
        "trusted": fit.trusted,
    }


TABLE = TableModule("scaling", "Scaling of time with size", 60, requests, render)
