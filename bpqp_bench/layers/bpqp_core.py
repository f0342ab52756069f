"""BPQP in NumPy: the two passes that both the torch layer and the benchmark's adapter run.

Forward: any solver gives (z*, ν*, λ*). Backward (Pan et al., NeurIPS 2024, Theorem 1): with G₊ the
binding rows at z* and v = ∂L/∂z*, any solver gives the solution z̃ and multipliers ν̃, λ̃₊ of

    minimize ½ z̃ᵀPz̃ + vᵀz̃  subject to  Az̃ = 0, G₊z̃ = 0,

and the gradients of L are

    ∇q = z̃,  ∇P = ½(z̃z*ᵀ + z*z̃ᵀ),  ∇b = −ν̃,  ∇A = ν̃z*ᵀ + ν*z̃ᵀ,  ∇h = −λ̃,  ∇G = λ̃z*ᵀ + λ*z̃ᵀ

with zeros in λ̃ and λ* outside the binding rows. For cones, P is the Hessian of the Lagrangian and
G₊ has the gradients of the binding cones, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.layers.active_set import (
    ActiveSet,
    Mask,
    active_cones,
    active_rows,
    polish_qp,
    stack_rows,
)
from bpqp_bench.layers.cones import cone_terms, polish_cones
from bpqp_bench.layers.general_gradient import general_adjoint
from bpqp_bench.layers.kkt import KKTFactor, factorize_kkt, independent_rows
from bpqp_bench.layers.primal_dual import lapack
from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, Tolerances, no_clock
from bpqp_bench.layers.qp_solvers import CONE_SOLVERS, DENSE_ONLY, SOLVERS, solve_qp
from bpqp_bench.problem.instance import Array, Matrix

__all__ = [
    "BACKWARD_SOLVERS",
    "GRADIENTS",
    "POLISH",
    "Adjoint",
    "ForwardPass",
    "Settings",
    "adjoint_qp",
    "backward_pass",
    "forward_pass",
    "gradients",
    "matrix_factors",
    "vector_gradient",
]

BACKWARD_SOLVERS = (*SOLVERS, "direct", "minres")
POLISH = ("none", "solver", "active-set")
GRADIENTS = ("optimal", "general")
FALLBACK = ("proxqp", "piqp", "clarabel", "osqp")  # after the active-set method
_RETRY = 1e-9  # tolerance of the second attempt where polishing failed


@dataclass(frozen=True)
class Settings:
    """How BPQP solves its two problems.

    Attributes
    ----------
    forward, backward
        Solver of each pass: "active-set" (forward) or one of `SOLVERS`; "direct" factorizes the
        backward system, "minres" solves it (and the polishing's) without a factorization.
    cone_forward
        Solver of the forward pass where there are cones and ``forward`` takes none.
    eps_abs, eps_rel, max_iter
        Stopping rule of both passes; 0 leaves the solver's own.
    polish
        "none"; "solver", OSQP's own polishing in the passes that OSQP solves; "active-set", which
        solves the forward problem exactly on its binding rows and corrects them (`polish_qp`; where
        that fails, the solver is asked once more, with a tolerance of 1e-9).
    active_tol
        Slack and multiplier, relative to the scale of the data, below which a row is weakly active;
        0 takes ten times the residuals that the solver achieved.
    gradient
        "optimal", the gradient of the solution on its binding rows; "general", that of the map
        which keeps the KKT residual of the point where the solver stopped (`general_adjoint`,
        always direct; no cones).
    """

    forward: str = "osqp"
    backward: str = "osqp"
    cone_forward: str = "clarabel"
    eps_abs: float = 1e-5
    eps_rel: float = 1e-5
    max_iter: int = 100_000
    polish: str = "active-set"
    active_tol: float = 0.0
    gradient: str = "optimal"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("forward", self.forward, ("active-set", *SOLVERS)),
            ("backward", self.backward, BACKWARD_SOLVERS),
            ("cone_forward", self.cone_forward, CONE_SOLVERS),
            ("polish", self.polish, POLISH),
            ("gradient", self.gradient, GRADIENTS),
        ):
            if value not in known:
                raise SpecError(f"{what}={value!r} of BPQP is not one of {', '.join(known)}")
        if min(self.eps_abs, self.eps_rel, self.max_iter, self.active_tol) < 0:
            raise SpecError("tolerances and the iteration limit of BPQP cannot be negative")

    @property
    def shares_factors(self) -> bool:
        """Whether the backward pass is one more solve with the factors of the forward pass."""
        return (
            self.forward == "active-set"
            and self.backward == "direct"
            and self.gradient == "optimal"
        )

    @property
    def tolerances(self) -> Tolerances:
        """Stopping rule of the solvers."""
        return Tolerances(self.eps_abs, self.eps_rel, self.max_iter)


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Solution of the forward problem and what the backward pass needs.

    ``factor`` is the factorized KKT matrix of the binding rows where polishing left one.
    """

    qp: ConvexQP
    solution: QPSolution
    active: ActiveSet
    cones: Mask
    factor: KKTFactor | None = None
    info: dict[str, object] = field(default_factory=dict)

    @property
    def n_active(self) -> int:
        """Binding inequalities and cones."""
        return int(self.active.rows.sum() + self.cones.sum())


@dataclass(frozen=True, eq=False)
class Adjoint:
    """Solution of the backward QP.

    Attributes
    ----------
    z, nu, lam, mu
        z̃ (n,), ν̃ (neq,), λ̃ (nineq,) with zeros for rows that do not bind, μ̃ (cones,).
    gradient
        "exact"; "general" if asked for; "one-sided" if a row is weakly active, so that only
        directional derivatives exist and this is the one of the chosen side; "least-squares" if the
        binding rows are dependent, or the objective is flat in a direction that they leave free.
    status, iterations
        What the solver of the backward pass said.
    all_rows
        Whether λ̃ belongs to all inequalities and not to the binding ones alone.
    """

    z: Array
    nu: Array
    lam: Array
    mu: Array
    gradient: str
    status: str
    iterations: int | None
    all_rows: bool = False


def forward_pass(qp: ConvexQP, settings: Settings, clock: Phase = no_clock) -> ForwardPass:
    """Solve the forward problem and find its binding rows.

    Check ``solution.status``: the point is NaN where the solver found none.
    """
    name = settings.forward
    if qp.cones and name not in CONE_SOLVERS:
        name = settings.cone_forward
    if name == "active-set":
        return _active_set_pass(qp, settings, clock)
    own_polish = settings.polish == "solver" and name == "osqp"
    solution = solve_qp(qp, name, settings.tolerances, clock, own_polish)
    info: dict[str, object] = {"forward": name}
    cones = np.zeros(len(qp.cones), dtype=bool)
    if not np.isfinite(solution.z).all():
        nothing = np.zeros(qp.nineq, dtype=bool)
        return ForwardPass(qp, solution, ActiveSet(nothing, nothing, (0.0, 0.0)), cones, None, info)
    if qp.cones:
        with clock("extract"):
            active = active_rows(qp, solution, settings.active_tol)
            cones = active_cones(qp, solution)
        if settings.polish == "active-set":
            solution = polish_cones(qp, solution, active.rows, cones, clock)
        return ForwardPass(qp, solution, active, cones, None, info)
    if settings.polish == "active-set":
        iterative = settings.backward == "minres"
        polished = polish_qp(qp, solution, settings.active_tol, clock, iterative=iterative)
        if not polished.converged and not 0.0 < settings.eps_abs <= _RETRY:
            # Too rough a start: the solver goes on to a tolerance at which few rows are in doubt.
            tight = Tolerances(_RETRY, _RETRY, settings.max_iter)
            again = solve_qp(qp, name, tight, clock)
            info["polish_retry"] = True
            if np.isfinite(again.z).all():
                polished = polish_qp(qp, again, settings.active_tol, clock, iterative=iterative)
        info["polish_steps"] = polished.steps
        info["polished"] = polished.converged
        return ForwardPass(qp, polished.solution, polished.active, cones, polished.factor, info)
    with clock("extract"):
        active = active_rows(qp, solution, settings.active_tol)
    return ForwardPass(qp, solution, active, cones, None, info)


def _active_set_pass(qp: ConvexQP, settings: Settings, clock: Phase) -> ForwardPass:
    """Solve by the active-set method, or by the first of other solvers that solves it."""
    cones = np.zeros(0, dtype=bool)
    if not qp.is_sparse:
        with clock("solve"):
            point = lapack.solve(qp.P, qp.q, qp.A, qp.b, qp.G, qp.h, active_tol=settings.active_tol)
        if point is not None:
            solution = QPSolution(
                point.z,
                point.nu,
                point.lam,
                np.zeros(0),
                "solved",
                point.steps,
                point.primal,
                point.dual,
            )
            active = ActiveSet(point.active, point.weak, (0.0, 0.0))
            info: dict[str, object] = {"forward": "active-set", "polished": True}
            return ForwardPass(qp, solution, active, cones, None, info)
    tried, first = [], None
    for name in FALLBACK:
        if qp.is_sparse and name in DENSE_ONLY:
            continue
        done = forward_pass(qp, replace(settings, forward=name), clock)
        tried.append(name)
        done.info["tried"] = ["active-set", *tried]
        if done.info.get("polished"):
            return done
        first = first or done
    assert first is not None
    return first


def backward_pass(
    done: ForwardPass, upstream: Array, settings: Settings, clock: Phase = no_clock
) -> Adjoint:
    """Solve the backward QP for v = ``upstream``, shape (n,).

    Raises
    ------
    MethodError
        If the solver of the backward pass gives no answer.
    """
    if settings.gradient == "general":
        return _general(done, upstream, clock)
    qp = done.qp
    with clock("prepare"):
        H, C, tip = qp.P, stack_rows(qp.A, qp.G, done.active.rows), False
        owner: tuple[int, ...] = ()
        if done.cones.any():
            terms = cone_terms(qp, done.solution.z, done.solution.mu, done.cones)
            H, owner, tip = terms.hessian, terms.owner, terms.tip
            C = np.concatenate([C.toarray() if sp.issparse(C) else C, terms.rows])
    if settings.backward in ("direct", "minres"):
        factor = done.factor
        if factor is None:
            factor = factorize_kkt(H, C, clock, iterative=settings.backward == "minres")
        found = factor.solve(-upstream, clock=clock)
        z, y, singular = found.x, found.y, found.least_squares
        status, iterations = "solved", None
    else:
        answer, singular = adjoint_qp(H, C, upstream, settings, clock)
        z, y, status, iterations = answer.z, answer.nu, answer.status, answer.iterations
    with clock("extract"):
        neq, count = qp.neq, int(done.active.rows.sum())
        lam, mu = np.zeros(qp.nineq), np.zeros(len(qp.cones))
        lam[done.active.rows] = y[neq : neq + count]
        for i, cone in enumerate(owner):
            mu[cone] += y[neq + count + i]
        if singular:
            gradient = "least-squares"
        else:
            gradient = "one-sided" if done.active.weak.any() or tip else "exact"
        return Adjoint(z, y[:neq], lam, mu, gradient, status, iterations)


def _general(done: ForwardPass, upstream: Array, clock: Phase) -> Adjoint:
    qp, at = done.qp, done.solution
    if qp.cones:
        raise SpecError("gradient='general' of BPQP takes no cones; ConvexProgram takes any")
    z, nu, lam, singular = general_adjoint(
        qp.P, qp.A, qp.G, at.lam, qp.h - qp.G @ at.z, upstream, clock
    )
    flag = "least-squares" if singular else "general"
    return Adjoint(z, nu, lam, np.zeros(0), flag, "solved", None, all_rows=True)


def adjoint_qp(
    H: Matrix, C: Matrix, upstream: Array, settings: Settings, clock: Phase = no_clock
) -> tuple[QPSolution, bool]:
    """Solve minimize ½z̃ᵀHz̃ + vᵀz̃ subject to Cz̃ = 0 by an iterative solver.

    H and v are brought to unit size first: the equalities' right-hand sides are all zero, so a
    solver has nothing but its absolute tolerance to judge them by. Some solvers take dependent
    rows for infeasibility; they get the problem again without them.

    Returns
    -------
    QPSolution, bool
        z̃ and, as ``nu``, the multipliers of Cz̃ = 0; and whether rows were dependent.
    """
    with clock("prepare"):
        scale_h = float(abs(H).max()) or 1.0
        scale_v = float(np.abs(upstream).max()) or 1.0
        G, h = _no_rows(C), np.zeros(0)
        problem = ConvexQP(H / scale_h, upstream / scale_v, C, np.zeros(C.shape[0]), G, h)
    own_polish = settings.polish == "solver" and settings.backward == "osqp"
    found = solve_qp(problem, settings.backward, settings.tolerances, clock, own_polish)
    dependent = False
    if not np.isfinite(found.z).all() and C.shape[0] and not sp.issparse(C):
        with clock("setup"):
            kept = independent_rows(C)
            dependent = len(kept) < C.shape[0]
        if dependent:
            reduced = ConvexQP(problem.P, problem.q, C[kept], np.zeros(len(kept)), G, h)
            found = solve_qp(reduced, settings.backward, settings.tolerances, clock, own_polish)
            with clock("extract"):
                # Multipliers of least norm on all rows, as with a direct solution.
                nu = np.linalg.lstsq(C.T, C[kept].T @ found.nu, rcond=None)[0]
                found = QPSolution(
                    found.z,
                    nu,
                    found.lam,
                    found.mu,
                    found.status,
                    found.iterations,
                    found.primal,
                    found.dual,
                )
    if not np.isfinite(found.z).all():
        raise MethodError(
            f"backward solver {settings.backward} gave no answer ({found.status}); "
            "choose backward=direct or another solver"
        )
    with clock("extract"):
        return QPSolution(
            found.z * (scale_v / scale_h),
            found.nu * scale_v,
            found.lam,
            found.mu,
            found.status,
            found.iterations,
            found.primal,
            found.dual * scale_v,
        ), dependent


def _no_rows(C: Matrix) -> Matrix:
    shape = (0, C.shape[1])
    return sp.csc_matrix(shape) if sp.issparse(C) else np.zeros(shape)


def gradients(done: ForwardPass, adjoint: Adjoint, wrt: Sequence[str]) -> dict[str, Matrix]:
    """Gradients of L by name; for a sparse matrix, CSC on its own pattern."""
    found: dict[str, Matrix] = {}
    for name in wrt:
        if name in ("q", "b", "h"):
            found[name] = vector_gradient(adjoint, name)
        elif name in ("P", "A", "G"):
            found[name] = _outer_sum(getattr(done.qp, name), *matrix_factors(done, adjoint, name))
        else:
            raise SpecError(f"no gradient with respect to {name!r}")
    return found


def vector_gradient(adjoint: Adjoint, name: str) -> Array:
    """∇q = z̃, ∇b = −ν̃ or ∇h = −λ̃."""
    return {"q": adjoint.z, "b": -adjoint.nu, "h": -adjoint.lam}[name]


def matrix_factors(
    done: ForwardPass, adjoint: Adjoint, name: str
) -> tuple[Array, Array, Array, Array]:
    """Vectors a, b, c, d of the gradient abᵀ + cdᵀ with respect to P, A or G."""
    at = done.solution
    if name == "P":
        half = 0.5 * adjoint.z
        return half, at.z, at.z, half
    if name == "A":
        return adjoint.nu, at.z, at.nu, adjoint.z
    # λ* is zero outside the binding rows; what a solver leaves there is noise, unless the
    # gradient is that of the solver's point itself.
    lam = at.lam if adjoint.all_rows else np.where(done.active.rows, at.lam, 0.0)
    return adjoint.lam, at.z, lam, adjoint.z


def _outer_sum(pattern: Matrix, a: Array, b: Array, c: Array, d: Array) -> Matrix:
    """Compute abᵀ + cdᵀ, on the pattern of a sparse matrix."""
    if not sp.issparse(pattern):
        out = np.outer(a, b)
        out += np.outer(c, d)
        return out
    rows = pattern.indices
    columns = np.repeat(np.arange(pattern.shape[1]), np.diff(pattern.indptr))
    data = a[rows] * b[columns] + c[rows] * d[columns]
    return sp.csc_matrix((data, rows, pattern.indptr), shape=pattern.shape)
