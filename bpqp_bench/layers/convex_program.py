"""BPQP for any smooth convex problem, from torch functions of its objective and constraints.

The problem is minimize f(z; y) subject to h(z; y) = 0, g(z; y) ≤ 0. Whatever solver found z*, ν*,
λ*, the backward pass is the QP of Theorem 1 (Pan et al., NeurIPS 2024)

    minimize ½ z̃ᵀHz̃ + vᵀz̃  subject to  A z̃ = 0, G₊ z̃ = 0,

H = ∇²_zz of the Lagrangian, A = ∂h/∂z, G₊ = ∂g₊/∂z, all by `torch.func`, and the gradient is one
vector-Jacobian product: ∇_y of ⟨∇_z Lagrangian, z̃⟩ + ⟨h, ν̃⟩ + ⟨g, λ̃⟩ with z̃, ν̃, λ̃ held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.layers.active_set import ActiveSet, decide_active, uncertain_rows
from bpqp_bench.layers.autograd import first_only
from bpqp_bench.layers.backward import adjoint_qp, adjoint_residual
from bpqp_bench.layers.general_gradient import general_adjoint
from bpqp_bench.layers.kkt import factorize_kkt
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import ConvexQP, Tolerances, natural_scales, no_clock
from bpqp_bench.layers.qp_solvers import CONE_SOLVERS
from bpqp_bench.layers.settings import BACKWARD_SOLVERS, GRADIENTS, Settings
from bpqp_bench.layers.solver_pass import solve_instance
from bpqp_bench.layers.torch_data import NAMES, Batch, check_data
from bpqp_bench.problem.instance import Array

_CONVEX = 1e-9  # curvature below zero, relative to the largest, that counts as rounding
_MOST_ITERATIONS = 100_000
_SOLVED = 1e-6  # relative residual of a point whose gradient may be called exact

Function = Callable[..., torch.Tensor]
# From the parameters (detached) to z*, ν* and λ*, arrays or tensors.
Solver = Callable[..., tuple[Any, Any, Any]]


@dataclass(frozen=True, eq=False)
class _Point:
    """Solution with the derivatives that the backward pass needs; no field requires a gradient."""

    z: Array
    nu: Array
    lam: Array
    H: Array
    A: Array
    G: Array
    gradient: Array
    equalities: Array
    inequalities: Array

    @property
    def residual(self) -> tuple[float, float]:
        """Primal and dual residual, ∞-norms."""
        primal = max(
            float(np.abs(self.equalities).max(initial=0.0)),
            float(self.inequalities.max(initial=0.0)),
        )
        return primal, float(np.abs(self.gradient).max(initial=0.0))


class ConvexProgram(torch.nn.Module):
    """Differentiable solution of a convex problem given by torch functions.

    Parameters
    ----------
    objective
        f(z, *y) → scalar, convex and twice differentiable in z at the solution.
    equalities
        h(z, *y) → (p,), affine in z, or None.
    inequalities
        g(z, *y) → (m,), each entry convex, or None.
    solver
        Forward pass: ``solver(*y) -> (z, nu, lam)`` with multipliers of the Lagrangian
        f + νᵀh + λᵀg, λ ≥ 0. See `quadratic_solver` and `cvxpy_solver`, or write one.
    backward
        Solver of the backward QP, as in `BPQP`; "direct" by default.
    refine
        Newton steps on the KKT conditions of the binding constraints after the forward pass, each
        kept only if it lowers the residual; 0 takes the solver's point as it is.
    active_tol
        As in `BPQP`.
    gradient
        "optimal", or "general": the derivative that keeps the KKT residual of the solver's point.

    Attributes
    ----------
    last_info
        ``status``, "solved" or "inaccurate" by the residuals; these, number of binding and weakly
        active constraints; after the backward pass
        ``gradient``: "exact", "one-sided", "least-squares", "inaccurate" or "general", as in
        `BPQP`, and ``adjoint_residual``.

    Raises
    ------
    SpecError
        If ``backward`` or ``gradient`` is unknown.
    """

    def __init__(
        self,
        objective: Function,
        equalities: Function | None = None,
        inequalities: Function | None = None,
        *,
        solver: Solver,
        backward: str = "direct",
        refine: int = 3,
        active_tol: float = 0.0,
        gradient: str = "optimal",
    ) -> None:
        super().__init__()
        if backward not in BACKWARD_SOLVERS or gradient not in GRADIENTS:
            raise SpecError(
                f"backward is one of {', '.join(BACKWARD_SOLVERS)}, gradient one of "
                f"{', '.join(GRADIENTS)}; got {backward!r}, {gradient!r}"
            )
        self.objective = objective
        self.equalities = equalities or _nothing
        self.inequalities = inequalities or _nothing
        self.solver = solver
        self.backward_solver = backward
        self.refine = refine
        self.active_tol = active_tol
        self.gradient = gradient
        self.last_info: dict[str, object] = {}

    def forward(self, *y: torch.Tensor) -> torch.Tensor:
        """Solve for parameters y and return z*, shape (n,), differentiable in every y.

        Raises
        ------
        InstanceError
            If a parameter or the solver's answer is not finite, or the functions have no
            derivatives there, or curvature below zero.
        """
        for i, part in enumerate(y):
            if not torch.isfinite(part).all():
                raise InstanceError(f"parameter {i} of the convex program is not finite")
        info: dict[str, object] = {}
        apply: Any = _Function.apply  # autograd's own is untyped
        z: torch.Tensor = apply(self, info, *y)
        self.last_info = info
        return z

    def solve(self, *y: torch.Tensor) -> tuple[_Point, ActiveSet]:
        """Run the solver, refine its answer and decide which constraints bind."""
        fixed = tuple(_plain(part) for part in y)
        z, nu, lam = (_array(part) for part in self.solver(*fixed))
        lam = np.maximum(lam, 0.0)
        point = self._at(z, nu, lam, fixed)
        active = self._active(point)
        if self.gradient == "optimal":
            for _ in range(self.refine):
                better = self._newton(point, active, fixed)
                if better is None:
                    break
                point = better
            active = self._active(point, active)
        return point, active

    def adjoint(
        self, point: _Point, active: ActiveSet, v: Array
    ) -> tuple[Array, Array, Array, str, float]:
        """Solve the backward QP: z̃, ν̃, λ̃ (all constraints), kind of gradient, residual."""
        if self.gradient == "general":
            z, nu, lam, singular = general_adjoint(
                point.H, point.A, point.G, point.lam, -point.inequalities, v
            )
            left = point.H @ z + point.A.T @ nu + point.G.T @ lam + v
            residual = float(np.abs(left).max()) / (float(np.abs(v).max()) or 1.0)
            return z, nu, lam, "least-squares" if singular else "general", residual
        p, C = len(point.nu), np.concatenate([point.A, point.G[active.rows]])
        weak = active.weak.any()
        if self.backward_solver in ("direct", "minres"):
            iterative = self.backward_solver == "minres"
            factor = factorize_kkt(point.H, C, iterative=iterative)
            found = factor.solve(-v)
            z, multipliers, singular = found.x, found.y, found.least_squares
            lengths = _scales(point)[0]
            weak |= uncertain_rows(factor, active.rows, point.lam * lengths, lengths, active).any()
        else:
            settings = Settings(backward=self.backward_solver, eps_abs=1e-9, eps_rel=1e-9)
            answer, singular = adjoint_qp(point.H, C, v, settings)
            z, multipliers = answer.z, answer.nu
        lam = np.zeros(len(point.lam))
        lam[active.rows] = multipliers[p:]
        residual = adjoint_residual(point.H, C, v, z, multipliers)
        primal, dual = self.relative(point)
        kind = "one-sided" if weak else "exact"
        if singular:
            kind = "least-squares"
        elif not (residual <= ACCURATE and max(primal, dual) <= _SOLVED):
            kind = "inaccurate"
        return z, multipliers[:p], lam, kind, residual

    def lagrangian(
        self, z: torch.Tensor, nu: torch.Tensor, lam: torch.Tensor, *y: torch.Tensor
    ) -> torch.Tensor:
        """Return f + νᵀh + λᵀg at z."""
        return self.objective(z, *y) + nu @ self.equalities(z, *y) + lam @ self.inequalities(z, *y)

    def _at(self, z: Array, nu: Array, lam: Array, y: tuple[torch.Tensor, ...]) -> _Point:
        point, nu_t, lam_t = (torch.from_numpy(part) for part in (z, nu, lam))
        h, g = (f(point, *y).detach().numpy() for f in (self.equalities, self.inequalities))
        if h.shape != nu.shape or g.shape != lam.shape:
            raise InstanceError(
                f"the solver gave {len(nu)} and {len(lam)} multipliers; the functions give "
                f"equalities of shape {h.shape} and inequalities of shape {g.shape}"
            )
        values = [
            torch.func.hessian(self.lagrangian)(point, nu_t, lam_t, *y),
            torch.func.jacrev(self.equalities)(point, *y),
            torch.func.jacrev(self.inequalities)(point, *y),
            torch.func.grad(self.lagrangian)(point, nu_t, lam_t, *y),
        ]
        H, A, G, gradient = (value.detach().numpy() for value in values)
        # A constraint that does not bind (λ = 0) may lack derivatives where it does not matter,
        # but 0 · NaN is NaN: there is no telling, so nothing but finite numbers pass.
        if not all(np.isfinite(part).all() for part in (z, nu, lam, H, A, G, gradient, h, g)):
            raise InstanceError(
                "the convex program's solution or its derivatives there are not finite; are the "
                "functions twice differentiable at the solution?"
            )
        H = 0.5 * (H + H.T)
        lowest = float(np.linalg.eigvalsh(H)[0])
        if lowest < -_CONVEX * float(np.abs(H).max()):
            raise InstanceError(
                f"the program is not convex: its Lagrangian has the curvature {lowest:.1e} at z*"
            )
        return _Point(z, nu, lam, H, A, G, gradient, h, g)

    def _active(self, point: _Point, fixed: ActiveSet | None = None) -> ActiveSet:
        lengths, scales = _scales(point)
        found = decide_active(
            -point.inequalities, point.lam, lengths, scales, point.residual, self.active_tol
        )
        # Newton's method has moved the point on these rows: they stay as they were.
        return found if fixed is None else ActiveSet(fixed.rows, found.weak, found.tolerance)

    def relative(self, point: _Point) -> tuple[float, float]:
        """Primal and dual residual, each over its scale."""
        lengths, (size, push) = _scales(point)
        violation = np.maximum(point.inequalities, 0.0) / lengths
        primal = max(
            float(violation.max(initial=0.0)), float(np.abs(point.equalities).max(initial=0.0))
        )
        return primal / size, point.residual[1] / push

    def _newton(
        self, point: _Point, active: ActiveSet, y: tuple[torch.Tensor, ...]
    ) -> _Point | None:
        rows, p = active.rows, len(point.nu)
        C = np.concatenate([point.A, point.G[rows]])
        right = -np.concatenate([point.equalities, point.inequalities[rows]])
        # The multipliers are solved for themselves: the old ones leave the gradient.
        gradient = point.gradient - point.A.T @ point.nu - point.G.T @ point.lam
        step = factorize_kkt(point.H, C).solve(-gradient, right)
        lam = np.zeros(len(point.lam))
        lam[rows] = step.y[p:]
        if (lam < 0.0).any():
            return None
        try:
            found = self._at(point.z + step.x, step.y[:p], lam, y)
        except InstanceError:  # the step left the functions' domain
            return None
        return found if max(found.residual) < max(point.residual) else None


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: ConvexProgram, info: dict[str, object], *y: torch.Tensor
    ) -> torch.Tensor:
        point, active = program.solve(*y)
        primal, dual = point.residual
        info.update(
            status="solved" if max(program.relative(point)) <= _SOLVED else "inaccurate",
            primal_residual=primal,
            dual_residual=dual,
            active_rows=int(active.rows.sum()),
            weakly_active_rows=int(active.weak.sum()),
        )
        ctx.work = program, info, point, active
        ctx.save_for_backward(*y)
        like = y[0] if y else torch.zeros(0, dtype=torch.float64)
        return torch.tensor(point.z, dtype=like.dtype, device=like.device)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        program: ConvexProgram
        program, info, point, active = ctx.work
        v = _array(upstream[0])
        z, nu, lam, info["gradient"], info["adjoint_residual"] = program.adjoint(point, active, v)
        given: tuple[torch.Tensor, ...] = ctx.saved_tensors
        at = [torch.from_numpy(part) for part in (point.z, point.nu, point.lam)]
        tilde = [torch.from_numpy(part) for part in (z, nu, lam)]

        def paired(*y: torch.Tensor) -> torch.Tensor:
            slope: torch.Tensor = torch.func.grad(program.lagrangian)(*at, *y)
            total = slope @ tilde[0] + program.equalities(at[0], *y) @ tilde[1]
            return total + program.inequalities(at[0], *y) @ tilde[2]

        needed = tuple(i for i, need in enumerate(ctx.needs_input_grad[2:]) if need)
        y = tuple(_plain(part) for part in given)
        found = torch.func.grad(paired, argnums=needed)(*y)
        gradients: list[torch.Tensor | None] = [None] * len(given)
        for i, part in zip(needed, found, strict=True):
            gradients[i] = part.to(dtype=given[i].dtype, device=given[i].device)
        return None, None, *first_only(gradients, upstream[0], *given)


def quadratic_solver(
    build: Callable[..., ConvexQP], solver: str = "clarabel", tolerances: Tolerances | None = None
) -> Solver:
    """Forward pass for problems that are QPs or SOCPs.

    Parameters
    ----------
    build
        From the parameters, as float64 arrays, to the problem. The program's inequalities must be
        those of Gz ≤ h, then one per cone, in this order.
    solver, tolerances
        One of `SOLVERS`, where there are cones one of `CONE_SOLVERS` or else Clarabel, and its
        stopping rule. Its word is taken for nothing, as in `BPQP`.
    """
    rule = tolerances or Tolerances(max_iter=_MOST_ITERATIONS)
    settings = Settings(
        forward=solver,
        cone_forward=solver if solver in CONE_SOLVERS else "clarabel",
        eps_abs=rule.eps_abs,
        eps_rel=rule.eps_rel,
        max_iter=rule.max_iter,
        time_limit=rule.time_limit,
    )

    def solve(*y: torch.Tensor) -> tuple[Array, Array, Array]:
        qp = build(*(part.numpy() for part in y))
        qp = replace(qp, P=0.5 * (qp.P + qp.P.T))
        values = {name: getattr(qp, name) for name in NAMES}
        for error in check_data(Batch(values, frozenset(), 1, 2.0**-52, qp.cones)).values():
            raise error
        found = solve_instance(qp, 0, settings, no_clock).solution
        return found.z, found.nu, np.concatenate([found.lam, found.mu])

    return solve


def cvxpy_solver(
    problem: Any,
    variable: Any,
    parameters: Sequence[Any],
    equalities: Sequence[Any] = (),
    inequalities: Sequence[Any] = (),
    **options: Any,
) -> Solver:
    """Forward pass by a CVXPY problem.

    Parameters
    ----------
    problem, variable
        A `cvxpy.Problem` of minimization and its one variable, a vector.
    parameters
        `cvxpy.Parameter`s, in the order of the program's parameters.
    equalities, inequalities
        Its constraints, in the order of the program's functions; their duals are ν* and λ*.
    **options
        For ``problem.solve``.
    """

    def solve(*y: torch.Tensor) -> tuple[Array, Array, Array]:
        for parameter, value in zip(parameters, y, strict=True):
            parameter.value = value.numpy()
        problem.solve(**options)
        if variable.value is None:
            raise InstanceError(f"the convex program is {problem.status} (CVXPY)")
        nu = [np.ravel(constraint.dual_value) for constraint in equalities]
        lam = [np.ravel(constraint.dual_value) for constraint in inequalities]
        empty = np.zeros(0)
        return variable.value, np.concatenate([empty, *nu]), np.concatenate([empty, *lam])

    return solve


def _nothing(z: torch.Tensor, *y: torch.Tensor) -> torch.Tensor:
    del y
    return z[:0]


def _scales(point: _Point) -> tuple[Array, tuple[float, float]]:
    """Length of every inequality's gradient; size of the solution and of the forces."""
    lengths = np.sqrt(np.einsum("ij,ij->i", point.G, point.G))
    lengths = np.where(lengths > 0.0, lengths, 1.0)
    forces = point.gradient - point.A.T @ point.nu - point.G.T @ point.lam
    return lengths, natural_scales(
        float(np.abs(point.z).max()),
        float(np.abs(forces).max(initial=0.0)),
        float(np.abs(point.H).max()),
        np.abs(point.inequalities) / lengths,
        point.residual,
    )


def _plain(part: torch.Tensor) -> torch.Tensor:
    """Take a tensor to float64 on the CPU, as NumPy can view it."""
    return part.detach().to(device="cpu", dtype=torch.float64).resolve_neg().contiguous()


def _array(value: Any) -> Array:
    if isinstance(value, torch.Tensor):
        value = _plain(value).numpy()
    return np.array(value, dtype=np.float64).ravel()
