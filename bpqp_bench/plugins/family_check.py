"""Conformity test of one problem family: what ``bpqp-bench check --family NAME`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from bpqp_bench.errors import BenchError
from bpqp_bench.method.conformance import CheckResult
from bpqp_bench.problem.family import FamilyChoice
from bpqp_bench.problem.instance import Instance, Size
from bpqp_bench.reference import NoReferenceError, compute_reference

_SEEDS = (0, 1, 2)
_SIZE = Size(12, 4)
_PLANTED = 1e-8  # residual of what was planted, relative to the data
_CONSTANT = 1e-7  # range of 1ᵀz over the feasible set, relative, below which it is constant
_ZERO = 1e-12  # ‖∂L/∂q‖ relative to ‖v‖ below which a gradient counts as zero


def check_family(
    choice: FamilyChoice, size: Size | None = None, seeds: Sequence[int] = _SEEDS
) -> list[CheckResult]:
    """Test a family against what `generate` must keep (docs/add-a-family.md).

    It obeys the size, repeats its bits, has another problem for another seed, has a symmetric P,
    plants what is true, declares a random upstream gradient where 1ᵀz is constant on the feasible
    set, has a certified reference on every seed, which proves that it is feasible, bounded and
    convex, and a gradient that exists and is not zero on at least one.

    Parameters
    ----------
    choice
        The family with its parameters.
    size
        What to draw where any size may be asked for; 12x4 by default.
    seeds
        Which instances.

    Returns
    -------
    list of CheckResult
        In the order in which they ran. What a family raises is a failed check, not an exception.
    """
    try:
        own = choice.size
        asked = own or size or _SIZE
        drawn = [choice.draw(asked, seed) for seed in seeds]
        again = [choice.draw(asked, seed) for seed in seeds]
    except Exception as error:
        return [CheckResult("draws", False, _one_line(error))]
    results = [
        CheckResult("draws", True, f"size {asked}, seeds {', '.join(map(str, seeds))}"),
        _obeys_size(drawn, asked),
        _repeats(drawn, again),
        _differs(drawn),
        _symmetric(drawn),
        _planted(drawn),
        _upstream(drawn),
    ]
    return results + _references(drawn)


def _obeys_size(drawn: Sequence[Instance], size: Size) -> CheckResult:
    faults = [
        f"seed {one.seed} has n = {one.n}, {one.neq} equalities, {one.nineq} inequalities"
        for one in drawn
        if one.n != size.n or max(one.neq, one.nineq) > size.m
    ]
    return CheckResult("size", not faults, "; ".join(faults) or f"n = {size.n}, m ≤ {size.m}")


def _repeats(drawn: Sequence[Instance], again: Sequence[Instance]) -> CheckResult:
    other = [one.seed for one, two in zip(drawn, again, strict=True) if one.sha256 != two.sha256]
    detail = f"seeds {other} gave other bits the second time; take all randomness from rng"
    return CheckResult("repeats", not other, detail if other else "same bits when drawn again")


def _differs(drawn: Sequence[Instance]) -> CheckResult:
    # Without the upstream gradient, which alone would make any two differ.
    data = {replace(one, upstream=None, sha256="").sha256 for one in drawn}
    passed = len(data) == len(drawn)
    return CheckResult("seeds", passed, f"{len(data)} different problems of {len(drawn)} seeds")


def _symmetric(drawn: Sequence[Instance]) -> CheckResult:
    gaps = [float(abs(one.P - one.P.T).max()) for one in drawn]
    return CheckResult("symmetric", max(gaps) == 0.0, f"max |P − Pᵀ| = {max(gaps):.1e}")


def _planted(drawn: Sequence[Instance]) -> CheckResult:
    worst, what = 0.0, "nothing is planted"
    for one in drawn:
        planted = one.planted
        if planted is None:
            continue
        scale = 1.0 + max(
            float(np.abs(part.data if sp.issparse(part) else part).max(initial=0.0))
            for part in (one.P, one.q, one.A, one.b, one.G, one.h)
        )
        if planted.feasible is not None:
            worst = max(worst, one.residuals(planted.feasible).primal / scale)
            what = "planted point"
        if planted.z is not None:
            found = one.residuals(planted.z, planted.nu, planted.lam, planted.mu)
            worst = max(worst, found.primal / scale)
            what = "planted solution"
            if np.isfinite(found.dual):
                worst = max(worst, found.dual / scale, found.complementarity / scale**2)
    detail = what if worst == 0.0 else f"{what} violates a condition by {worst:.1e}"
    return CheckResult("planted", worst <= _PLANTED, detail)


def _upstream(drawn: Sequence[Instance]) -> CheckResult:
    constant = [one for one in drawn if _is_sum_constant(one)]
    if not constant:
        return CheckResult("upstream", True, "1ᵀz varies over the feasible set")
    where = f"1ᵀz is constant on the feasible set of seed {constant[0].seed}"
    declared = [one.upstream for one in drawn if one.upstream is not None]
    if len(declared) < len(drawn):
        return CheckResult("upstream", False, f"{where}; declare a random upstream")
    different = {v.tobytes() for v in declared}
    random = len(different) == len(drawn) and all(np.ptp(v) > 0.0 for v in declared)
    said = "declared random" if random else "the declared upstream is not random"
    return CheckResult("upstream", random, f"{where}; {said}")


def _is_sum_constant(one: Instance) -> bool:
    """Ask an LP for the range of 1ᵀz over the linear constraints; cones can only narrow it."""
    ends = []
    for sign in (1.0, -1.0):
        found = linprog(
            np.full(one.n, sign),
            A_ub=one.G if one.nineq else None,
            b_ub=one.h if one.nineq else None,
            A_eq=one.A if one.neq else None,
            b_eq=one.b if one.neq else None,
            bounds=(None, None),
        )
        if found.status != 0:  # unbounded, or no solution at all: the reference says so
            return False
        ends.append(sign * float(found.fun))
    return abs(ends[1] - ends[0]) <= _CONSTANT * (1.0 + abs(ends[0]))


def _references(drawn: Sequence[Instance]) -> list[CheckResult]:
    missing, apart, sizes = [], [], []
    for one in drawn:
        try:
            found = compute_reference(replace(one, planted=None), one.loss_gradient)
        except NoReferenceError as error:
            missing.append(_one_line(error))
            continue
        if found.certificate.degenerate:
            apart.append(f"seed {one.seed}: {found.certificate.why}")
        else:
            length = float(np.linalg.norm(one.loss_gradient))
            sizes.append(float(np.linalg.norm(found.gradients["q"])) / (length or 1.0))
    certified = len(drawn) - len(missing)
    results = [
        CheckResult(
            "reference",
            not missing,
            missing[0] if missing else f"{certified} certified, {len(apart)} of them degenerate",
        )
    ]
    largest = max(sizes, default=0.0)
    if sizes and largest <= _ZERO:
        detail = "zero: the loss does not depend on q; declare an upstream"
    elif sizes:
        detail = f"‖∂L/∂q‖ / ‖v‖ from {min(sizes):.1e} to {largest:.1e}"
    else:
        detail = "does not exist on any seed"
    detail += f" ({'; '.join(apart)})" if apart else ""
    return [*results, CheckResult("gradient", largest > _ZERO, detail)]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
