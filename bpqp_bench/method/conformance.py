"""Conformity test of one method adapter: what ``bpqp-bench check METHOD`` prints.

It runs the adapter on small instances of every class, in this process, and holds its solution, its
multipliers and the gradient of every parameter to the limits that the tables call right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import BenchError, MethodError, SpecError
from bpqp_bench.method.choice import MethodChoice
from bpqp_bench.method.contract import Data, Method
from bpqp_bench.method.data import make_data, make_upstream, to_numpy
from bpqp_bench.method.measure import (
    Answer,
    Call,
    answer_fault,
    clock_for,
    judged_status,
    measure_call,
)
from bpqp_bench.problem.family import TEMPLATE_SEED, FamilyChoice
from bpqp_bench.problem.instance import DATA_NAMES, PROBLEM_CLASSES, Instance, Matrix, Size
from bpqp_bench.reference import NoReferenceError, ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import (
    COSINE_RIGHT,
    ERROR_RIGHT,
    Accuracy,
    gradient_accuracy,
    solution_accuracy,
)

REPEAT_LIMIT = 1e-9  # relative difference between two answers to one question
LIMITS = (
    f"limits: 1−cos ≤ {COSINE_RIGHT:g} and relative error ≤ {ERROR_RIGHT:g} of each gradient, "
    f"relative error ≤ {ERROR_RIGHT:g} of solution and multipliers"
)

_FAMILIES = ("qp", "qp-active", "lp", "socp", "socp-robust")
# For a method that takes none of them because each has inequalities.
_EQUALITIES = "osqp-class[kind=equality,n=10]"
_SIZE = Size(10, 5)
_BATCH = 3
_INFEASIBLE = re.compile("feasib", re.IGNORECASE)


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


def check_method(
    choice: MethodChoice, families: Callable[[str], FamilyChoice]
) -> list[CheckResult]:
    """Test an adapter against the method contract.

    Per problem family that the adapter takes (with ``fixed=true`` where it takes no other): it
    runs, returns finite arrays of the right shapes, is right within `LIMITS` in solution,
    multipliers with their signs and gradient, leaves its inputs unchanged, answers twice alike,
    marks its phases without nesting them, is right on a batch, is right in the gradients of all
    parameters or says why it gives none, and fails clearly on an infeasible problem. A solution
    with ``info["approximate"]`` true (a learned one) has its figures reported and is not held to
    the limits; nor is a method or variant with a declared caveat, nor any where the problem has no
    gradient.

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
    for name in (*_FAMILIES, _EQUALITIES):
        if name == _EQUALITIES and ran:
            continue
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
    if cls.framework not in ("numpy", "torch", "jax"):
        faults.append(f"framework is {cls.framework!r}")
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
    kind = template.problem_class
    caveat = choice.cls.caveats.get(kind, "")
    if choice.variant is not None:
        caveat = choice.variant.caveats.get(kind, caveat)
    problems = [_handed_out(family, seed) for seed in range(_BATCH)]
    results = [*_check_calls(method, problems, name, caveat)]
    for title, wrt, batch in (("all parameters", DATA_NAMES, 1), ("batch", ("q",), _BATCH)):
        if batch == 1 or (method.batched and not template.cones):
            build = partial(choice.create, wrt=wrt, batch=batch)
            found = _check_right(build, template, problems[:batch], caveat)
            results.append(replace(found, name=f"{name}: {title}"))
    return [*results, _check_infeasible(method, problems[0], name, any_refusal=fixed_only)]


def _check_calls(
    method: Method, problems: Sequence[Instance], name: str, caveat: str
) -> list[CheckResult]:
    # The judged problem comes second, between two calls on another one: an answer that is kept from
    # an earlier call shows.
    problem, other = problems[0], problems[1]
    try:
        before, _ = _call(method, [other])
        judged, touched = _call(method, [problem])
        after, _ = _call(method, [other])
    except Exception as error:
        about = "phases" if isinstance(error, BenchError) and "phase" in str(error) else "runs"
        return [CheckResult(f"{name}: {about}", False, _text(error))]
    unchanged = f"changed {' and '.join(touched)}" if touched else "unchanged"
    results = [
        _check_phases(judged, name),
        CheckResult(f"{name}: inputs", not touched, unchanged),
    ]
    pairs = ((judged, problem), (before, other), (after, other))
    faults = [answer_fault(call.answers[0], p, method.wrt) for call, p in pairs]
    texts = list(dict.fromkeys(fault[1] for fault in faults if fault is not None))
    results.append(CheckResult(f"{name}: shapes", not texts, "; ".join(texts) or "right, finite"))
    if texts:
        return results
    gap = _difference(before.answers[0], after.answers[0], method.wrt)
    results.append(
        CheckResult(f"{name}: same twice", gap <= REPEAT_LIMIT, f"relative difference {gap:.1e}")
    )
    reference = _reference(method, problem, ("q",))
    if isinstance(reference, str):
        return [*results, CheckResult(f"{name}: reference", False, reference)]
    note = _not_judged(judged.answers[0], reference, caveat)
    for title, (passed, detail) in (
        ("solution", _solution_verdict(method, judged.answers[0], problem, reference)),
        ("multipliers", _multiplier_verdict(judged.answers[0], reference)),
        ("gradient", _gradient_verdict(judged.answers[0], reference, ("q",))),
    ):
        results.append(CheckResult(f"{name}: {title}", passed or bool(note), detail + note))
    return results


def _check_phases(call: Call, name: str) -> CheckResult:
    idle = [which for which in ("forward", "backward") if getattr(call, which).solve == 0.0]
    detail = f"no phase 'solve' in {' and '.join(idle)}" if idle else "marked, not nested"
    return CheckResult(f"{name}: phases", not idle, detail)


def _check_right(
    create: Callable[[], Method], template: Instance, problems: Sequence[Instance], caveat: str
) -> CheckResult:
    """Judge the gradients of one method on one batch, every instance by its own reference."""
    try:
        method = create()
        if reason := method.unsupported(template):
            return CheckResult("", True, f"refused: {reason}")
        method.build(template)
        call, _ = _call(method, problems)
    except (MethodError, SpecError) as error:
        return CheckResult("", bool(str(error).strip()), f"refused: {error}")
    except Exception as error:
        return CheckResult("", False, _text(error))
    passed, details = True, []
    for answer, problem in zip(call.answers, problems, strict=True):
        if fault := answer_fault(answer, problem, method.wrt):
            return CheckResult("", False, fault[1])
        reference = _reference(method, problem, method.wrt)
        if isinstance(reference, str):
            return CheckResult("", False, reference)
        right, detail = _gradient_verdict(answer, reference, method.wrt)
        note = _not_judged(answer, reference, caveat)
        passed &= right or bool(note)
        details.append(detail + note)
    return CheckResult("", passed, " | ".join(details))


def _check_infeasible(
    method: Method, problem: Instance, name: str, any_refusal: bool
) -> CheckResult:
    title = f"{name}: infeasible problem"
    broken = _make_infeasible(problem)
    try:
        (data,) = make_data([broken], method)
        solution = method.forward(data, clock_for(method))
        solution = method.describe(replace(solution, z=to_numpy(solution.z)))
        status = judged_status(solution, broken)
    except (MethodError, ValueError) as error:
        # A method made for fixed data may also say that these are not its data.
        clear = bool(_INFEASIBLE.search(str(error))) or (any_refusal and bool(str(error).strip()))
        said = "raises" if clear else "raises, but does not say that it is infeasible:"
        return CheckResult(title, clear, f"{said} {_text(error)}")
    except Exception as error:
        return CheckResult(
            title, False, f"raises neither MethodError nor ValueError: {_text(error)}"
        )
    return CheckResult(title, status != "solved", f"returns with status {status!r}")


def _make_infeasible(problem: Instance) -> Instance:
    """Keep all shapes and contradict a row, G₁ = −G₀ or A₁ = A₀ with a gap, or a radius."""
    if problem.cones:
        cones = tuple(replace(cone, d=-1.0) for cone in problem.cones)
        return replace(problem, cones=cones, planted=None, sha256="")
    if not problem.nineq:
        A, b = problem.A.copy(), problem.b.copy()
        A[1], b[1] = A[0], b[0] + 10.0 * (1.0 + abs(b[0]))
        return replace(problem, A=A, b=b, planted=None, sha256="")
    G, h = problem.G.copy(), problem.h.copy()
    G[1] = -G[0]
    h[1] = -h[0] - 10.0 * (1.0 + abs(h[0]))
    return replace(problem, G=G, h=h, planted=None, sha256="")


def _handed_out(family: FamilyChoice, seed: int) -> Instance:
    # As in a run, the adapter never sees what was planted. The upstream gradient is not all ones:
    # an adapter that ignores it must show.
    drawn = family.draw(_SIZE, seed)
    upstream = np.random.default_rng(0).standard_normal(drawn.n)
    return replace(drawn, planted=None, upstream=upstream, sha256="")


def _call(method: Method, problems: Sequence[Instance]) -> tuple[Call, list[str]]:
    """Call, and name what the method has changed of its inputs."""
    data, upstream = make_data(problems, method), make_upstream(problems, method)
    call = measure_call(method, data, upstream, clock_for(method))
    touched = [
        what
        for what, now, before in (
            ("the problem", data, make_data(problems, method)),
            ("the upstream gradient", upstream, make_upstream(problems, method)),
        )
        if not all(map(_same, now, before))
    ]
    return call, touched


def _same(now: Data | Matrix, before: Data | Matrix) -> bool:
    if isinstance(now, Data):
        return all(_same(getattr(now, name), getattr(before, name)) for name in DATA_NAMES) and all(
            _same(getattr(one, name), getattr(two, name))
            for one, two in zip(now.cones, before.cones, strict=True)
            for name in ("F", "g", "c")
        )
    one, two = (_dense(to_numpy(value)) for value in (now, before))
    return np.array_equal(one, two, equal_nan=True)


def _dense(value: Matrix) -> Matrix:
    return value.toarray() if sp.issparse(value) else value


def _difference(first: Answer, second: Answer, wrt: Sequence[str]) -> float:
    pairs = [(first.solution.z, second.solution.z)]
    pairs += [(first.gradients[name], second.gradients[name]) for name in wrt]
    # gradient_accuracy takes the second as the reference; two zeros agree
    return max(gradient_accuracy(one, two).rel_l2 for one, two in pairs)


def _reference(method: Method, problem: Instance, wrt: Sequence[str]) -> ReferenceSolution | str:
    try:
        return compute_reference(method.poses(problem), problem.loss_gradient, tuple(wrt))
    except NoReferenceError as error:
        return f"no reference to compare with: {error}"


def _not_judged(answer: Answer, reference: ReferenceSolution, caveat: str) -> str:
    if reference.certificate.degenerate:
        return f" (not judged: {reference.certificate.why})"
    if answer.solution.info.get("approximate") is True:
        return " (not judged: approximate by its own account)"
    return f" (not judged: {caveat})" if caveat else ""


def _solution_verdict(
    method: Method, answer: Answer, problem: Instance, reference: ReferenceSolution
) -> tuple[bool, str]:
    posed = method.poses(problem)
    error = solution_accuracy(posed, answer.solution, reference)["solution_error"]
    status = judged_status(answer.solution, posed)
    return error <= ERROR_RIGHT, f"relative error {error:.1e}, status {status!r}"


def _multiplier_verdict(answer: Answer, reference: ReferenceSolution) -> tuple[bool, str]:
    names = [name for name in ("nu", "lam", "mu") if getattr(answer.solution, name) is not None]
    truth = {name: np.asarray(getattr(reference, name)) for name in names}
    scale = float(np.sqrt(sum(float(y @ y) for y in truth.values()))) or 1.0
    errors = {
        name: float(np.linalg.norm(getattr(answer.solution, name) - y)) / scale
        for name, y in truth.items()
    }
    signs = [
        name
        for name, y in truth.items()
        if y.any() and errors[name] > 0.5 and float(getattr(answer.solution, name) @ y) < 0.0
    ]
    detail = ", ".join(f"{name}: error {error:.1e}" for name, error in errors.items())
    if signs:
        detail += f" ({' and '.join(signs)} with the sign reversed)"
    return all(e <= ERROR_RIGHT for e in errors.values()), detail or "none given"


def _gradient_verdict(
    answer: Answer, reference: ReferenceSolution, wrt: Sequence[str]
) -> tuple[bool, str]:
    scale = float(np.linalg.norm(reference.gradients["q"])) if "q" in wrt else 1.0
    passed, figures = True, []
    for name in wrt:
        accuracy: Accuracy = gradient_accuracy(answer.gradients[name], reference.gradients[name])
        if accuracy.right is None:  # no constraint is active: only absolute size can be judged
            passed &= accuracy.l2 <= ERROR_RIGHT * scale
            figures.append(f"{name}: {accuracy.l2:.1e} for 0")
            continue
        passed &= accuracy.right
        figures.append(f"{name}: 1−cos {accuracy.one_minus_cos:.1e}, error {accuracy.rel_l2:.1e}")
    return passed, "; ".join(figures)


def _text(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"
