"""One measured call: the record that the runner writes and every report reads.

It is the seam between measuring and reporting. Fields are plain JSON values; times are seconds,
memory bytes. A field that does not apply is None.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.store import json_records

SCHEMA = 2


class Status(StrEnum):
    """How a call ended."""

    OK = "ok"
    """Finite gradients of the right shape came back and the solver called itself done."""
    NOT_CONVERGED = "not-converged"
    """Answers came back, but the solver did not call them solved."""
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    CRASH = "crash"
    """The worker died, by a signal or an exit."""
    ERROR = "error"
    """The method raised."""
    NON_FINITE = "non-finite"
    WRONG_SHAPE = "wrong-shape"
    UNSUPPORTED = "unsupported"
    """The method says why it cannot take the problem."""
    UNAVAILABLE = "unavailable"
    """A library that it needs is not installed."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer with times and an accuracy."""
        return self in (Status.OK, Status.NOT_CONVERGED)


Role = Literal["first", "warmup", "measured"]


@dataclass(frozen=True)
class Measurement:
    """One forward and backward call of one method on one instance, with its identity.

    Attributes
    ----------
    key
        Content key: what makes two measurements the same one.
    method, label
        Canonical specification and printed name.
    family, problem_class, size, n, m, seed, instance
        The problem; ``instance`` is its SHA-256 (of what the runner handed out), ``posed`` that of
        the problem which the method really solved when it is another one, else None.
    batch, dtype, device, threads, wrt, upstream
        The rest of the cell; ``upstream`` says what ∂L/∂z is, "ones" or "random".
    role
        "first" call of this method on this family and size, further "warmup", or "measured".
    start
        "cold", or "warm" where the method reuses the previous solution.
    order
        Position of this method in the random order of this instance.
    status, cause
        Outcome, and one line on why it is not "ok".
    solver_status, iterations, info
        What the method's solver said.
    phases_split
        False if the whole call is counted as solve because the library cannot be split.
    build_s
        Cost of `build` for this family and size.
    forward, backward
        Times of the passes in seconds.
    time_limit_s
        Limit on one call that was in force.
    peak_memory, memory_limit
        Peak resident memory of the worker during the call, and the limit in force, bytes.
    accuracy
        By parameter name.
    primal_residual, dual_residual, complementarity, objective_gap, solution_error
        Of the forward pass; the gap relative to 1 + |optimal value|, the error relative to ‖z*‖.
    reference
        Certificate of the reference.
    at
        Time of day, ISO 8601, UTC.
    """

    key: str
    method: str
    label: str
    family: str
    problem_class: str
    size: str
    n: int
    m: int
    seed: int
    instance: str
    role: Role
    status: Status
    batch: int = 1
    dtype: str = "float64"
    device: str = "cpu"
    threads: int = 1
    wrt: tuple[str, ...] = ("q",)
    upstream: str = "ones"
    posed: str | None = None
    start: str = "cold"
    order: int = 0
    cause: str = ""
    solver_status: str = ""
    iterations: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    phases_split: bool = True
    build_s: float | None = None
    forward: PassTime | None = None
    backward: PassTime | None = None
    time_limit_s: float | None = None
    peak_memory: int | None = None
    memory_limit: int | None = None
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)
    primal_residual: float | None = None
    dual_residual: float | None = None
    complementarity: float | None = None
    objective_gap: float | None = None
    solution_error: float | None = None
    reference: Reference | None = None
    at: str = ""
    schema: int = SCHEMA


def method_of_schema_1(method: str) -> str:
    """Return today's key of a method as results of schema 1 name it.

    BPQP's defaults were OSQP in both passes then; they are the active-set method and a direct
    backward pass now, and a key leaves out what is the default.
    """
    base, _, options = method.partition("[")
    if base != "bpqp":
        return method
    named = dict(option.split("=", 1) for option in options.rstrip("]").split(",") if option)
    named = {"backward": "osqp", "forward": "osqp"} | named
    today = {"backward": "direct", "forward": "active-set"}
    kept = sorted(f"{name}={value}" for name, value in named.items() if today.get(name) != value)
    return f"{base}[{','.join(kept)}]" if kept else base


def _from_schema_1(data: dict[str, Any]) -> dict[str, Any]:
    # It had no upstream gradient but ones, which is the default.
    return data | {"method": method_of_schema_1(str(data.get("method", "")))}


MEASUREMENT = json_records(Measurement, "measurement", "key", SCHEMA, upgrade=_from_schema_1)


def content_key(
    *,
    method: str,
    family: str,
    size: str,
    instance: str,
    role: Role,
    batch: int = 1,
    dtype: str = "float64",
    device: str = "cpu",
    threads: int = 1,
    wrt: tuple[str, ...] = ("q",),
    repetition: int = 0,
) -> str:
    """Identity of a measurement by content, so that order, selection and splitting don't matter."""
    parts = (method, family, size, instance, role, batch, dtype, device, threads, wrt, repetition)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
