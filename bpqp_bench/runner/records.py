"""From what came of a call to its measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.problem.instance import Size
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.measurement import Measurement, Role, Status, content_key
from bpqp_bench.runner.plan import Block, Cell

__all__ = ["Outcome", "Problem", "is_fatal", "make_measurement", "measurement_key"]

# The solver's own words for an answer that it stands by; "approximate" is that of a learned one.
_ANSWERED = ("solved", "approximate")
_FATAL = (
    *(Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.CRASH),
    *(Status.UNSUPPORTED, Status.UNAVAILABLE),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a build or a call.

    Attributes
    ----------
    status, cause, solver_status, iterations, info, forward, backward, peak_memory, posed
        As in `Measurement`.
    stage
        Where it failed: "build", "forward", …
    seconds
        Wall time that it took, also where it was ended.
    build_s
        Of a build.
    solution
        Residuals and errors of the forward pass, by the names of their fields.
    accuracy, reference
        As in `Measurement`.
    """

    status: Status
    cause: str = ""
    stage: str | None = None
    seconds: float = 0.0
    build_s: float | None = None
    forward: PassTime | None = None
    backward: PassTime | None = None
    solver_status: str = ""
    iterations: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    peak_memory: int | None = None
    posed: str | None = None
    solution: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Accuracy] = field(default_factory=dict)
    reference: Reference | None = None

    def held_to(self, limit_s: float) -> Outcome:
        """Return a timeout if a pass came back beyond the limit before it could be ended."""
        for name, part in (("forward", self.forward), ("backward", self.backward)):
            if part is not None and part.call > limit_s:
                cause = f"{name} took {part.call:.3g} s, longer than {limit_s:g} s"
                return replace(self, status=Status.TIMEOUT, cause=cause, stage=name)
        return self


@dataclass(frozen=True)
class Problem:
    """Identity of an instance that was drawn."""

    seed: int
    sha256: str


def is_fatal(status: Status, stage: object) -> bool:
    """Whether a cell ends with this outcome; after an error in a pass it goes on."""
    return status in _FATAL or (status != Status.OK and stage == "build")


def from_answer(meta: Mapping[str, Any], judged: Mapping[str, Any] | None) -> Outcome:
    """Read what a worker, and maybe the desk, said about a call that came back."""
    forward, backward = meta["forward"], meta["backward"]
    seconds = sum(part.call for part in (forward, backward) if part is not None)
    info = _plain(meta.get("info", {}))
    if meta["failed"] is not None:
        status, cause = meta["failed"]
    elif meta["solver_status"] in _ANSWERED:
        status, cause = Status.OK, ""
    else:
        status, cause = Status.NOT_CONVERGED, f"the solver says: {meta['solver_status']}"
    outcome = Outcome(
        status=Status(status),
        cause=cause,
        stage=None if meta["failed"] is None else cause.partition(":")[0],
        seconds=seconds,
        forward=forward,
        backward=backward,
        solver_status=meta.get("solver_status", ""),
        iterations=meta.get("iterations"),
        info=info,
        peak_memory=meta.get("peak"),
        posed=meta.get("posed"),
    )
    if judged is None:
        return outcome
    if judged["reason"] is not None:
        info = {**info, "no_reference": judged["reason"]}
    return replace(
        outcome,
        info=info,
        solution=judged["solution"],
        accuracy=judged["accuracy"],
        reference=judged["reference"],
    )


def measurement_key(block: Block, cell: Cell, sha256: str, role: Role, repetition: int) -> str:
    """Return the content key of one call."""
    return content_key(
        method=cell.method,
        family=block.family,
        size=block.size,
        instance=sha256,
        role=role,
        batch=block.batch,
        dtype=block.dtype,
        device=block.device,
        threads=block.threads,
        wrt=block.wrt,
        repetition=repetition,
    )


def make_measurement(
    *,
    key: str,
    block: Block,
    cell: Cell,
    problem: Problem,
    role: Role,
    order: int,
    outcome: Outcome,
    build_s: float | None,
    phases_split: bool,
    memory_limit: int,
) -> Measurement:
    """Put cell, instance and outcome together."""
    size = Size.parse(block.size)
    info = dict(outcome.info)
    if outcome.status != Status.OK and outcome.stage is not None:
        info["stage"] = outcome.stage
        info["seconds"] = outcome.seconds
    return Measurement(
        key=key,
        method=cell.method,
        label=cell.label,
        family=block.family,
        problem_class=block.problem_class,
        size=block.size,
        n=size.n,
        m=size.m,
        seed=problem.seed,
        instance=problem.sha256,
        role=role,
        status=outcome.status,
        batch=block.batch,
        dtype=block.dtype,
        device=block.device,
        threads=block.threads,
        wrt=block.wrt,
        posed=outcome.posed,
        start=str(info.get("start", "cold")),
        order=order,
        cause=outcome.cause,
        solver_status=outcome.solver_status,
        iterations=outcome.iterations,
        info=info,
        phases_split=phases_split,
        build_s=outcome.build_s if outcome.build_s is not None else build_s,
        forward=outcome.forward,
        backward=outcome.backward,
        time_limit_s=cell.build_limit_s if outcome.stage == "build" else cell.call_limit_s,
        peak_memory=outcome.peak_memory,
        memory_limit=memory_limit,
        accuracy=outcome.accuracy,
        primal_residual=outcome.solution.get("primal_residual"),
        dual_residual=outcome.solution.get("dual_residual"),
        complementarity=outcome.solution.get("complementarity"),
        objective_gap=outcome.solution.get("objective_gap"),
        solution_error=outcome.solution.get("solution_error"),
        reference=outcome.reference,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values: NumPy's numbers become numbers, anything else its text."""

    def convert(value: object) -> object:
        return value.item() if hasattr(value, "item") and getattr(value, "size", 2) == 1 \
            else str(value)  # fmt: skip

    result: dict[str, Any] = json.loads(json.dumps(dict(info), default=convert))
    return result
