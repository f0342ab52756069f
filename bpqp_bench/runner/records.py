"""From what came of a call to its measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.problem.instance import Size
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.measurement import Measurement, Role, Status, content_key
from bpqp_bench.runner.messages import Called, Judged
from bpqp_bench.runner.plan import Block, Cell

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
    build_s, phases_split
        Of a build, as in `Measurement`.
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
    phases_split: bool = True
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


def from_reply(called: Called, judged: Judged | None) -> Outcome:
    """Read what a worker, and maybe the judge, said about a call that came back."""
    passes = [part for part in (called.forward, called.backward) if part is not None]
    info, statuses = called.info, called.statuses
    open_ends = [status for status in statuses if status not in _ANSWERED]
    said = open_ends[0] if open_ends else (statuses[0] if statuses else "")
    if called.failed is not None:
        status, cause = Status(called.failed.status), called.failed.cause
    elif not open_ends:
        status, cause = Status.OK, ""
    else:
        many = f" ({len(open_ends)} of {len(statuses)})" if len(statuses) > 1 else ""
        status, cause = Status.NOT_CONVERGED, f"the solver says: {said}{many}"
    if len(set(statuses)) > 1:
        info = {**info, "statuses": list(statuses)}
    if judged is not None and judged.reason:
        info = {**info, "no_reference": judged.reason}
    return Outcome(
        status=status,
        cause=cause,
        stage=None if called.failed is None else cause.partition(":")[0],
        seconds=sum(part.call for part in passes),
        forward=called.forward,
        backward=called.backward,
        solver_status=said,
        iterations=called.iterations,
        info=info,
        peak_memory=called.peak,
        posed=called.posed,
        solution={} if judged is None else judged.solution,
        accuracy={} if judged is None else judged.accuracy,
        reference=None if judged is None else judged.reference,
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
        upstream=block.upstream,
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
