"""Table 2: large-scale QP (the paper's large-scale table), with the memory that it takes."""

from __future__ import annotations

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Table, TableModule
from bpqp_bench.report.tables._common import SETTINGS
from bpqp_bench.report.tables._times import (
    TimesTable,
    peak_memory,
    statistics_panel,
    tidy_times,
    times_panel,
)
from bpqp_bench.report.text import memory
from bpqp_bench.results.cells import PROTOCOLS, sort_sizes
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

__all__ = ["FAMILY", "METHODS", "TABLE", "large_sizes"]

FAMILY = "qp"
METHODS = ("exact", "exact-solve", "altdiff", "bpqp", "bpqp-fast")
_CAPTION = (
    "Seconds per instance, mean ± standard deviation over instances; the second line under the "
    "total is the largest peak memory of the worker process during the calls of the cell. The "
    "published figures of this table are not to be had. "
    f"{SETTINGS}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for the methods that the paper runs at large scale."""
    return (
        Request(
            methods=METHODS,
            families=(FAMILY,),
            sizes=profile.large_sizes,
            instances=profile.large_instances,
            call_limit_s=profile.large_call_limit_s,
            build_limit_s=profile.build_limit_s,
            cell_budget_s=profile.large_cell_budget_s,
        ),
    )


def large_sizes(inputs: Inputs) -> list[str]:
    """Sizes of the table: those of the profile, and large ones that were measured all the same."""
    asked = inputs.profile.large_sizes if inputs.profile else ()
    known = PROFILES[-1].large_sizes
    planned = tuple(size for size in asked if inputs.expects(FAMILY, sizes=(size,)))
    return sort_sizes([*planned, *(s for s in inputs.cells.sizes(FAMILY) if s in known)])


def render(inputs: Inputs) -> Table:
    """Render both protocols with peak memory, then all statistics."""

    def below(method: MethodName, family: str, which: str, size: str) -> str:
        peak = peak_memory(inputs, family, size, method) if which == "total" else None
        return "" if peak is None else memory(peak)

    sizes = large_sizes(inputs)
    asked = inputs.names.methods(METHODS)
    measured = {
        method
        for size in sizes
        for method in inputs.cells.methods(FAMILY)
        if inputs.cells.outcome(FAMILY, size, method).state != "missing"
    }
    rows = [
        method
        for method in inputs.rows(METHODS, FAMILY)
        if method.key in measured | {name.key for name in asked}
    ]
    times = TimesTable(
        key="table2",
        families={FAMILY: "QP"},
        methods={FAMILY: rows},
        sizes=sizes,
        unit="s",
        below=below,
    )
    tidy = tidy_times(inputs, times)
    panels = [times_panel(inputs, times, protocol) for protocol in PROTOCOLS]
    panels.append(statistics_panel(inputs, times, FAMILY, tidy))
    return Table(TABLE.key, TABLE.title, _CAPTION, tuple(panels), tidy)


TABLE = TableModule("table2", "Table 2: Large scale", 20, requests, render)
