"""Ask a layer and say what its answer is worth."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers.bpqp import BPQPWarning
from bpqp_bench.layers.qp_solvers import DENSE_ONLY

from . import truth
from .kinds import NAMES, Array, Batch, Problem, make
from .layers import ON_TORCH, PLAIN, make_layer

#: From best to worst; the last five are faults of the default layer.
OUTCOMES = (
    "right",
    "right, flagged",
    "refused truly",
    "undecided",
    "wrong, flagged",
    "no answer",
    "timeout",
    "refused falsely",
    "crash",
    "wrong silently",
)
FAULTS = OUTCOMES[5:]
PAIRS = (
    "active-set/direct",
    "osqp/osqp",
    "proxqp/direct",
    "clarabel/direct",
    "piqp/direct",
    "daqp/direct",
    "quadprog/direct",
    ON_TORCH,
    *PLAIN,
)

SPARSE = {"coo": torch.sparse_coo, "csr": torch.sparse_csr}
_NEAR = 1e-6  # error of z, relative, that is right
_TRUNCATED = 1e-4  # of a method that stops at a residual
_GRADIENT = 1e-3  # and of a gradient, as everywhere in this project
_ADJOINT = 1e-7  # beside it, of the natural size: ten times the residual that is called exact
_SHORT = 1e-4  # of the natural reach: below it a solution is at the origin


@dataclass(frozen=True)
class Finding:
    """Outcome for one problem, why, and the solver that gave the answer ("" for a batch)."""

    outcome: str
    why: str = ""
    by: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a layer said of one problem."""

    z: Array
    nu: Array
    lam: Array
    gradients: dict[str, Array | None]
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def doubts(self) -> str:
        """What it says against its own solution."""
        status = str(self.facts.get("status"))
        warned = any("forward pass" in text for text in self.warnings)
        return status if status != "solved" else "warning" if warned else ""

    @property
    def truncated(self) -> bool:
        """Whether it says that it is as right as its residual is small."""
        return self.facts.get("gradient") == "as converged as the solution"

    @property
    def flags(self) -> str:
        """What it says against its solution or its gradient."""
        gradient = str(self.facts.get("gradient"))
        return self.doubts or (gradient if gradient != "exact" else ", ".join(self.warnings))


@dataclass(frozen=True, eq=False)
class Refusal:
    """The error that a layer raised."""

    error: BaseException | str = field(repr=False)

    @property
    def claim(self) -> str:
        """What it says of the problem."""
        text = str(self.error)
        for words, claim in (
            ("infeasible", "infeasible"),
            ("unbounded", "unbounded"),
            ("not positive semidefinite", "not convex"),
            ("not finite", "not finite"),
        ):
            if words in text:
                return claim
        return ""


def run(kind: str, seed: int, pair: str) -> Finding:
    """Make a problem, ask the layer of a pair "forward/backward", and judge its answer."""
    made = make(kind, seed)
    rng = np.random.default_rng([seed, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if isinstance(made, Batch):
            if pair not in PLAIN:
                return _batch(made, pair, rng)
            made = made.problems[0]
        if pair in PLAIN:
            made = replace(made, parts=())
        if made.layout in SPARSE and pair.split("/", maxsplit=1)[0] in (*PLAIN, *DENSE_ONLY):
            made = replace(made, layout="plain")
        v = _upstream(made, rng)
        answer = ask(made, pair, v)
        found = judge(made, answer, v, rng)
        by = "none" if isinstance(answer, Refusal) else str(answer.facts.get("forward"))
        return replace(found, by=by)


def _upstream(problem: Problem, rng: np.random.Generator) -> Array:
    v = rng.standard_normal(problem.n)
    return v.astype(np.float32).astype(float)


# -- asking -----------------------------------------------------------------------------------


def _tensor(value: Array, name: str, problem: Problem) -> torch.Tensor:
    """Make a leaf that holds the value, in the given type and layout."""
    if name == "P" and problem.skew:
        twist = np.triu(np.round(4 * value), 1)
        value = value + twist - twist.T
    plain = torch.from_numpy(np.ascontiguousarray(value))
    plain = plain.float() if name in problem.single else plain
    if problem.layout == "columns":
        made = plain.mT.contiguous().mT if plain.ndim > 1 else _every_second(plain)
    elif problem.layout == "sliced":
        made = _every_second(plain)
    elif problem.layout == "negative":
        made = torch.complex(torch.zeros_like(plain), -plain).conj().imag
    elif problem.layout == "offset":
        room = torch.full((plain.numel() + 3,), 7.0, dtype=plain.dtype)
        room[3:] = plain.reshape(-1)
        made = room[3:].view(plain.shape)
    elif problem.layout in SPARSE and plain.ndim > 1 and len(plain):
        made = plain.to_sparse(layout=SPARSE[problem.layout])
    else:
        made = plain.clone()
    return made.detach().requires_grad_()


def _every_second(plain: torch.Tensor) -> torch.Tensor:
    return torch.stack([plain, torch.full_like(plain, 7.0)], dim=-1)[..., 0]


def ask(problem: Problem, pair: str, v: Array) -> Answer | Refusal:
    """Solve and differentiate vᵀz."""
    given: dict[str, torch.Tensor | None] = {
        name: _tensor(getattr(problem, name), name, problem) for name in NAMES
    }
    bounds: dict[str, torch.Tensor] = {}
    if problem.parts:
        m, low, above, _ = problem.parts
        blocks = np.split(problem.h, np.cumsum([m, low, above]))
        given["G"] = _tensor(problem.G[:m], "G", problem) if m else None
        given["h"] = _tensor(blocks[0], "h", problem) if m else None
        for name, block, sign in zip(("l", "ub", "lb"), blocks[1:], (-1, 1, -1), strict=True):
            if len(block):
                bounds[name] = _tensor(sign * block, name, problem)
    for matrix, side in (("A", "b"), ("G", "h")):
        part = given[side]
        if part is not None and part.numel() == 0:
            given[matrix] = given[side] = None
    layer = make_layer(pair)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            z = layer(*given.values(), **bounds)
            (z.double() @ torch.from_numpy(v)).backward()
        except (InstanceError, MethodError) as error:
            return Refusal(error)
        except Exception as error:
            return Refusal(f"{type(error).__name__}: {error}")
    said = tuple(str(w.message) for w in caught if issubclass(w.category, BPQPWarning))
    nu, lam = (part.numpy() for part in layer.multipliers[:2])
    found = {name: _gradient(part) for name, part in given.items()}
    if problem.parts:
        found["G"] = None
        sides = [found["h"], *(_gradient(bounds.get(name)) for name in ("l", "ub", "lb"))]
        signs = (1, -1, 1, -1)
        found["h"] = np.concatenate(
            [sign * side for sign, side in zip(signs, sides, strict=True) if side is not None]
        )
    return Answer(z.detach().double().numpy(), nu, lam, found, layer.last_info[0], said)


def _gradient(part: torch.Tensor | None) -> Array | None:
    if part is None or part.grad is None:
        return None
    grad = part.grad if part.grad.layout is torch.strided else part.grad.to_dense()
    return grad.double().numpy()


# -- judging ----------------------------------------------------------------------------------


def judge(
    problem: Problem, answer: Answer | Refusal, v: Array, rng: np.random.Generator
) -> Finding:
    """Compare an answer with the truth."""
    if isinstance(answer, Refusal):
        return _refusal(problem, answer)
    at = truth.optimum(problem, answer.lam > 0.0)
    point = _point(problem, answer, at)
    if point.outcome != "right":
        return point
    if answer.flags:
        return Finding("right, flagged", answer.flags)
    return _derivative(problem, answer, at, v, rng)


def _refusal(problem: Problem, answer: Refusal) -> Finding:
    if isinstance(answer.error, str):
        return Finding("crash", answer.error)
    true, claim = truth.verdict(problem), answer.claim
    if true == "solution" or (true == "undecided" and truth.optimum(problem) is not None):
        return Finding("refused falsely" if claim else "no answer", str(answer.error))
    if true == "undecided":
        return Finding("undecided", f"refused: {answer.error}")
    if claim in ("", true):
        return Finding("refused truly", claim)
    return Finding("refused falsely", f"is {true}: {answer.error}")


def _point(problem: Problem, answer: Answer, at: truth.Optimum | None) -> Finding:
    """Judge z*, ν*, λ*."""
    worst = truth.conditions(problem, answer.z, answer.nu, answer.lam)[0]
    wrong = "wrong, flagged" if answer.doubts else "wrong silently"
    seen = f"KKT residual {worst:.1e} ({answer.flags or 'no flag'})"
    if problem.verdict not in ("", "solution"):
        decided = max(worst, problem.gap) > truth.DECIDED
        return Finding(
            wrong if decided else "undecided", f"is {problem.verdict} by {problem.gap:.0e}, {seen}"
        )
    if worst <= truth.RIGHT:
        return Finding("right")
    if at is not None:
        error = _distance(problem, at, answer.z)
        # float64 cannot do better than the condition of the system allows.
        near = _TRUNCATED if answer.truncated else 1e-5 if problem.single else _NEAR
        allowed = max(near, 1e2 * at.condition * 2.0**-52)
        return Finding(wrong if error > allowed else "right", f"z is off by {error:.1e}, {seen}")
    if problem.z is not None and np.abs(answer.z - problem.z).max() <= 1e-9 * (
        np.abs(problem.z).max() or 1.0
    ):
        return Finding("right")
    true = truth.verdict(problem)
    far = true != "solution" or worst > (1e-5 if problem.single else 1e-7)
    decided = true != "undecided" and far
    return Finding(wrong if decided else "undecided", f"is {true}, {seen}")


def _reach(problem: Problem, at: truth.Optimum) -> float:
    """Size of the solution in its own units; where it vanishes, a part of what pulls at it."""
    D, E, F = at.weights
    curve = float(np.abs(D[:, None] * problem.P * D).max())
    pull = float(np.abs(D * problem.q).max()) / curve if curve > 0.0 else 0.0
    # Without any curvature, rows that do not bind are all that says how far away is far.
    h = np.where(at.rows | (curve == 0.0 and np.isfinite(problem.h)), problem.h, 0.0)
    sides = [np.abs(E * problem.b).max(initial=0.0), np.abs(F * h).max(initial=0.0)]
    return max(float(np.abs(at.z / D).max()), _SHORT * max(pull, *sides))


def _distance(problem: Problem, at: truth.Optimum, z: Array) -> float:
    D = at.weights[0]
    reach = _reach(problem, at)
    off = float(np.abs((z - at.z) / D).max())
    return off / reach if reach > 0.0 else off


def _derivative(
    problem: Problem,
    answer: Answer,
    at: truth.Optimum | None,
    v: Array,
    rng: np.random.Generator,
) -> Finding:
    """Judge a gradient that is called exact."""
    if problem.degenerate:
        return Finding("wrong silently", "the gradient does not exist and is called exact")
    if at is None or not at.strict:
        return Finding("undecided", "gradient")
    true, natural = truth.gradient(problem, at, v)
    if at.condition < 1e6:
        apart = truth.difference(problem, at, v, true, rng)
        if apart is not None and apart > 1e-3:
            return Finding("undecided", f"truth and differences disagree by {apart:.1e}")
    for name, part in answer.gradients.items():
        if part is None:
            continue
        error = _gradient_error(name, part, true[name], problem, at, natural, v)
        if not error <= 1.0:
            return Finding("wrong silently", f"gradient of {name} is off, called exact")
    return Finding("right")


def _gradient_error(
    name: str,
    part: Array,
    true: Array,
    problem: Problem,
    at: truth.Optimum,
    natural: float,
    v: Array,
) -> float:
    """Error in the units of the data over what is allowed."""
    if name in "PAG" and problem.layout in SPARSE:
        true = np.where(getattr(problem, name) != 0.0, true, 0.0)  # on the pattern
    D, E, F = at.weights
    rows = {"P": D, "q": D, "A": E, "b": E, "G": F, "h": F}[name]
    if part.size == 0:
        return 0.0
    # Rounding leaves in z̃ a part of what it would be without rows.
    curve = float(np.abs(D[:, None] * problem.P * D).max())
    rounding = min(10.0 * at.condition * 2.0**-52, _GRADIENT)
    free = 10.0 * rounding * float(np.abs(D * v).max()) / curve if curve > 0.0 else 0.0
    noise = max(1e-6 if problem.single else _ADJOINT, rounding) * natural + free
    off, exact = (part - true) / _column(rows, true), true / _column(rows, true)
    if name in "PAG":
        off, exact = off / D, exact / D
        reach = _reach(problem, at) or 1.0  # as `_distance` does
        push = max(float(np.abs(at.nu / E).max(initial=0.0)), float((at.lam / F).max(initial=0.0)))
        noise *= reach if name == "P" else reach + push
    return float(np.abs(off).max()) / (_GRADIENT * float(np.abs(exact).max()) + noise + 1e-300)


def _column(rows: Array, like: Array) -> Array:
    return rows[:, None] if like.ndim > 1 else rows


# -- batches ----------------------------------------------------------------------------------


def _batch(batch: Batch, pair: str, rng: np.random.Generator) -> Finding:
    """Judge a batch: with ``on_failure="nan"`` every instance, with "raise" the error."""
    problems, count = batch.problems, len(batch.problems)
    v = np.stack([_upstream(problem, rng) for problem in problems])
    given = {
        name: _tensor(
            getattr(problems[0], name)
            if name in batch.shared
            else np.stack([getattr(problem, name) for problem in problems]),
            name,
            problems[0],
        )
        for name in NAMES
    }
    layer = make_layer(pair, on_failure="nan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            z = layer(*given.values())
            (z.nan_to_num() * torch.from_numpy(v)).sum().backward()
        except Exception as error:
            return Finding("crash", f"{type(error).__name__}: {error}")
    said = tuple(str(w.message) for w in caught if issubclass(w.category, BPQPWarning))
    nu, lam = (part.numpy() for part in layer.multipliers[:2])
    found = {name: _gradient(part) for name, part in given.items()}
    findings, refused, sums = [], [], True
    for i, problem in enumerate(problems):
        facts = layer.last_info[i]
        at = z[i].detach().numpy()
        own = {
            name: None if name in batch.shared or part is None else part[i]
            for name, part in found.items()
        }
        if facts["status"] == "failed":
            refused.append(i)
            finding = judge(problem, Refusal(InstanceError(str(facts.get("error")))), v[i], rng)
            if not np.isnan(at).all() or any(
                part is not None and part.any() for part in own.values()
            ):
                finding = Finding("wrong silently", f"instance {i} failed, and is not NaN and zero")
        else:
            answer = Answer(at, nu[i], lam[i], own, facts, said)
            finding = judge(problem, answer, v[i], rng)
            sums = sums and finding.outcome == "right"
        findings.append(Finding(finding.outcome, f"instance {i}: {finding.why}"))
    if sums and batch.shared and count > len(refused):
        findings.append(_shared(batch, found, refused, v))
    findings.append(_raised(given, pair, refused))
    return worst(findings)


def _shared(
    batch: Batch, found: dict[str, Array | None], refused: Sequence[int], v: Array
) -> Finding:
    """Judge the gradients of what all share: the sums over those that were solved."""
    solved = [i for i in range(len(batch.problems)) if i not in refused]
    points = [truth.optimum(batch.problems[i]) for i in solved]
    if any(at is None for at in points):
        return Finding("undecided", "gradients of what is shared")
    each = [
        truth.gradient(batch.problems[i], at, v[i])[0]
        for i, at in zip(solved, points, strict=True)
        if at is not None
    ]
    worst_error = 0.0
    for name in sorted(batch.shared):
        total, part = sum(gradients[name] for gradients in each), found[name]
        if part is None or part.size == 0:
            continue
        error = np.abs(part - total).max() / (np.abs(total).max() + _ADJOINT)
        worst_error = max(worst_error, float(error))
    outcome = "right" if worst_error <= _GRADIENT else "wrong silently"
    return Finding(outcome, f"sums over the batch: {worst_error:.1e}")


def _raised(given: dict[str, torch.Tensor], pair: str, refused: Sequence[int]) -> Finding:
    """The error names every instance that was refused; there is none otherwise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_layer(pair)(*(part.detach() for part in given.values()))
    except (InstanceError, MethodError) as error:
        named = all(f"instance {i}" in str(error) for i in refused)
        outcome = "refused truly" if refused and named else "wrong silently"
        return Finding(outcome, f"raised: {error}")
    except Exception as error:
        return Finding("crash", f"{type(error).__name__}: {error}")
    return Finding("wrong silently" if refused else "right", "no error")


def worst(findings: Sequence[Finding]) -> Finding:
    """Return the worst of several."""
    return max(findings, key=lambda found: OUTCOMES.index(found.outcome))
