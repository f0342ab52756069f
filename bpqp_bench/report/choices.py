"""What the first screen of the page chooses from: every cell of a run in every setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.tables.accuracy import accuracy_families
from bpqp_bench.report.tables.efficiency import METHODS
from bpqp_bench.report.text import outcome_text
from bpqp_bench.results.cells import Cells
from bpqp_bench.statistics import largest, median

# After Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light.
_KNOWN = {
    "bpqp": "#D55E00",
    "exact": "#000000",
    "cvxpy": "#0072B2",
    "qpth": "#009E73",
    "altdiff": "#CC79A7",
    "jaxopt": "#56B4E9",
    "dc3": "#E69F00",
}
# Tol, "Colour schemes" (SRON technical note, 2021), scheme "muted", for every other method.
_OTHERS = ("#332288", "#44AA99", "#882255", "#999933", "#117733", "#AA4499", "#CC6677", "#88CCEE")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")


def looks(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and shape of every method, by key.

    The colour names the method and the shape its variant; methods that the suite does not know
    get colours of their own, and other shapes where those are used up.
    """
    found: dict[str, tuple[str, str]] = {}
    variants: dict[str, int] = {}
    others: list[str] = []
    for key in dict.fromkeys(keys):
        base = key.partition("[")[0]
        # exact-solve is a method of its own and a variant of exact to the reader.
        group = next((name for name in _KNOWN if base.startswith(name)), base)
        if group not in _KNOWN and group not in others:
            others.append(group)
        place = others.index(group) if group in others else 0
        colour = _KNOWN.get(group) or _OTHERS[place % len(_OTHERS)]
        turn = variants.get(group, 0) + place // len(_OTHERS)
        variants[group] = variants.get(group, 0) + 1
        found[key] = (colour, _SHAPES[turn % len(_SHAPES)])
    return found


def choices(inputs: Inputs) -> dict[str, Any]:
    """Return every cell as JSON values: times of an instance in ms, worst errors, build, memory."""
    every = inputs.settings or (inputs.cells,)
    known = [inputs.names.method(name).key for name in METHODS]
    measured = [key for cells in every for key in cells.methods(*cells.families())]
    look = looks([*known, *measured])
    labels = {
        key: next(filter(None, (cells.label(key) for cells in every)), key) for key in measured
    }
    families = [family for cells in every for family in cells.families()]
    names = accuracy_families(inputs)
    for family in families:
        label = inputs.names.family_label(family).replace("[fixed=true]", "(fixed data)")
        names.setdefault(family, label)
    return {
        "families": {family: names[family] for family in _order(families, list(names))},
        "methods": {
            key: {
                "label": _short(labels, key),
                "colour": look[key][0],
                "shape": look[key][1],
            }
            for key in _order(measured, known)
        },
        "cells": _columns(
            _record(cells, *key)
            for cells in every
            for key in sorted(cells.keys(), key=lambda key: key[0])
        ),
    }


def _columns(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return records as columns; a column of few values as those and their places."""
    found = list(records)
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in found for name in record):
        column = [record.get(name) for record in found]
        places = {value: at for at, value in enumerate(dict.fromkeys(column))}
        few = len(places) < len(column) / 4
        columns[name] = {"of": [*places], "at": [places[v] for v in column]} if few else column
    return columns


def _order(present: Iterable[str], first: list[str]) -> list[str]:
    there = dict.fromkeys(present)
    return [name for name in first if name in there] + [name for name in there if name not in first]


def _short(labels: dict[str, str], key: str) -> str:
    same = [other for other, label in labels.items() if label == labels[key]]
    return labels[key] if len(same) == 1 else f"{labels[key]} ({key})"


def _record(cells: Cells, family: str, size: str, method: str) -> dict[str, Any]:
    key = (family, size, method)
    outcome, gradient = cells.outcome(*key), cells.gradient(*key)
    record: dict[str, Any] = {
        **{"family": family, "size": size, "n": int(size.partition("x")[0]), "method": method},
        **{"batch": cells.setting.batch, "dtype": cells.setting.dtype},
        **{"device": cells.setting.device, "count": outcome.n, "mark": gradient.mark},
        **{"late": outcome.timeouts, "why": "; ".join(outcome.notes)},
        "class": cells.problem_class(family),
    }
    if outcome.state != "measured":
        return record | {"why": record["why"] or outcome_text(outcome)}
    for which in ("total", "forward", "backward"):
        record[which] = _digits(median(cells.numbers(*key, f"time.{which}.call")) * 1e3)
    build, memory = (largest(cells.numbers(*key, name)) for name in ("build_s", "peak_memory"))
    return record | {
        "cosine": _digits(gradient.worst_cosine),
        "error": _digits(gradient.worst_error),
        "build": _digits(build),
        "memory": _digits(memory / 2**20),
    }


def _digits(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
