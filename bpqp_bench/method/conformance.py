"""Conformity test of one method adapter: what ``bpqp-bench check METHOD`` prints.

It runs the adapter on small instances of every class, in this process. The limits on accuracy are
wide on purpose: they tell a wrong sign, a missing factor or a lost constraint from an answer, and
leave it to the tables to say how accurate the answer is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import BenchError, InstanceError, MethodError, SpecError
from bpqp_bench.method.choice import MethodChoice
from bpqp_bench.method.contract import Method
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.problem.family import TEMPLATE_SEED, FamilyChoice
from bpqp_bench.problem.instance import DATA_NAMES, PROBLEM_CLASSES, Array, Instance, Matrix, Size
from bpqp_bench.problem.solution import Solution
from bpqp_bench.reference import NoReferenceError, ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import gradient_accuracy, solution_accuracy

__all__ = [
    "COSINE_LIMIT",
    "ERROR_LIMIT",
    "REPEAT_LIMIT",
    "SOLUTION_LIMIT",
    "CheckResult",
    "check_method",
]

SOLUTION_LIMIT = 0.1  # ‖z − z*‖ / ‖z*‖
COSINE_LIMIT = 0.1  # 1 − cosine similarity of a gradient to its reference
ERROR_LIMIT = 0.5  # relative L2 error of a gradient; catches a factor of two, which no cosine does
REPEAT_LIMIT = 1e-9  # relative difference between two answers to one question

_FAMILIES = ("qp", "qp-active", "lp", "socp", "socp-robust")
_SIZE = Size(10, 5)
_INFEASIBLE = re.compile("feasib", re.IGNORECASE)


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, eq=False)
class _Answer:
    """Copies of what one forward and backward call returned, with their times."""

    solution: Solution
    gradients: Mapping[str, Matrix]
    forward: PassTime
    backward: PassTime


def check_method(
    choice: MethodChoice, families: Callable[[str], FamilyChoice]
) -> list[CheckResult]:
    """Test an adapter against the method contract.

    Per problem family that the adapter takes (with ``fixed=true`` where it takes no other): it
    runs, returns finite arrays of the right shapes, agrees with the reference within
    `SOLUTION_LIMIT`, `COSINE_LIMIT` and `ERROR_LIMIT`, leaves its inputs unchanged, answers twice
    alike, marks its phases without nesting them, gives the gradients of all parameters or says why
    not, and fails clearly on an infeasible problem. A solution with ``info["approximate"]`` true
    (a learned one) has its figures reported and is not held to the limits; nor is a variant with
    a declared caveat, nor any method where the problem has no gradient.

    Parameters
    ----------
    choice
        The method with its parameters.
    families
        Returns the family that a specification names; `Registry.family`.

    Returns
    -------
    list of CheckResult
        In the order in which they ran. What an adapter raises is a failed check, not an exception.
    """
    if missing := choice.missing():
        return [CheckResult("available", False, missing)]
    results = [_declarations(choice)]
    ran: set[str] = set()
    for name in _FAMILIES:
        family = families(name)
        found = _check_family(choice, families, family)
        results += found
        if not found[0].detail.startswith("not run"):
            ran.add(family.family.problem_class)
    # A variant may take fewer classes than its method, with a reason; it must take one.
    detail = f"classes run: {', '.join(sorted(ran))}" if ran else "no problem family is taken"
    return [*results, CheckResult("runs at all", bool(ran), detail)]


def _declarations(choice: MethodChoice) -> CheckResult:
    cls = choice.cls
    faults = [
        f"{name} is missing or empty"
        for name in ("name", "label", "reference", "problem_classes")
        if not getattr(cls, name, None)
    ]
    declared = set(getattr(cls, "problem_classes", ()))
    if unknown := declared - set(PROBLEM_CLASSES):
        faults.append(f"problem_classes has {', '.join(sorted(unknown))}")
    faults += [
        f"why_not gives no reason for {missing!r}"
        for missing in PROBLEM_CLASSES
        if missing not in declared and not cls.why_not.get(missing, "").strip()
    ]
    return CheckResult("declarations", not faults, "; ".join(faults) or "complete")


def _check_family(
    choice: MethodChoice, families: Callable[[str], FamilyChoice], family: FamilyChoice
) -> list[CheckResult]:
    name = family.key
    try:
        method = choice.create()
        template = _handed_out(family, TEMPLATE_SEED)
        reason = method.unsupported(template)
        fixed_only = reason is not None and family.family.redraw_q is not None
        if fixed_only:
            fixed = families(f"{name}[fixed=true]")
            fixed_template = _handed_out(fixed, TEMPLATE_SEED)
            if method.unsupported(fixed_template) is None:
                family, template, name, reason = fixed, fixed_template, fixed.key, None
        if reason is not None:
            return [CheckResult(name, bool(reason.strip()), f"not run: {reason or 'no reason'}")]
        method.build(template)
    except Exception as error:  # a stranger's code may raise anything
        return [CheckResult(f"{name}: build", False, _text(error))]
    variant = choice.variant
    caveat = "" if variant is None else variant.caveats.get(template.problem_class, "")
    return [
        *_check_calls(method, family, name, caveat),
        _check_all_parameters(choice, family, template, name, caveat=caveat),
        _check_infeasible(method, _handed_out(family, 0), name, any_refusal=fixed_only),
    ]


def _check_calls(method: Method, family: FamilyChoice, name: str, caveat: str) -> list[CheckResult]:
    # The judged problem comes second, between two calls on another one: an answer that is kept from
    # an earlier call shows.
    problem, other = _handed_out(family, 0), _handed_out(family, 1)
    upstream = _upstream(problem)
    given = upstream.copy()
    try:
        before = _answer(method, other, upstream.copy())
        judged = _answer(method, problem, given)
        after = _answer(method, other, upstream.copy())
    except Exception as error:
        about = "phases" if isinstance(error, BenchError) and "phase" in str(error) else "runs"
        return [CheckResult(f"{name}: {about}", False, _text(error))]
    touched = [] if np.array_equal(given, upstream) else ["the upstream gradient"]
    if _changed(problem):
        touched.append("the problem")
    unchanged = f"changed {' and '.join(touched)}" if touched else "unchanged"
    results = [
        _check_phases(judged, name),
        CheckResult(f"{name}: inputs", not touched, unchanged),
    ]
    pairs = ((judged, problem), (before, other), (after, other))
    faults = [text for pair in pairs for text in _shape_faults(*pair, method.wrt)]
    faults = list(dict.fromkeys(faults))  # the same three times over is one fault
    results.append(CheckResult(f"{name}: shapes", not faults, "; ".join(faults) or "right, finite"))
    if faults:
        return results
    gap = _difference(before, after, method.wrt)
    results.append(
        CheckResult(f"{name}: same twice", gap <= REPEAT_LIMIT, f"relative difference {gap:.1e}")
    )
    return results + _check_accuracy(method, judged, problem, upstream, name, caveat=caveat)


def _changed(problem: Instance) -> bool:
    try:
        return replace(problem, sha256="").sha256 != problem.sha256
    except InstanceError:  # changed so much that it is no instance any more
        return True


def _check_phases(answer: _Answer, name: str) -> CheckResult:
    idle = [
        which
        for which, time in (("forward", answer.forward), ("backward", answer.backward))
        if time.solve == 0.0
    ]
    detail = f"no phase 'solve' in {' and '.join(idle)}" if idle else "marked, not nested"
    return CheckResult(f"{name}: phases", not idle, detail)


def _check_accuracy(
    method: Method, answer: _Answer, problem: Instance, upstream: Array, name: str, *, caveat: str
) -> list[CheckResult]:
    reference = _reference(method, problem, upstream, ("q",))
    if isinstance(reference, str):
        return [CheckResult(f"{name}: reference", False, reference)]
    learned = answer.solution.info.get("approximate") is True
    judged = not (learned or caveat or reference.certificate.degenerate)
    note = "" if judged else f" (not judged: {caveat or 'approximate by its own account'})"
    if reference.certificate.degenerate:
        note = f" (not judged: {reference.certificate.why})"
    posed = method.poses(problem)
    error = solution_accuracy(posed, answer.solution, reference)["solution_error"]
    figure = f"relative error {error:.1e}, status {answer.solution.status!r}{note}"
    passed, detail = _gradient_verdict(answer, reference, ("q",))
    return [
        CheckResult(f"{name}: solution", not judged or error <= SOLUTION_LIMIT, figure),
        CheckResult(f"{name}: gradient", not judged or passed, detail + note),
    ]


def _check_all_parameters(
    choice: MethodChoice, family: FamilyChoice, template: Instance, name: str, *, caveat: str
) -> CheckResult:
    title = f"{name}: all parameters"
    problem = _handed_out(family, 0)
    upstream = _upstream(problem)
    try:
        method = choice.create(wrt=DATA_NAMES)
        if reason := method.unsupported(template):
            return CheckResult(title, True, f"refused: {reason}")
        method.build(template)
        answer = _answer(method, problem, upstream)
    except (MethodError, SpecError) as error:
        return CheckResult(title, bool(str(error).strip()), f"refused: {error}")
    except Exception as error:
        return CheckResult(title, False, _text(error))
    passed, detail = _judge_all(method, answer, problem, upstream)
    if caveat:
        return CheckResult(title, True, f"{detail} (not judged: {caveat})")
    return CheckResult(title, passed, detail)


def _judge_all(
    method: Method, answer: _Answer, problem: Instance, upstream: Array
) -> tuple[bool, str]:
    if faults := _shape_faults(answer, problem, DATA_NAMES):
        return False, "; ".join(faults)
    reference = _reference(method, problem, upstream, DATA_NAMES)
    if isinstance(reference, str):
        return False, reference
    passed, detail = _gradient_verdict(answer, reference, DATA_NAMES)
    if answer.solution.info.get("approximate") is True or reference.certificate.degenerate:
        return True, f"{detail} (not judged)"
    return passed, detail


def _check_infeasible(
    method: Method, problem: Instance, name: str, any_refusal: bool
) -> CheckResult:
    title = f"{name}: infeasible problem"
    try:
        solution = method.forward(_make_infeasible(problem), PhaseClock())
    except (MethodError, ValueError) as error:
        # A method made for fixed data may also say that these are not its data.
        clear = bool(_INFEASIBLE.search(str(error))) or (any_refusal and bool(str(error).strip()))
        said = "raises" if clear else "raises, but does not say that it is infeasible:"
        return CheckResult(title, clear, f"{said} {_text(error)}")
    except Exception as error:
        return CheckResult(
            title, False, f"raises neither MethodError nor ValueError: {_text(error)}"
        )
    claimed = solution.status == "solved"
    return CheckResult(title, not claimed, f"returns with status {solution.status!r}")


def _make_infeasible(problem: Instance) -> Instance:
    """Keep all shapes and contradict a constraint: G₁ = −G₀ with a gap, or a negative radius."""
    if problem.cones:
        cones = tuple(replace(cone, d=-1.0) for cone in problem.cones)
        return replace(problem, cones=cones, planted=None, sha256="")
    G, h = problem.G.copy(), problem.h.copy()
    G[1] = -G[0]
    h[1] = -h[0] - 10.0 * (1.0 + abs(h[0]))
    return replace(problem, G=G, h=h, planted=None, sha256="")


def _handed_out(family: FamilyChoice, seed: int) -> Instance:
    # As in a run, the adapter never sees what was planted.
    return replace(family.draw(_SIZE, seed), planted=None)


def _upstream(problem: Instance) -> Array:
    # Not all ones: an adapter that ignores the upstream gradient must show.
    return np.random.default_rng(0).standard_normal(problem.n)


def _answer(method: Method, problem: Instance, upstream: Array) -> _Answer:
    clock = PhaseClock()
    solution, forward = clock.measure(lambda: method.forward(problem, clock))
    kept = {
        name: None if value is None else np.array(value)
        for name, value in ((name, getattr(solution, name)) for name in ("z", "nu", "lam", "mu"))
    }
    solution = replace(solution, **kept)  # type: ignore[arg-type]
    gradients, backward = clock.measure(lambda: method.backward(upstream, clock))
    copies = {k: v.copy() if hasattr(v, "copy") else v for k, v in gradients.items()}
    return _Answer(solution, copies, forward, backward)


def _shape_faults(answer: _Answer, problem: Instance, wrt: tuple[str, ...]) -> list[str]:
    cones = len(problem.cones)
    shapes = {"z": problem.n, "nu": problem.neq, "lam": problem.nineq, "mu": cones}
    parts = [(name, getattr(answer.solution, name), (size,)) for name, size in shapes.items()]
    parts = [part for part in parts if part[0] == "z" or part[1] is not None]
    missing = [name for name in wrt if name not in answer.gradients]
    parts += [
        (f"gradient of {name}", answer.gradients[name], getattr(problem, name).shape)
        for name in wrt
        if name not in missing
    ]
    faults = [f"no gradient of {name}" for name in missing]
    for name, value, shape in parts:
        if not (isinstance(value, np.ndarray) or sp.issparse(value)):
            faults.append(f"{name} is a {type(value).__name__}, not an array")
        elif value.shape != shape:
            faults.append(f"{name} has shape {value.shape}, expected {shape}")
        elif not np.isfinite(value.data if sp.issparse(value) else value).all():
            faults.append(f"{name} is not finite")
    return faults


def _difference(first: _Answer, second: _Answer, wrt: tuple[str, ...]) -> float:
    pairs = [(first.solution.z, second.solution.z)]
    pairs += [(first.gradients[name], second.gradients[name]) for name in wrt]
    # gradient_accuracy takes the second as the reference; two zeros agree
    return max(gradient_accuracy(one, two).rel_l2 for one, two in pairs)


def _reference(
    method: Method, problem: Instance, upstream: Array, wrt: tuple[str, ...]
) -> ReferenceSolution | str:
    try:
        return compute_reference(method.poses(problem), upstream, wrt)
    except NoReferenceError as error:
        return f"no reference to compare with: {error}"


def _gradient_verdict(
    answer: _Answer, reference: ReferenceSolution, wrt: tuple[str, ...]
) -> tuple[bool, str]:
    scale = float(np.linalg.norm(reference.gradients["q"]))
    passed, figures = True, []
    for name in wrt:
        accuracy = gradient_accuracy(answer.gradients[name], reference.gradients[name])
        if accuracy.norm == 0.0:  # no constraint is active: only absolute size can be judged
            passed &= accuracy.l2 <= ERROR_LIMIT * scale
            figures.append(f"{name}: {accuracy.l2:.1e} for 0")
            continue
        passed &= accuracy.one_minus_cos <= COSINE_LIMIT and accuracy.rel_l2 <= ERROR_LIMIT
        figures.append(f"{name}: 1−cos {accuracy.one_minus_cos:.1e}, error {accuracy.rel_l2:.1e}")
    return passed, "; ".join(figures)


def _text(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"
