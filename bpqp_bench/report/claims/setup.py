"""What differs from the paper's setup, and where the time of a call goes: words for verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bpqp_bench.method.phase_clock import PHASES
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.text import significant

CLOCKS = (
    "clock: the authors timed OSQP's solve() alone for BPQP and the inversion alone for Exact, but "
    "whole calls for CVXPY and qpth; the reading on the authors' clock does the same"
)

_PAPER_CPU = "16-core Xeon E5-2630 v3 at 2.40 GHz"


def machine(inputs: Inputs) -> str:
    """Compare the machines in one sentence."""
    cpu = _first(inputs.environment, "cpu", "cpu_model", "processor") or "a CPU not recorded"
    cores = _first(inputs.environment, "cores", "cpu_count")
    threads = sorted({str(count) for count in inputs.frame.get("threads", pd.Series(dtype=int))})
    here = f"{cpu}{f', {cores} cores' if cores else ''}"
    used = f", {' or '.join(threads)} thread(s) per method" if threads else ""
    return f"machine: {here}{used}; the paper's is a {_PAPER_CPU}, threads not stated"


def versions(inputs: Inputs, *libraries: str) -> tuple[str, ...]:
    """Name the versions of libraries that a claim depends on; the paper states none."""
    known = inputs.environment.get("versions") or inputs.environment.get("libraries") or {}
    if not isinstance(known, Mapping):
        return ()
    found = [f"{name} {known[name]}" for name in libraries if name in known]
    return (f"versions here: {', '.join(found)}; the paper states none",) if found else ()


def phase_story(inputs: Inputs, family: str, size: str, name: str) -> str:
    """Say where the mean time of both passes goes, in one sentence; empty if not measured."""
    method = inputs.names.method(name)
    label = inputs.cells.label(method.key) or method.label
    parts: list[str] = []
    for side in ("forward", "backward"):
        means = _phases(inputs, family, size, method.key, side)
        call = sum(means.values())
        if call > 0:
            shares = ", ".join(
                f"{phase} {mean / call:.0%}" for phase, mean in means.items() if mean / call >= 0.01
            )
            parts.append(f"{side} {significant(call * 1e3)} ms ({shares})")
    if not parts:
        return ""
    tail = "" if inputs.cells.split(method.key) else "; the library's call cannot be split"
    return f"{label} on {family} at {size}: {'; '.join(parts)}{tail}."


def phase_share(inputs: Inputs, family: str, size: str, name: str) -> float | None:
    """Return the share of both passes that is not the solve phase; None if not measured."""
    key = inputs.names.method(name).key
    sides = [_phases(inputs, family, size, key, side) for side in ("forward", "backward")]
    call = sum(sum(means.values()) for means in sides)
    return 1.0 - sum(means["solve"] for means in sides) / call if call > 0 else None


def _phases(inputs: Inputs, family: str, size: str, key: str, side: str) -> dict[str, float]:
    return {
        phase: float(inputs.cells.values(family, size, key, f"{side}.{phase}").mean())
        for phase in (*PHASES, "other")
    }


def _first(environment: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        value = environment.get(name)
        if value not in (None, ""):
            if isinstance(value, Mapping):
                return _first(value, "model", "name", "brand", "physical", "logical", "count")
            return value
    return None
