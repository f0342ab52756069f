"""Table 2: large-scale QP (the paper's large-scale table), with the memory that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.published import table
from bpqp_bench.report.tables._common import LEGEND, SETTINGS, Place, panel_of, request
from bpqp_bench.report.tables._times import Times, peak_memory
from bpqp_bench.report.text import as_published, memory
from bpqp_bench.results.cells import PROTOCOLS, sort_sizes
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

FAMILY = "qp"
METHODS = (
    *("exact", "exact-paper", "exact-solve", "altdiff"),
    *("bpqp", "bpqp-paper", "bpqp-osqp", "bpqp-fast"),
)
_CAPTION = (
    "Seconds per instance, median over instances; the second line under the "
    "total is the largest peak memory of the worker process during the calls of the cell. The "
    "published figures of this table are not available; those that the authors' notebook prints at "
    "other sizes stand below. "
    f"{LEGEND} {SETTINGS}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for the methods that the paper runs at large scale."""
    return (
        request(
            profile,
            METHODS,
            (FAMILY,),
            sizes=profile.large_sizes,
            instances=profile.large_instances,
            call_limit_s=profile.large_call_limit_s,
            cell_budget_s=profile.large_cell_budget_s,
        ),
    )


def large_sizes(inputs: Inputs) -> list[str]:
    """Sizes of the table: those of the profile, and other large ones that were measured."""
    asked = inputs.profile.large_sizes if inputs.profile else ()
    known = PROFILES[-1].large_sizes
    planned = tuple(size for size in asked if inputs.expects(FAMILY, sizes=(size,)))
    return sort_sizes([*planned, *(s for s in inputs.cells.sizes(FAMILY) if s in known)])


def render(inputs: Inputs) -> Table:
    """Render both protocols with peak memory, then all statistics."""

    def below(place: Place) -> str:
        peak = peak_memory(inputs, place) if place.which == "total" else None
        return "" if peak is None else memory(peak)

    sizes = large_sizes(inputs)
    shown = {name.key for name in inputs.names.methods(METHODS)}
    for size in sizes:
        shown |= set(inputs.cells.methods_at(size))
    rows = [method for method in inputs.rows(METHODS, FAMILY) if method.key in shown]
    times = Times(
        inputs,
        key=TABLE.key,
        families={FAMILY: "QP"},
        methods=lambda family: rows,
        sizes=sizes,
        unit="s",
        below=below,
    )
    panels = [*(times.panel(protocol) for protocol in PROTOCOLS), _notebook()]
    panels.append(times.statistics(FAMILY))
    return TABLE.filled(_CAPTION, panels, times.tidy)


def _notebook() -> Panel:
    """Return what the authors' notebook prints, at its own sizes."""
    printed = table("table2_notebook").set_index(["method", "size"])
    methods, sizes = (dict.fromkeys(printed.index.get_level_values(i)) for i in (0, 1))

    def entry(which: str, size: str) -> tuple[Column, Callable[[str], Cell]]:
        def cell(method: str) -> Cell:
            value = float(printed[f"{which}_s"].get((method, size), math.nan))
            return Cell(as_published(value, None), value)

        return Column(size, which.capitalize()), cell

    return panel_of(
        "table2-notebook",
        "Printed by the authors' notebook (s)",
        methods,
        [
            (Column("Method", numeric=False), Cell),
            *(entry(which, size) for which in ("backward", "total") for size in sizes),
        ],
        caption=(
            "Not measured here: the authors' machine and clock (OSQP's solve alone for BPQP and "
            "for Exact's forward pass, the inversion alone for Exact's backward pass, qpth on a "
            "GPU with its warning of an inaccurate solution), one instance each."
        ),
    )


TABLE = TableModule("table2", "Table 2: Large scale", 20, requests, render)
