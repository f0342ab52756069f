"""The one place where a forward and a backward call are measured.

Runner, conformance check, regression check and asv benchmarks all call `measure_call`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.method.contract import Data, FrameworkArray, Method
from bpqp_bench.method.data import synchronizer, to_numpy
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.problem.instance import Instance, Matrix
from bpqp_bench.problem.solution import Solution

# Relative violation of the constraints up to which a point whose library reports no status is a
# solution, and beyond which it is none at all.
_SOLVED, _NO_POINT = 1e-6, 1e-2

_ARRAYS = ("z", "nu", "lam", "mu")
Report = Callable[[str, PassTime | None], None]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method answered to one problem: copies in NumPy.

    Attributes
    ----------
    solution
        Arrays without a batch dimension; ``status`` is one string.
    gradients
        By name.
    """

    solution: Solution
    gradients: Mapping[str, Matrix]


@dataclass(frozen=True, eq=False)
class Call:
    """A measured forward and backward call.

    Attributes
    ----------
    answers
        One per problem of the batch.
    forward, backward
        Times of the whole batch.
    """

    answers: tuple[Answer, ...]
    forward: PassTime
    backward: PassTime

    @property
    def solution(self) -> Solution:
        """The first problem's solution."""
        return self.answers[0].solution

    @property
    def gradients(self) -> Mapping[str, Matrix]:
        """The first problem's gradients."""
        return self.answers[0].gradients


def clock_for(method: Method) -> PhaseClock:
    """Return a clock that waits for the method's device before every reading."""
    return PhaseClock(synchronizer(method.device))


def measure_call(
    method: Method,
    data: Sequence[Data],
    upstream: Sequence[FrameworkArray],
    clock: PhaseClock,
    report: Report = lambda stage, spent: None,
) -> Call:
    """Measure one forward and one backward call, the garbage collector off.

    A method that takes no batches is called once per problem, forward and backward, and the times
    are added up.

    Parameters
    ----------
    method
        Built for this family and size.
    data, upstream
        From `bpqp_bench.method.data`.
    clock
        From `clock_for`.
    report
        Called with ("forward", None) when a pass begins and with ("other", its time so far) when it
        has ended; "backward" likewise.

    Raises
    ------
    Exception
        Whatever the method raises, and a TypeError if what it returns is no answer.
    """
    answers: list[Answer] = []
    times: dict[str, PassTime | None] = {"forward": None, "backward": None}
    gc.collect()
    gc.disable()
    try:
        for one, v in zip(data, upstream, strict=True):
            report("forward", None)
            found, spent = clock.measure(lambda: method.forward(one, clock))  # noqa: B023
            times["forward"] = spent = _sum(times["forward"], spent)
            report("other", spent)
            # Copies before the backward pass, which may reuse the arrays.
            solution = _copied(found)
            report("backward", None)
            gradients, spent = clock.measure(lambda: method.backward(v, clock))  # noqa: B023
            times["backward"] = spent = _sum(times["backward"], spent)
            report("other", spent)
            named = _named(gradients, method.wrt)
            answers += _split(_copied(method.describe(solution)), named, one)
    finally:
        gc.enable()
    assert times["forward"] is not None
    assert times["backward"] is not None
    return Call(tuple(answers), times["forward"], times["backward"])


def answer_fault(answer: Answer, instance: Instance, wrt: Sequence[str]) -> tuple[str, str] | None:
    """Return what is wrong with an answer's form: ("wrong-shape" or "non-finite", why), or None."""
    for name in wrt:
        if name not in answer.gradients:
            return "wrong-shape", f"backward returned no gradient of {name}"
    sizes = {"z": instance.n, "nu": instance.neq, "lam": instance.nineq, "mu": len(instance.cones)}
    parts = [(name, getattr(answer.solution, name), (size,)) for name, size in sizes.items()]
    parts += [
        (f"gradient of {name}", answer.gradients[name], getattr(instance, name).shape)
        for name in wrt
    ]
    for name, value, shape in parts:
        if value is None and name != "z":
            continue
        if value.shape != shape:
            return "wrong-shape", f"{name} has shape {value.shape}, expected {shape}"
        stored = value.data if sp.issparse(value) else value
        if stored.dtype.kind != "f":
            return "wrong-shape", f"{name} holds {stored.dtype}, not real numbers"
        wrong = int(np.count_nonzero(~np.isfinite(stored)))
        if wrong:
            return "non-finite", f"{name} has {wrong} of {stored.size} entries not finite"
    return None


def judged_status(solution: Solution, instance: Instance) -> str:
    """Return the status: the method's, or where it has none that of the constraints' residual."""
    if solution.status is not None:
        return str(solution.status)
    scale = 1.0 + max(np.abs(v).max(initial=0.0) for v in (instance.b, instance.h))
    residual = instance.residuals(solution.z).primal / scale
    if residual < _SOLVED:
        return "solved"
    if residual > _NO_POINT:
        return f"no feasible point (relative residual {residual:.1e})"
    return f"inaccurate (relative residual {residual:.1e})"


def _sum(before: PassTime | None, spent: PassTime) -> PassTime:
    if before is None:
        return spent
    return PassTime(
        **{f.name: getattr(before, f.name) + getattr(spent, f.name) for f in fields(PassTime)}
    )


def _copied(solution: Solution) -> Solution:
    if not isinstance(solution, Solution):
        raise TypeError(f"forward returned {type(solution).__name__}, not a Solution")
    copies: dict[str, Any] = {}
    for name in _ARRAYS:
        value = getattr(solution, name)
        copies[name] = None if value is None and name != "z" else _array(name, value)
    return replace(solution, **copies)


def _named(gradients: Mapping[str, FrameworkArray], wrt: Sequence[str]) -> dict[str, Matrix]:
    if not isinstance(gradients, Mapping):
        raise TypeError(f"backward returned {type(gradients).__name__}, not a mapping")
    found = {
        name: _array(f"gradient of {name}", gradients[name]) for name in wrt if name in gradients
    }
    P = found.get("P")
    if P is not None and P.ndim >= 2 and P.shape[-1] == P.shape[-2]:
        # P and Pᵀ are the same problem, so that only the symmetric part says anything.
        found["P"] = 0.5 * (P + (P.T if P.ndim == 2 else P.swapaxes(-1, -2)))
    return found


def _array(name: str, value: FrameworkArray) -> Matrix:
    try:
        return to_numpy(value)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _split(solution: Solution, gradients: Mapping[str, Matrix], data: Data) -> list[Answer]:
    """Take a batch apart; a part of the wrong length stays whole and shows as a wrong shape."""
    if data.batch == 1:
        return [Answer(solution, gradients)]

    def part(value: Matrix | None, i: int) -> Any:
        fits = value is not None and value.ndim > 0 and len(value) == data.batch
        return value[i] if value is not None and fits else value

    def status(i: int) -> Any:
        given = solution.status
        return given[i] if isinstance(given, tuple) and len(given) == data.batch else given

    return [
        Answer(
            replace(
                solution,
                status=status(i),
                **{name: part(getattr(solution, name), i) for name in _ARRAYS},
            ),
            {name: part(value, i) for name, value in gradients.items()},
        )
        for i in range(data.batch)
    ]
