"""What the tables of the survey share: how much is measured, which methods, cells by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from bpqp_bench.method.contract import Method
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column
from bpqp_bench.report.tables._common import Entry, Place
from bpqp_bench.results.cells import PASSES, Cells, Setting
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.statistics import largest, median

# Half of its inequalities bind; those of the paper's own QPs almost never do.
QP = "qp-active"


@dataclass(frozen=True)
class Scope:
    """How much of the survey's tables is measured under one profile.

    Attributes
    ----------
    sizes, together_sizes, together
        Sizes of table 7, those of them that are measured in batches too, and the size of a batch.
    batch_sizes, batches
        Of the table of batches.
    curve_sizes, tolerances, curve_methods
        Of work and precision: sizes by family; None: every method that has a tolerance.
    instances, budget_s
        Calls of a cell, and the seconds after which it ends.
    batched_calls
        The same for batches, of which each call is many problems.
    warmups
        Calls before counting, after the first; none for batches.
    call_limit_s, build_limit_s
        Wall time of one pass, and of one build.
    """

    sizes: tuple[str, ...]
    together_sizes: tuple[str, ...]
    together: int
    batch_sizes: tuple[str, ...]
    batches: tuple[int, ...]
    curve_sizes: Mapping[str, tuple[str, ...]]
    tolerances: tuple[float, ...]
    curve_methods: tuple[str, ...] | None
    instances: int
    batched_calls: int
    budget_s: float | None
    warmups: int
    call_limit_s: float
    build_limit_s: float


_SMOKE = Scope(
    sizes=("10x5",),
    together_sizes=("10x5",),
    together=8,
    batch_sizes=("10x5",),
    batches=(1, 8),
    curve_sizes={QP: ("10x5",)},
    tolerances=(1e-3, 1e-6, 1e-9),
    curve_methods=("bpqp-fast", "qplayer", "qpth"),
    instances=3,
    batched_calls=1,
    budget_s=0.2,
    warmups=0,
    call_limit_s=5.0,
    build_limit_s=15.0,
)
_STANDARD = Scope(
    sizes=("10x5", "50x10", "100x20", "500x100"),
    together_sizes=("10x5", "100x20"),
    together=64,
    batch_sizes=("10x5", "50x10", "200x50"),
    batches=(1, 8, 64, 256),
    curve_sizes={QP: ("100x20", "500x100"), "lp": ("100x20", "500x100")},
    tolerances=(1e-3, 1e-5, 1e-7, 1e-9),
    curve_methods=None,
    instances=10,
    batched_calls=3,
    budget_s=1.0,
    warmups=1,
    call_limit_s=4.0,
    build_limit_s=15.0,
)
_PAPER_SCOPE = replace(
    _STANDARD,
    together_sizes=_STANDARD.sizes,
    batch_sizes=("10x5", "50x10", "100x20", "200x50"),
    tolerances=(1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10),
    instances=50,
    batched_calls=10,
    budget_s=None,
    call_limit_s=600.0,
    build_limit_s=3600.0,
)
_SCOPES = {"smoke": _SMOKE, "standard": _STANDARD, "paper": _PAPER_SCOPE}

# Beside today's layers: ours, and one configuration of each library of the paper's comparison.
OURS = ("bpqp", "bpqp-fast")
_PAPER = ("exact-solve", "cvxpy", "qpth", "altdiff-vjp", "jaxopt-accurate")


def scope(profile: Profile) -> Scope:
    """Return how much a profile asks for."""
    return _SCOPES[profile.name]


@cache
def modern() -> tuple[str, ...]:
    """Names of today's layers with all their variants; of those that the folder holds."""
    registry = Registry()
    groups = {found.plugin.group for found in registry.methods.values()}
    return tuple(registry.group("modern")) if "modern" in groups else ()


@cache
def at_best() -> tuple[str, ...]:
    """Names of one configuration of every library, its best, with today's layers and ours."""
    registry = Registry()
    best = [name for name in modern() if registry.method(name).variant is None]
    return (*OURS, *best, "cvxpylayers-diffcp", *_PAPER)


def ask(
    profile: Profile,
    methods: Iterable[str],
    families: tuple[str, ...],
    sizes: tuple[str, ...],
    batch: int = 1,
) -> Request:
    """Ask for a part of the survey under the limits of a profile."""
    limits = scope(profile)
    return Request(
        methods=tuple(methods),
        families=families,
        sizes=sizes,
        instances=limits.instances if batch == 1 else limits.batched_calls,
        call_limit_s=limits.call_limit_s,
        build_limit_s=limits.build_limit_s,
        cell_budget_s=limits.budget_s,
        warmups=limits.warmups if batch == 1 else 0,
        batch=batch,
    )


def by_batch(inputs: Inputs) -> dict[int, Cells]:
    """Return the cells of the usual setting (float64, CPU, gradient of q) by size of the batch."""
    found: dict[int, Cells] = {}
    for cells in inputs.settings or (inputs.cells,):
        if cells.setting._replace(batch=1, threads=1) == Setting():
            found.setdefault(cells.setting.batch, cells)
    return dict(sorted(found.items()))


def rows(
    inputs: Inputs, asked: Iterable[str], cells: Iterable[Cells], family: str
) -> list[MethodName]:
    """Return the methods of a table that were measured on a family, in one batch or another.

    Those that it asked for come first, then those that no table asked for: a user's own.
    """
    labels = {key: one.label(key) or key for one in cells for key in one.methods(family)}
    named = [name for name in inputs.names.methods(asked) if name.key in labels]
    known = {name.key for name in (*named, *inputs.names.methods(inputs.requested))}
    return [MethodName(name.name, name.key, labels[name.key]) for name in named] + [
        MethodName(key, key, label) for key, label in labels.items() if key not in known
    ]


def declared_entry(inputs: Inputs, name: str, show: Callable[[type[Method]], str]) -> Entry:
    """Return a column of what the methods declare, "n/a" for one that the registry lacks."""

    def cell(place: Place) -> Cell:
        declared = inputs.names.declared(place.method.key)
        return Cell("n/a", tone="muted") if declared is None else Cell(show(declared))

    return Column(name, numeric=False), cell


def batch_entry(inputs: Inputs) -> Entry:
    """Return the column that says whether a method takes a batch in one call."""
    return declared_entry(inputs, "batch", lambda cls: "one call" if cls.batched else "loop")


def record(cells: Mapping[int, Cells], batch: int, place: Place) -> dict[str, Any]:
    """Return what is known of one cell, in seconds for one instance and bytes."""
    one, key = cells[batch], place.key
    outcome, gradient = one.outcome(*key), one.gradient(*key)
    found: dict[str, Any] = {
        **{"family": place.family, "size": place.size, "batch": batch},
        **{"method": place.method.key, "label": place.method.label, "outcome": outcome.state},
        **{"calls": outcome.n, "gradient": gradient.mark, "worst_cosine": gradient.worst_cosine},
        "worst_error": gradient.worst_error,
    }
    for which in PASSES:
        found[f"{which}_s"] = median(one.numbers(*key, f"time.{which}.call"))
    for name in ("build_s", "peak_memory"):
        found[name] = largest(one.numbers(*key, name))
    return found | {"notes": "; ".join(outcome.notes)}
