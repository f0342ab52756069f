"""Table 8: problems that others have published, and what every method makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.parameters import format_spec
from bpqp_bench.reference.accuracy import COSINE_RIGHT, ERROR_RIGHT
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Table, TableModule
from bpqp_bench.report.tables._common import (
    Entry,
    Place,
    base_name,
    grid,
    is_short,
    method_entry,
    number_cell,
)
from bpqp_bench.report.tables._survey import at_best, modern, scope
from bpqp_bench.report.tables.efficiency import table_families
from bpqp_bench.report.text import significant
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.statistics import shifted_geometric_mean

# Families of real problems; tables of random ones leave them out.
REAL = ("cutest", "cutest-lp", "maros-meszaros", "osqp-class", "mpc")
# Beside one configuration of each library, where more can be afforded.
_FURTHER = ("exact", "altdiff", "jaxopt", "bpqp-paper", "bpqp-direct")
# Ten that differ: bounds alone, equalities alone, both, weakly active, LP-like, ill-conditioned.
_SMOKE = ("AVGASA", "HS21", "HS52")  # where JAX compiles quickly
_TEN = (*_SMOKE, "BIGGSB1", "DUAL4", "DUALC1", "HS118", "HS76", "LOTSCHD", "QPCBLEND")
_SMALL = 5  # variables of a problem that the standard profile takes beside those ten
_LIMIT_S = 10.0
_SHIFT_S = 0.01

Verdict = Literal[
    "right", "solved", "silent", "refused truly", "refused falsely", "timeout", "not judged"
]
_COUNTS: tuple[tuple[Verdict, str], ...] = (
    ("right", "right gradient"),
    ("solved", "solved, no gradient to judge"),
    ("silent", "wrong silently"),
    ("refused truly", "refused truly"),
    ("refused falsely", "refused falsely"),
    ("timeout", "timeout"),
)
_GAP = 1e-4  # relative objective gap, and violation, up to which a solution counts
_ZERO = 1e-20

_CAPTION = (
    "One instance of each published problem. Right gradient: 1 − cos ≤ 1e−6 and relative error ≤ "
    "1e−3. Solved: where the gradient is zero or does not exist (degenerate), the objective lies "
    "within 1e−4 relative to 1 + |optimal value|, and no row is violated by more. Wrong silently: "
    "the method called its answer converged, and solution or gradient is wrong. Refused: it "
    "raised, or said that it had not converged, and the answer is not right; truly, where it "
    "declares that it does not take such problems, or the gradient does not exist; falsely, where "
    "it does. Times: shifted geometric mean of the total of both passes (protocol call), shift "
    "10 ms, over the problems that every method with an answer to half of them has right or solved "
    "(Mittelmann's rule, without those that few problems are made for), and over all problems with "
    "anything but a right or solved answer at the time limit."
)


def methods(everything: bool = True) -> tuple[str, ...]:
    """Names of the rows: every library at its best; with ``everything`` all of today's variants."""
    more = (*modern(), *_FURTHER) if everything else ()
    return tuple(dict.fromkeys((*at_best(), *more)))


def random_families(inputs: Inputs) -> dict[str, str]:
    """Labels by key of the families of table 1 without real problems, which have table 8."""
    found = table_families(inputs)
    return {family: label for family, label in found.items() if base_name(family) not in REAL}


@cache
def real_families(largest: int | None = None) -> tuple[str, ...]:
    """Specifications of the QPs of CUTEst that this machine can draw.

    With ``largest`` those of up to so many variables and ten others; the three of the smoke
    profile with 0.
    """
    found = Registry().families.get("cutest")
    if found is None:
        return ()
    family, chosen = found.plugin, []
    always = _TEN if largest else _SMOKE
    for parameters in family.members() if family.members is not None else ():
        size = family.size_of(**parameters) if family.size_of is not None else None
        small = largest is None or (size is not None and size.n <= largest)
        if small or parameters["name"] in always:
            chosen.append(format_spec(family.name, parameters))
    return tuple(chosen)


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for one instance of each problem: three, the small ones and ten, or all of them."""
    everything = profile.cell_budget_s is None
    largest = None if everything else 0 if is_short(profile) else _SMALL
    families = real_families(largest)
    if not families:
        return ()
    limits = scope(profile)
    return (
        Request(
            methods=methods(everything),
            families=families,
            sizes=(),
            instances=1,
            call_limit_s=min(_LIMIT_S, limits.call_limit_s),
            build_limit_s=limits.build_limit_s,
            warmups=limits.warmups,
        ),
    )


_READ = [
    *("family", "size", "seed", "method", "role", "status", "time.total.call"),
    *("reference.degenerate", "accuracy.q.norm", "accuracy.q.one_minus_cos", "accuracy.q.rel_l2"),
    *("objective_gap", "primal_residual"),
]


@dataclass(frozen=True)
class _Problem:
    degenerate: bool
    judged: bool
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, rows: list[dict[Any, Any]]) -> _Problem:
        said = [row["reference.degenerate"] for row in rows]
        known = [bool(one) for one in said if pd.notna(one)]
        seeds = sorted({row["seed"] for row in rows if row["role"] == "measured"})
        return cls(degenerate=any(known), judged=bool(known), seeds=tuple(seeds) or (0,))


def judged(inputs: Inputs) -> pd.DataFrame:
    """Verdict and seconds of every method on every real problem.

    Returns
    -------
    pandas.DataFrame
        Columns family, size, seed, method, verdict, seconds; one row for each counted call, or for
        the failed first call of a cell that has none.
    """
    problems: dict[tuple[str, str], list[dict[Any, Any]]] = {}
    cells: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    frame = inputs.cells.frame
    frame = frame[[base_name(family) in REAL for family in frame["family"]]]
    for row in frame[_READ].to_dict("records") if len(frame) else ():
        family, size, method = row["family"], row["size"], row["method"]
        problems.setdefault((family, size), []).append(row)
        cells.setdefault((family, size, method), []).append(row)
    known = {key: _Problem.of(rows) for key, rows in problems.items()}
    records = []
    for (family, size, method), rows in cells.items():
        problem, failed = known[family, size], rows[0]
        if failed["status"] == "unavailable":  # its library is not here: it refused nothing
            continue
        counted = [row for row in rows if row["role"] == "measured"]
        # A cell whose first call, or build, fails has no counted one: it fails on every seed.
        for row in counted or [failed | {"seed": seed} for seed in problem.seeds]:
            verdict = _verdict(row, problem)
            records.append((family, size, row["seed"], method, verdict, row["time.total.call"]))
    columns = ["family", "size", "seed", "method", "verdict", "seconds"]
    return pd.DataFrame.from_records(records, columns=columns)


def _verdict(row: dict[Any, Any], problem: _Problem) -> Verdict:
    status = str(row["status"])
    if status == "timeout":
        return "timeout"
    answered = status in ("ok", "not-converged")
    if answered and not problem.judged:
        return "not judged"
    if answered and (correct := _correct(row, problem)) is not None:
        return correct
    if status == "ok":
        return "silent"
    truly = status == "unsupported" or problem.degenerate
    return "refused truly" if truly else "refused falsely"


def _correct(row: dict[Any, Any], problem: _Problem) -> Verdict | None:
    if not problem.degenerate and float(row["accuracy.q.norm"]) >= _ZERO:
        cosine = _small(row["accuracy.q.one_minus_cos"], COSINE_RIGHT)
        return "right" if cosine and _small(row["accuracy.q.rel_l2"], ERROR_RIGHT) else None
    near = _small(row["objective_gap"], _GAP) and _small(row["primal_residual"], _GAP)
    return "solved" if near else None


def _small(value: Any, limit: float) -> bool:
    return bool(np.isfinite(value) and abs(float(value)) <= limit)


def render(inputs: Inputs) -> Table:
    """Render the counts of every verdict and both means of time."""
    found = judged(inputs)
    shown = [
        name
        for name in inputs.rows(methods(), *sorted(set(found["family"])))
        if name.key in set(found["method"])
    ]
    problems = len(found[["family", "size", "seed"]].drop_duplicates())
    times = _times(found, shown, inputs)

    def count(verdict: Verdict) -> Entry:
        def cell(place: Place) -> Cell:
            mine = found[found["method"] == place.method.key]
            number = int((mine["verdict"] == verdict).sum())
            bad = number and verdict in ("silent", "refused falsely")
            return Cell(str(number), float(number), tone="fail" if bad else "")

        return Column(dict(_COUNTS)[verdict], f"of {problems} problems"), cell

    def mean(key: str) -> Any:
        def cell(place: Place) -> Cell:
            value = times[key].get(place.method.key, float("nan"))
            return number_cell(value * 1e3, significant)

        return cell

    panel = grid(
        "table8-verdicts",
        "What became of the problems",
        [Place("", name) for name in shown],
        [
            method_entry(inputs.cells),
            *(count(verdict) for verdict, _ in _COUNTS),
            (Column(f"the {times['common']} that all have right", "ms"), mean("all")),
            (Column("all, others at the limit", "ms"), mean("priced")),
        ],
    )
    return TABLE.filled(_CAPTION, [panel] if shown else [], found)


def _times(found: pd.DataFrame, methods: list[MethodName], inputs: Inputs) -> dict[str, Any]:
    answered = found["verdict"].isin(["right", "solved"])
    keys = ["family", "size", "seed"]
    good = found[answered].pivot_table(index=keys, columns="method", values="seconds")
    every = pd.MultiIndex.from_frame(found[keys].drop_duplicates())
    good = good.reindex(every)
    broad = [key for key in good.columns if 2 * good[key].count() >= len(good)]
    common = good.dropna(subset=broad) if broad else good.iloc[:0]
    frame = inputs.cells.frame
    limits = pd.to_numeric(frame[frame["family"].isin(found["family"])]["time_limit_s"]).dropna()
    limit = 2.0 * float(limits.max()) if len(limits) else 2.0 * _LIMIT_S  # both passes
    some = {name.key for name in methods} & set(good.columns)
    return {
        "common": len(common),
        "all": {
            key: shifted_geometric_mean(common[key], _SHIFT_S)
            for key in some
            if len(common) and common[key].notna().all()
        },
        "priced": {
            name.key: shifted_geometric_mean(
                good[name.key].fillna(limit) if name.key in some else pd.Series(limit, index=every),
                _SHIFT_S,
            )
            for name in methods
        },
    }


TABLE = TableModule("table8", "Table 8: Real problems", 80, requests, render, suite="survey")
