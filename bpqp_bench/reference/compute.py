"""`compute_reference`: from an instance and an upstream gradient to a certified reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import DATA_NAMES, Array, Instance, Matrix
from bpqp_bench.reference.ball import is_ball, solve_ball
from bpqp_bench.reference.extended import DD
from bpqp_bench.reference.gradients import Triple, assemble_gradients
from bpqp_bench.reference.point import Point
from bpqp_bench.reference.qp_active_set import solve_quadratic
from bpqp_bench.reference.qp_interior_point import Quadratic
from bpqp_bench.reference.qp_sparse import solve_sparse
from bpqp_bench.reference.socp_active_set import solve_conic
from bpqp_bench.reference.socp_interior_point import group_cones
from bpqp_bench.reference.solution import Certificate, NoReferenceError, ReferenceSolution

_MAX_DIMENSION = 12_000  # n + neq + nineq: the dense KKT matrix then takes 1.2 GB, twice
_DENSE_AT_LEAST_TRIED = 3_000  # n + neq + nineq up to which sparse data get a dense second try
_WORTH_SPARSE = 10_000  # entries of P, A and G below which zeros save nothing


def compute_reference(
    instance: Instance, upstream: Array, wrt: Sequence[str] = ("q",)
) -> ReferenceSolution:
    """Compute the reference solution and gradients of L with v = ∂L/∂z*.

    A QP or LP whose data are mostly zeros is solved in sparse algebra; other data are dense, up to
    n + neq + nineq = 12000. P is replaced by its symmetric part, which is all that the objective
    sees.

    Parameters
    ----------
    instance
        QP, LP or SOCP.
    upstream
        v, shape (n,).
    wrt
        Names of the parameters whose gradients are wanted, from P, q, A, b, G, h.

    Raises
    ------
    NoReferenceError
        If the instance is infeasible, unbounded, not convex or too large, or if its solution could
        not be certified. An instance whose gradient does not exist is no error: its certificate
        says ``degenerate``.
    """
    v = np.asarray(upstream, dtype=np.float64)
    _check(instance, v, wrt)
    if instance.cones:
        if is_ball(instance):
            return _ball(instance, v, wrt)
        return _differentiate(
            instance, solve_conic(as_quadratic(instance), group_cones(instance.cones)), v, wrt
        )
    return _differentiate(instance, _solve(instance), v, wrt)


def _solve(instance: Instance) -> Point:
    """Solve a QP or LP; dense data in dense algebra first, data with many zeros in sparse."""
    _check_symmetry(instance)
    dense_fits = instance.n + instance.neq + instance.nineq <= _DENSE_AT_LEAST_TRIED
    if not _many_zeros(instance):
        try:
            return solve_quadratic(as_quadratic(instance))
        except NoReferenceError as error:
            if error.cause != "not-converged":
                raise
            return solve_sparse(instance)
    try:
        return solve_sparse(instance)
    except NoReferenceError as error:
        if error.cause != "not-converged" or not dense_fits:
            raise
        # It also proves that a problem is infeasible or unbounded.
        return solve_quadratic(as_quadratic(instance))


def _many_zeros(instance: Instance) -> bool:
    parts = (instance.P, instance.A, instance.G)
    stored = sum(M.count_nonzero() if sp.issparse(M) else np.count_nonzero(M) for M in parts)
    size = sum(M.shape[0] * M.shape[1] for M in parts)
    return bool(size > _WORTH_SPARSE and stored < 0.2 * size)


def as_quadratic(instance: Instance) -> Quadratic:
    """Return dense data with symmetric P."""
    _check_symmetry(instance)
    P = _dense(instance.P)
    P = P if np.array_equal(P, P.T) else 0.5 * (P + P.T)
    return Quadratic(
        P=P,
        q=instance.q,
        A=_dense(instance.A),
        b=instance.b,
        G=_dense(instance.G),
        h=instance.h,
        name=instance.name,
    )


def _check_symmetry(instance: Instance) -> None:
    P = instance.P
    gap = float(abs(P - P.T).max())
    if gap > 1e-10 * float(abs(P).max()):
        raise NoReferenceError(
            f"P of {instance.name} is not symmetric (largest difference {gap:.1e}); pass "
            "its symmetric part",
            "input",
        )


def _differentiate(
    instance: Instance, point: Point, v: Array, wrt: Sequence[str]
) -> ReferenceSolution:
    n, neq, nineq = instance.n, instance.neq, instance.nineq
    reasons = point.reasons()
    exists = point.system is not None and not point.primal_null
    adjoint_lam = DD(np.zeros(nineq), np.zeros(nineq))
    condition = residual = float("inf")
    error = point.error
    if exists and point.system is not None:
        refined = point.system.refine(DD.of(np.concatenate([-v, np.zeros(point.system.m)])))
        x = refined.x
        rows = neq + int(point.active.sum())
        adjoint_lam.hi[point.active] = x.hi[n + neq : n + rows]
        adjoint_lam.lo[point.active] = x.lo[n + neq : n + rows]
        adjoint = Triple(x[:n], x[n : n + neq], adjoint_lam)
        if refined.error > 1e-9 >= point.error:
            reasons.append(f"gradient not refined (last correction {refined.error:.0e})")
        residual = refined.residual / max(float(np.abs(v).max(initial=0.0)), 1e-300)
        error = max(error, refined.error)
        if not point.dual_null:
            condition = point.system.condition
    else:
        adjoint = Triple(DD.of(np.zeros(n)), DD.of(np.zeros(neq)), adjoint_lam)
    solution = Triple(point.z, point.nu, point.lam)
    gradients = assemble_gradients(instance, solution, adjoint, wrt)
    if not exists:
        gradients = {name: _nan_like(g) for name, g in gradients.items()}
    return ReferenceSolution(
        z=point.z.hi,
        nu=point.nu.hi,
        lam=np.maximum(point.lam.hi, 0.0),
        mu=np.maximum(point.mu, 0.0),
        objective=instance.objective(point.z.hi),
        gradients=gradients,
        certificate=Certificate(
            primal=point.primal,
            dual=point.dual,
            complementarity=point.complementarity,
            margin=point.margin,
            condition=condition,
            residual=residual,
            error=error,
            n_active=int(point.active.sum()),
            n_active_cones=int(point.active_cones.sum()),
            degenerate=bool(reasons),
            why="; ".join(reasons),
            method=point.method,
        ),
    )


def _ball(instance: Instance, v: Array, wrt: Sequence[str]) -> ReferenceSolution:
    radius, q = instance.cones[0].d, DD.of(instance.q)
    if radius < 0.0:
        raise NoReferenceError(
            f"{instance.name} is infeasible: the radius d of its ball is negative", "infeasible"
        )
    nothing = DD.of(np.zeros(0))
    certificate = Certificate(
        primal=0.0,
        dual=0.0,
        complementarity=0.0,
        margin=1.0,
        condition=1.0,
        residual=0.0,
        error=0.0,
        n_active=0,
        n_active_cones=1,
        degenerate=False,
        why="",
        method="closed form",
    )
    if radius == 0.0 or not instance.q.any():
        why = "cone tip (the ball is a point)" if radius == 0.0 else "solution not unique (q is 0)"
        certificate = replace(certificate, degenerate=True, why=why, margin=0.0)
        z, mu = DD.of(np.zeros(instance.n)), float(np.linalg.norm(instance.q))
        adjoint = DD.of(np.full(instance.n, np.nan))
    else:
        ball = solve_ball(instance, v)
        z, mu, adjoint = ball.z, float(ball.mu.hi), ball.adjoint
        # K (z̃, μ̃) + (v, 0) from the blocks of K and not from the formula of z̃
        u = z / radius
        curvature = (adjoint - u * u.dot(adjoint)) * ball.mu / radius
        left = curvature - u * u.dot(DD.of(v)) + v
        outside = z.dot(z).sqrt() - radius
        certificate = replace(
            certificate,
            primal=abs(float(outside.hi)),
            dual=float(np.abs((q + u * ball.mu).hi).max()),
            complementarity=abs(float((outside * ball.mu).hi)),
            condition=float(max(mu / radius, radius / mu, 1.0)),
            residual=max(float(np.abs(left.hi).max()), abs(float(u.dot(adjoint).hi)))
            / max(float(np.abs(v).max()), 1e-300),
        )
    return ReferenceSolution(
        z=z.hi,
        nu=np.zeros(0),
        lam=np.zeros(0),
        mu=np.array([mu]),
        objective=instance.objective(z.hi),
        gradients=assemble_gradients(
            instance, Triple(z, nothing, nothing), Triple(adjoint, nothing, nothing), wrt
        ),
        certificate=certificate,
    )


def _check(instance: Instance, v: Array, wrt: Sequence[str]) -> None:
    unknown = set(wrt) - set(DATA_NAMES)
    if unknown:
        raise NoReferenceError(
            f"no gradient with respect to {', '.join(sorted(unknown))}; choose from "
            f"{', '.join(DATA_NAMES)}",
            "input",
        )
    if v.shape != (instance.n,) or not np.isfinite(v).all():
        raise NoReferenceError(
            f"the upstream gradient has shape {v.shape}, expected finite values of shape "
            f"({instance.n},)",
            "input",
        )
    dimension = instance.n + instance.neq + instance.nineq
    if dimension > _MAX_DIMENSION and (instance.cones or not _many_zeros(instance)):
        raise NoReferenceError(
            f"{instance.name} is too large for the dense reference: n + neq + nineq = "
            f"{dimension} > {_MAX_DIMENSION}; use a smaller size",
            "too-large",
        )


def _dense(M: Matrix) -> Array:
    return np.asarray(M.toarray() if sp.issparse(M) else M)


def _nan_like(gradient: Matrix) -> Matrix:
    if sp.issparse(gradient):
        empty = gradient.copy()
        empty.data[:] = np.nan
        return empty
    return np.full_like(gradient, np.nan)
