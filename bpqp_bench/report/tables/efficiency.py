"""Table 1: efficiency of the methods on QP, LP and SOCP (the paper's table 1)."""

from __future__ import annotations

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Table, TableModule
from bpqp_bench.report.published import SOURCE, Published, published_time
from bpqp_bench.report.tables._common import (
    LEGEND,
    SETTINGS,
    Place,
    published_text,
    request,
    table_sizes,
)
from bpqp_bench.report.tables._times import Times
from bpqp_bench.results.cells import PROTOCOLS
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

FAMILIES = {"qp": "QP", "lp": "LP", "socp": "SOCP"}
METHODS = (
    *("exact", "exact-paper", "exact-solve", "cvxpy", "cvxpy-paper", "qpth", "qpth-paper"),
    *("altdiff", "altdiff-vjp", "altdiff-paper", "jaxopt", "jaxopt-accurate"),
    *("bpqp", "bpqp-paper", "bpqp-osqp", "bpqp-direct", "bpqp-fast"),
)
LP_ONLY = ("cvxpy-lp0",)

_CAPTION = (
    "Milliseconds per instance: median and middle half over instances. "
    "call: everything that a training step pays; solver: the solve phase alone, which is what the "
    "authors timed for BPQP. The second line is the published figure, from another machine: "
    f"{SOURCE}. “≥” marks a median from which calls that hit the time limit are missing. "
    f"{LEGEND} {SETTINGS}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for every method on QP, LP and SOCP, and for the paper's own LP under CVXPY."""
    return (request(profile, METHODS, FAMILIES), request(profile, LP_ONLY, ("lp",)))


def table_methods(inputs: Inputs, family: str) -> list[MethodName]:
    """Rows of a dataset's block: what the table asked for, then a user's own methods."""
    asked = list(METHODS)
    if family == "lp":
        asked[asked.index("cvxpy") + 1 : asked.index("cvxpy") + 1] = LP_ONLY
    elsewhere = {name.key for name in inputs.names.methods(LP_ONLY)} if family != "lp" else set()
    return [name for name in inputs.rows(asked, family) if name.key not in elsewhere]


def table_families(inputs: Inputs) -> dict[str, str]:
    """Labels of the datasets by key: the paper's; in a run of one's own choice all that it has."""
    if inputs.profile is not None:
        return dict(FAMILIES)
    found = {family: label for family, label in FAMILIES.items() if inputs.expects(family)}
    for family in inputs.cells.families():
        label = inputs.names.family_label(family)
        found.setdefault(family, family if label in found.values() else label)
    return found


def render(inputs: Inputs) -> Table:
    """Render the two protocols in the paper's layout, then every statistic of every cell."""
    planned = inputs.profile.sizes if inputs.profile else ()
    families = table_families(inputs)
    times = Times(
        inputs,
        key=TABLE.key,
        families=families,
        methods=lambda family: table_methods(inputs, family),
        sizes=table_sizes(inputs, planned, PROFILES[-1].large_sizes, *families),
        published=_published,
        below=lambda place: published_text(_published(place), "ms"),
    )
    panels = [times.panel(protocol) for protocol in PROTOCOLS]
    panels += [times.statistics(family) for family in families]
    return TABLE.filled(_CAPTION, panels, times.tidy)


def _published(place: Place) -> Published | None:
    return published_time(place.method.name, place.family, place.which, place.size)


TABLE = TableModule("table1", "Table 1: Efficiency", 10, requests, render)
