"""Synthetic runs for the tests of the report: several methods, and everything that can go wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.report.inputs import Inputs, Names
from bpqp_bench.results.cells import Cells
from bpqp_bench.results.measurement import MEASUREMENT, Measurement, content_key
from bpqp_bench.runner.profiles import Profile, profile

# Factor on the time of bpqp, by registry name.
SPEEDS = {
    "bpqp": 1.0,
    "bpqp-direct": 0.4,
    "exact": 8.0,
    "exact-solve": 2.0,
    "cvxpy": 30.0,
    "qpth": 5.0,
    "altdiff": 3.0,
    "jaxopt": 6.0,
}
LABELS = {
    "bpqp": "BPQP",
    "bpqp-direct": "BPQP (direct backward)",
    "exact": "Exact",
    "exact-solve": "Exact (solve)",
    "cvxpy": "CVXPY",
    "cvxpy-lp0": "CVXPY (ε = 0)",
    "qpth": "qpth/OptNet",
    "altdiff": "Alt-Diff",
    "jaxopt": "JAXOpt",
}


def pass_time(call: float) -> PassTime:
    return PassTime(
        call=call,
        prepare=0.1 * call,
        setup=0.3 * call,
        solve=0.5 * call,
        extract=0.05 * call,
        other=0.05 * call,
    )


def measurement(
    method: str = "bpqp",
    family: str = "qp",
    size: str = "10x5",
    seed: int = 0,
    seconds: float = 1e-3,
    **changes: Any,
) -> Measurement:
    n, m = (int(part) for part in size.split("x"))
    instance = f"{family}-{size}-{seed}"
    made = Measurement(
        key=content_key(
            method=method,
            family=family,
            size=size,
            instance=instance,
            role=changes.get("role", "measured"),
        ),
        method=method,
        label=LABELS.get(method, method),
        family=family,
        problem_class="socp" if family.startswith("socp") else family.partition("-")[0],
        size=size,
        n=n,
        m=m,
        seed=seed,
        instance=instance,
        role="measured",
        status="ok",
        forward=pass_time(seconds),
        backward=pass_time(0.5 * seconds),
        build_s=0.01,
        peak_memory=200 * 2**20,
        time_limit_s=30.0,
        accuracy={"q": Accuracy(1e-12, 1e-6, 1e-5, 10.0)},
        primal_residual=1e-9,
        dual_residual=1e-9,
        complementarity=1e-10,
        objective_gap=1e-9,
        solution_error=1e-8,
        reference=Reference(
            False, "", n_active=seed % 3, margin=0.1, condition=1e3, residual=1e-15
        ),
        phases_split=method != "cvxpy",
        at="2026-01-01T00:00:00Z",
    )
    return replace(made, **changes)


def failure(status: str, cause: str = "", **identity: Any) -> Measurement:
    return measurement(
        **identity,
        status=status,
        cause=cause,
        forward=None,
        backward=None,
        accuracy={},
        peak_memory=None,
        primal_residual=None,
    )


def to_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """The tidy frame, as documented: one column per field, nested ones joined by a dot."""
    records = []
    for made in measurements:
        record: dict[str, Any] = {}
        for name, value in asdict(made).items():
            _flatten(record, name, value)
        records.append(record)
    return pd.DataFrame.from_records(records)


def _flatten(record: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(record, f"{name}.{key}", inner)
    else:
        record[name] = value


def sample(
    families: Sequence[str] = ("qp", "lp", "socp"),
    sizes: Sequence[str] = ("10x5", "50x10", "100x20"),
    instances: int = 6,
    methods: Sequence[str] = tuple(SPEEDS),
) -> list[Measurement]:
    """A run in which Alt-Diff can't do SOCP, CVXPY times out at the last size, and so on."""
    rng = np.random.default_rng(0)
    found: list[Measurement] = []
    for family in families:
        for size in sizes:
            n = int(size.split("x")[0])
            for seed in range(instances):
                drift = float(rng.lognormal(0, 0.2))
                for method in methods:
                    identity = {"method": method, "family": family, "size": size, "seed": seed}
                    seconds = 1e-5 * n**1.5 * SPEEDS.get(method, 2.0) * drift
                    seconds *= float(rng.lognormal(0, 0.05))
                    if method == "altdiff" and family == "socp":
                        if seed == 0:
                            cause = "SOCP: Alt-Diff is derived for polyhedral constraints"
                            found.append(failure("unsupported", cause, **identity, role="first"))
                    elif method == "cvxpy" and size == sizes[-1]:
                        if seed == 0:
                            found.append(
                                failure("timeout", "> 30 s in forward", **identity, role="first")
                            )
                    elif method == "qpth" and seed == 1:
                        found.append(failure("error", "LU of a singular matrix", **identity))
                    elif method == "jaxopt":
                        wrong = Accuracy(2e-3, 0.06, 0.6, 10.0)
                        found.append(
                            measurement(
                                **identity,
                                seconds=seconds,
                                status="not-converged",
                                solver_status="iteration limit",
                                accuracy={"q": wrong},
                            )
                        )
                    else:
                        found.append(measurement(**identity, seconds=seconds))
    return found


def inputs(
    measurements: Sequence[Measurement], plan: Profile | str | None = None, **more: Any
) -> Inputs:
    chosen = profile(plan) if isinstance(plan, str) else plan
    return Inputs(cells=Cells(to_frame(measurements)), names=Names(None), profile=chosen, **more)


def full_sample(plan: str = "smoke") -> list[Measurement]:
    """Whatever every table of a profile asks for, two instances of each, plus the failures."""
    from bpqp_bench.report.tables import all_requests

    chosen = profile(plan)
    found = {made.key: made for made in sample(sizes=chosen.sizes, instances=4)}
    rng = np.random.default_rng(1)
    for request in all_requests(chosen):
        for family in request.families:
            for size in request.sizes:
                for seed in range(min(request.instances, 3)):
                    for method in request.methods:
                        n = int(size.split("x")[0])
                        made = measurement(
                            method=method,
                            family=family,
                            size=size,
                            seed=seed,
                            seconds=1e-5 * n**1.5 * SPEEDS.get(method, 2.0) * rng.lognormal(0, 0.2),
                        )
                        if (method, family) not in {("altdiff", "socp"), ("cvxpy", "socp")}:
                            found.setdefault(made.key, made)
    return list(found.values())


def write_run(directory: Path, runs: list[Measurement], plan: str = "smoke") -> Path:
    directory.mkdir(parents=True)
    lines = "".join(f"{MEASUREMENT.encode(made).decode()}\n" for made in runs)
    (directory / "measurements.jsonl").write_text(lines, encoding="utf-8")
    (directory / "config.json").write_text(json.dumps({"profile": plan}), encoding="utf-8")
    machine = {"cpu": "Imaginary", "cores": 2, "memory": 2**34, "threads": 1}
    (directory / "environment.json").write_text(json.dumps(machine), encoding="utf-8")
    return directory
