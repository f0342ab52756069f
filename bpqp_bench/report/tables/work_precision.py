"""Work and precision: time and error of every method at every tolerance."""

from __future__ import annotations

from functools import cache

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.model import Cell, Column, Panel, Table, TableModule
from bpqp_bench.report.tables._common import Entry, Place, grid, method_entry
from bpqp_bench.report.tables._survey import ask, at_best, scope
from bpqp_bench.report.text import significant, tiny
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

# Tolerances that make a curve; fewer are measured for other reasons.
_AT_LEAST = 3
# By method and tolerance: median error and median time in seconds.
Point = tuple[float, float]

_CAPTION = (
    "Median total time for one instance (ms, protocol call) at a method's tolerance, and below it "
    "the median relative error of the gradient. Each method's tolerance means something else: "
    "compare times where the errors are alike, as the figure of work and precision does. Methods "
    "without a tolerance are not here."
)


@cache
def _methods(names: tuple[str, ...], tolerances: tuple[float, ...]) -> tuple[str, ...]:
    registry = Registry()
    return tuple(text for name in names for text in registry.at_tolerances(name, tolerances))


def requests(profile: Profile) -> tuple[Request, ...]:
    """Ask for every method that has a tolerance, at several values of it, on QP and LP."""
    limits = scope(profile)
    # BPQP's active-set method ends at the exact solution whatever its tolerance.
    every = tuple(name for name in at_best() if name != "bpqp")
    methods = _methods(limits.curve_methods or every, limits.tolerances)
    return tuple(
        ask(profile, methods, (family,), sizes) for family, sizes in limits.curve_sizes.items()
    )


def points(inputs: Inputs, family: str, size: str) -> dict[MethodName, dict[float, Point]]:
    """Return error and time by tolerance, for each method with at least three tolerances."""
    found: dict[MethodName, dict[float, Point]] = {}
    for key in inputs.cells.methods(family):
        split = inputs.names.at_tolerance(key)
        error = inputs.cells.regular(family, size, key, "accuracy.q.rel_l2")
        # A tolerance of zero stands for the library's own default.
        if split is not None and split[1] > 0 and not error.empty:
            time = inputs.cells.regular(family, size, key, "time.total.call")
            at = found.setdefault(split[0], {})
            at[split[1]] = (float(error.median()), float(time.median()))
    return {
        method: dict(sorted(curve.items(), reverse=True))
        for method, curve in found.items()
        if len(curve) >= _AT_LEAST
    }


def render(inputs: Inputs) -> Table:
    """Render a panel for each family and size: methods down, tolerances across."""
    panels: list[Panel] = []
    records = []
    for family in inputs.cells.families():
        for size in inputs.cells.sizes(family):
            if found := points(inputs, family, size):
                panels.append(_panel(inputs, family, size, found))
                records += [
                    {"family": family, "size": size, "method": method.key, "label": method.label}
                    | {"tolerance": tolerance, "error": error, "total_s": time}
                    for method, curve in found.items()
                    for tolerance, (error, time) in curve.items()
                ]
    return TABLE.filled(_CAPTION, panels, records)


def _panel(
    inputs: Inputs, family: str, size: str, found: dict[MethodName, dict[float, Point]]
) -> Panel:
    tolerances = sorted({one for curve in found.values() for one in curve}, reverse=True)

    def entry(tolerance: float) -> Entry:
        def cell(place: Place) -> Cell:
            point = found[place.method].get(tolerance)
            if point is None:
                return Cell("n/a", tone="muted")
            return Cell(significant(1e3 * point[1]), 1e3 * point[1], below=tiny(point[0]))

        return Column(f"{tolerance:.0e}".replace("e-0", "e-").replace("-", "−"), "Tolerance"), cell

    return grid(
        f"work-precision-{family}-{size}",
        f"{family}, {size}",
        [Place(family, method, size) for method in found],
        [
            method_entry(inputs.cells),
            *(entry(tolerance) for tolerance in tolerances),
        ],
    )


TABLE = TableModule("work-precision", "Work and precision", 85, requests, render, suite="survey")
