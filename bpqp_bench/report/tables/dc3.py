"""Table 5: DC3, which learns to solve one family of problems, against methods that solve each."""

from __future__ import annotations

import pandas as pd

from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import (
    LEGEND,
    Entry,
    Place,
    base_name,
    exponent_entries,
    fit_cells,
    grid,
    method_entry,
    missing_cell,
    number_cell,
    places,
    request,
    size_cell,
    table_sizes,
)
from bpqp_bench.report.tables._times import Times
from bpqp_bench.report.text import significant, tiny
from bpqp_bench.results.cells import PASSES, PROTOCOLS, Pass, Protocol
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile
from bpqp_bench.statistics import PowerFit

FAMILIES = {"qp[fixed=true]": "QP, fixed data", "lp[fixed=true]": "LP, fixed data"}
OTHERS = ("exact-solve", "bpqp")
_CAPTION = (
    "DC3 learns a map from q to a solution for one P, A, b, G, h, so all instances of a size share "
    "these and only q varies. Milliseconds per instance: median and middle half. Its training "
    "is paid before the first instance and stands apart; its solutions need not be feasible or "
    "optimal, so the residuals belong to the times. The published figures of this table are not "
    f"available. {LEGEND}"
)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for DC3, trained as the profile says, and for two methods that solve each instance."""
    trained = f"dc3[epochs={profile.dc3_epochs},samples={profile.dc3_samples}]"
    return (request(profile, (trained, *OTHERS), FAMILIES),)


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
    times = Times(
        inputs,
        key=TABLE.key,
        families=families,
        methods=lambda family: rows,
        sizes=table_sizes(inputs, planned, PROFILES[-1].large_sizes, *families),
        passes=PASSES,
    )
    panels = [times.panel(protocol) for protocol in PROTOCOLS]
    panels += [_quality(inputs, times), _slopes(inputs, times)]
    panels += [times.statistics(family) for family in families]
    tidy = times.tidy
    if len(tidy):
        extra = pd.DataFrame.from_records(
            [
                {"family": place.family, "size": place.size, "method": place.method.key}
                | {f"{name}_median": _median(inputs, place, name) for name in _QUALITY}
                for place in places(families, times.methods, times.sizes)
            ]
        )
        tidy = tidy.merge(extra, on=["family", "size", "method"], how="left")
    return TABLE.filled(_CAPTION, panels, tidy)


_QUALITY = {
    "build_s": "training (s)",
    "primal_residual": "violation",
    "objective_gap": "objective gap",
    "solution_error": "solution error",
    "one_minus_cos": "1 − cos",
}


def _training_s(rows: pd.DataFrame) -> pd.Series:
    """Seconds of the training when it was done: a network from the cache took that time too."""
    built = pd.to_numeric(rows["build_s"])
    if "info" not in rows:
        return built
    said = rows["info"].map(lambda info: info.get("training", {}).get("seconds"), "ignore")
    return pd.to_numeric(said).fillna(built)


def _median(inputs: Inputs, place: Place, name: str) -> float:
    if name == "build_s":
        return float(_training_s(inputs.cells.measured(*place.key)).median())
    column = "accuracy.q.one_minus_cos" if name == "one_minus_cos" else name
    return float(inputs.cells.values(*place.key, column).median())


def _quality(inputs: Inputs, times: Times) -> Panel:
    def entry(name: str, label: str) -> Entry:
        def cell(place: Place) -> Cell:
            outcome = inputs.cells.outcome(*place.key)
            if outcome.state != "measured":
                return missing_cell(outcome) if name == "build_s" else Cell("")
            show = significant if name == "build_s" else tiny
            return number_cell(_median(inputs, place, name), show)

        return Column(label), cell

    return grid(
        "table5-quality",
        "Quality of the solutions, and what the training cost",
        places(times.families, times.methods, times.sizes),
        [
            (Column("Size", numeric=False), lambda place: size_cell(place.size)),
            method_entry(inputs.cells),
            *(entry(name, label) for name, label in _QUALITY.items()),
        ],
        caption=(
            "Medians over instances: largest violation of a constraint, objective gap relative to "
            "1 + |optimal value|, error of the solution relative to ‖z*‖, and distance of the "
            "gradient. training: seconds of the training, once per family and size, when it was "
            "done; for methods without one, of build."
        ),
    )


def _slopes(inputs: Inputs, times: Times) -> Panel:
    def fit(place: Place, which: Pass, protocol: Protocol) -> PowerFit | None:
        return fit_cells(inputs.cells, place.family, place.method.key, which, protocol)

    return grid(
        "table5-slopes",
        "Exponent of time over n",
        places(times.families, times.methods),
        [method_entry(inputs.cells), *exponent_entries(fit, times.passes, local=False)],
        caption="Linear growth is an exponent of 1; see the scaling table for how it is fitted.",
    )


TABLE = TableModule("table5", "Table 5: DC3", 40, requests, render)
