"""The backward pass of one problem (Pan et al., NeurIPS 2024, Theorem 1).

With G₊ the binding rows at z* and v = ∂L/∂z*, any solver gives the solution z̃ and multipliers ν̃,
λ̃₊ of

    minimize ½ z̃ᵀPz̃ + vᵀz̃  subject to  Az̃ = 0, G₊z̃ = 0,

and the gradients of L are

    ∇q = z̃,  ∇P = ½(z̃z*ᵀ + z*z̃ᵀ),  ∇b = −ν̃,  ∇A = ν̃z*ᵀ + ν*z̃ᵀ,  ∇h = −λ̃,  ∇G = λ̃z*ᵀ + λ*z̃ᵀ

with zeros in λ̃ and λ* outside the binding rows. For cones, P is the Hessian of the Lagrangian and
G₊ has the gradients of the binding cones, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.layers.active_set import stack_rows
from bpqp_bench.layers.cones import cone_terms
from bpqp_bench.layers.forward import ForwardPass
from bpqp_bench.layers.general_gradient import general_adjoint
from bpqp_bench.layers.kkt import factorize_kkt, independent_rows
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import ConvexQP, Phase, QPSolution, no_clock
from bpqp_bench.layers.qp_solvers import solve_qp
from bpqp_bench.layers.settings import Settings
from bpqp_bench.problem.instance import Array, Matrix

_APART = 1e-6  # relative


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
        binding rows are dependent, or the objective is flat in a direction that they leave free;
        "inaccurate" if the residual is above `ACCURATE`, or two solvers disagree.
    status, iterations
        "solved" or "inaccurate", from the residual; iterations where the solver counts them.
    solver
        What solved it.
    residual
        Of the adjoint equations, relative, in the problem's own units.
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
    solver: str
    residual: float
    all_rows: bool = False


def backward_pass(
    done: ForwardPass, upstream: Array, settings: Settings, clock: Phase = no_clock
) -> Adjoint:
    """Solve the backward QP for v = ``upstream``, shape (n,).

    Unless ``settings.polish`` asks for what an iterative solver gives, its answer is replaced by
    that of a direct solve where it does not solve the adjoint equations to `ACCURATE`, or is far
    from what the factors of the forward pass give: a small residual says little of multipliers of
    rows that nearly repeat others.

    Raises
    ------
    MethodError
        If the solver of the backward pass gives no answer.
    """
    if not np.isfinite(upstream).all():
        return _not_finite(done)
    if settings.gradient == "general":
        return _general(done, upstream, clock)
    qp, scaling = done.scaled, done.scaling
    with clock("prepare"):
        H, C, tip = qp.P, stack_rows(qp.A, qp.G, done.active.rows), False
        owner: tuple[int, ...] = ()
        if done.cones.any():
            terms = cone_terms(qp, done.solution.z, done.solution.mu, done.cones)
            H, owner, tip = terms.hessian, terms.owner, terms.tip
            C = np.concatenate([C.toarray() if sp.issparse(C) else C, terms.rows])
        v = scaling.objective * scaling.columns * upstream
    solver, apart = settings.backward, False
    z, y, singular, iterations, residual = _solved(done, H, C, v, solver, settings, clock)
    own = solver in ("direct", "minres") or settings.polish == "none"
    if not own and (residual > ACCURATE or done.factor is not None):
        better = _solved(done, H, C, v, "direct", settings, clock)
        singular |= better[2]
        apart = _apart(y, better[1]) or _apart(z, better[0])
        if (apart or residual > ACCURATE) and better[-1] < residual:
            solver, (z, y, _, iterations, residual), apart = "direct", better, False
    if not np.isfinite(z).all():
        raise MethodError(
            f"backward solver {solver} gave no answer; choose backward=direct or another solver"
        )
    with clock("extract"):
        neq, count = qp.neq, int(done.active.rows.sum())
        lam, mu = np.zeros(qp.nineq), np.zeros(len(qp.cones))
        lam[done.active.rows] = y[neq : neq + count]
        for i, cone in enumerate(owner):
            mu[cone] += y[neq + count + i]
        if singular:
            gradient = "least-squares"
        elif apart or not residual <= ACCURATE:
            gradient = "inaccurate"
        else:
            gradient = "one-sided" if done.active.weak.any() or tip else "exact"
        return Adjoint(
            scaling.columns * z,
            scaling.rows_a * y[:neq] / scaling.objective,
            scaling.rows_g * lam / scaling.objective,
            mu / scaling.objective,
            gradient,
            "solved" if residual <= ACCURATE or singular else "inaccurate",
            iterations,
            solver,
            residual,
        )


def _solved(
    done: ForwardPass,
    H: Matrix,
    C: Matrix,
    v: Array,
    solver: str,
    settings: Settings,
    clock: Phase,
) -> tuple[Array, Array, bool, int | None, float]:
    iterations = None
    if solver in ("direct", "minres"):
        factor = done.factor
        if factor is None:
            factor = factorize_kkt(H, C, clock, iterative=solver == "minres")
        found = factor.solve(-v, clock=clock)
        z, y, singular = found.x, found.y, found.least_squares
    else:
        answer, singular = adjoint_qp(H, C, v, replace(settings, backward=solver), clock)
        z, y, iterations = answer.z, answer.nu, answer.iterations
    with clock("extract"):
        return z, y, singular, iterations, adjoint_residual(H, C, v, z, y)


def _apart(found: Array, better: Array) -> bool:
    return bool(np.abs(found - better).max(initial=0.0) > _APART * np.abs(better).max(initial=0.0))


def adjoint_residual(H: Matrix, C: Matrix, v: Array, z: Array, y: Array) -> float:
    """Residual of Hz̃ + Cᵀy + v = 0, Cz̃ = 0, relative to v and to the length of z̃.

    Where rows hold z̃ at zero, the length is a ten-thousandth of what it would be without them.
    """
    size = float(np.abs(v).max())
    if not np.isfinite(z).all():
        return float("inf")
    if size == 0.0:
        return 0.0 if not z.any() else float("inf")
    curvature = float(abs(H).max()) or 1.0
    length = max(float(np.abs(z).max()), 1e-4 * size / curvature)
    top = float(np.abs(H @ z + C.T @ y + v).max()) / size
    return max(top, float(np.abs(C @ z).max(initial=0.0)) / length)


def _not_finite(done: ForwardPass) -> Adjoint:
    """Answer with NaN: a loss that is not finite has no derivative."""
    qp, rows = done.qp, done.active.rows
    return Adjoint(
        np.full(qp.n, np.nan),
        np.full(qp.neq, np.nan),
        np.where(rows, np.nan, 0.0),
        np.where(done.cones, np.nan, 0.0),
        "not finite",
        "solved",
        None,
        "none",
        float("nan"),
    )


def _general(done: ForwardPass, upstream: Array, clock: Phase) -> Adjoint:
    qp, at = done.qp, done.solution
    if qp.cones:
        raise SpecError("gradient='general' of BPQP takes no cones; ConvexProgram takes any")
    z, nu, lam, singular = general_adjoint(
        qp.P, qp.A, qp.G, at.lam, qp.h - qp.G @ at.z, upstream, clock
    )
    flag = "least-squares" if singular else "general"
    left = qp.P @ z + qp.A.T @ nu + qp.G.T @ lam + upstream
    residual = float(np.abs(left).max()) / (float(np.abs(upstream).max()) or 1.0)
    return Adjoint(z, nu, lam, np.zeros(0), flag, "solved", None, "direct", residual, all_rows=True)


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
