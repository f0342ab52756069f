"""The forward pass of one problem: a solver, its polishing, and what is done where it fails.

The solver gets the problem in units of its own. Its word is taken for nothing: a point counts by
its measured residuals, "infeasible" and "unbounded" by a certificate that is checked in the
caller's units (`bpqp_bench.layers.certificates`). Otherwise other solvers follow, and the
information names them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from bpqp_bench.layers.active_set import (
    ActiveSet,
    Mask,
    Polished,
    active_cones,
    active_rows,
    polish_qp,
)
from bpqp_bench.layers.certificates import (
    farkas_vector,
    recession_direction,
    worth_a_proof,
)
from bpqp_bench.layers.cones import polish_cones
from bpqp_bench.layers.conic_certificates import conic_verdict
from bpqp_bench.layers.equilibrate import Scaling, equilibrate
from bpqp_bench.layers.kkt import KKTFactor, factorize_kkt
from bpqp_bench.layers.primal_dual import cpu
from bpqp_bench.layers.problem import (
    ConvexQP,
    Phase,
    QPSolution,
    Tolerances,
    componentwise_residual,
    no_clock,
    no_solution,
    relative_residual,
)
from bpqp_bench.layers.qp_solvers import CONE_SOLVERS, DENSE_ONLY, solve_qp
from bpqp_bench.layers.settings import Settings
from bpqp_bench.problem.instance import Matrix

Indices = NDArray[np.intp]

FALLBACK = ("proxqp", "piqp", "clarabel", "osqp", "highs")
_RETRY = 1e-10  # tolerance of the second attempt where polishing failed
_RIGHT = 1e-8  # relative residual of a point that is taken although polishing failed
_RIGHT_EACH = 1e-6  # residual of each condition, relative to its own terms, of such a point
_LOST = 1e-2  # and for all of them together: multipliers that cancel have large terms of their own
_CLOSE = 1e-5  # and of one that comes with a warning
_HEAVY = 1e9  # multiplications of a sparse factorization from which supernodes pay: Clarabel's
_TOO_HEAVY = 3e9  # and from which the steps of an active-set method cost more than that solver
_FAR = 1e7  # a right-hand side that a row is tried without, in the problem's own units


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Solution of the forward problem and what the backward pass needs.

    Attributes
    ----------
    qp, solution
        Problem and solution, in the caller's units.
    active, cones
        What binds.
    scaled, scaling
        The problem in units of its own, and the way back.
    factor
        The factorized KKT matrix of the scaled problem on its binding rows, where polishing left
        one.
    info
        For `BPQP.last_info`.
    """

    qp: ConvexQP
    solution: QPSolution
    active: ActiveSet
    cones: Mask
    scaled: ConvexQP
    scaling: Scaling
    factor: KKTFactor | None = None
    info: dict[str, object] = field(default_factory=dict)

    @property
    def n_active(self) -> int:
        """Binding inequalities and cones."""
        return int(self.active.rows.sum() + self.cones.sum())

    def facts(self) -> dict[str, object]:
        """Return what `BPQP.last_info` says of the instance."""
        return dict(self.info) | {
            "status": self.solution.status,
            "iterations": self.solution.iterations,
            "primal_residual": self.solution.primal,
            "dual_residual": self.solution.dual,
            "active_rows": self.n_active,
            "weakly_active_rows": int(self.active.weak.sum()),
        }


def forward_pass(qp: ConvexQP, settings: Settings, clock: Phase = no_clock) -> ForwardPass:
    """Solve the forward problem and find its binding rows.

    Check ``solution.status``: "solved"; "infeasible" or "unbounded", which is proved; with a point
    also "inaccurate" or "iteration limit"; "failed (…)" without one.
    """
    if qp.cones:
        return _with_cones(qp, settings, clock)
    finite = qp.h < np.inf
    if finite.all() and (qp.h > -np.inf).all():
        return _Search(qp, settings, clock).run()
    if (qp.h == -np.inf).any():
        return _nothing(qp, "infeasible", {"forward": "bounds"})
    # A bound at infinity is no row.
    keep = np.flatnonzero(finite)
    less = replace(qp, G=_rows(qp.G, keep), h=qp.h[keep])
    return _widened(_Search(less, settings, clock).run(), qp, keep)


class _Search:
    """The attempts on one problem, each with another solver."""

    def __init__(self, qp: ConvexQP, settings: Settings, clock: Phase) -> None:
        self.qp, self.settings, self.clock = qp, settings, clock
        self.tried: list[str] = []
        limit = settings.time_limit
        self.deadline = time.monotonic() + limit if limit else np.inf
        self.worth, self.work = np.inf, 0.0
        self.scaled, self.scaling = qp, Scaling.identity(qp)

    def run(self) -> ForwardPass:
        """Solve by the active-set method or the solver that is asked for, else by another one."""
        dense, active_set = not self.qp.is_sparse, self.settings.forward == "active-set"
        found = self._by_active_set() if active_set and dense else None
        if found is not None:
            return found
        if self.settings.equilibrate:
            with self.clock("prepare"):
                self.scaled, self.scaling = equilibrate(self.qp)
        if active_set and not dense:
            found = self._by_sparse_active_set()
        return self._by_solvers() if found is None else self._finish(found)

    def _by_solvers(self) -> ForwardPass:
        first, polish = self.settings.forward, self.settings.polish
        best: ForwardPass | None = None
        worth, proof_sought = np.inf, False
        others = sorted(FALLBACK, key=lambda name: name != "clarabel" or self.work < _HEAVY)
        for name in (first, *(name for name in others if name != first)):
            dense_only = name in DENSE_ONLY and self.qp.is_sparse
            if name == "active-set" or (dense_only and name != first):
                continue
            if self.tried and time.monotonic() > self.deadline:
                break
            self.tried.append(name)
            done = self._attempt(name)
            has_point = bool(np.isfinite(done.solution.z).all())
            # Without polishing, the solver's own point is what was asked for, whatever its worth.
            if has_point and polish != "active-set":
                return done
            solved = done.solution.status == "solved"
            if solved and done.info.get("polished") and not self._hides(done):
                return done
            if not proof_sought:
                # Whatever was said, or not said, or not confirmed by polishing: is there a proof?
                verdict, proof_sought = self._proved(), True
                if verdict:
                    return self._finish(_nothing(self.qp, verdict, {"forward": name}))
            if solved:
                best, worth = done, 0.0
                break
            if has_point and self.worth < worth:
                best, worth = done, self.worth
        # Where polishing failed, binding rows are a guess: the active-set method may know better.
        found = self._by_active_set_last()
        if found is not None:
            return found
        if best is not None and worth <= _CLOSE:
            return best
        status = f"failed (tried {', '.join(self.tried)})"
        return self._finish(_nothing(self.qp, status, {"forward": self.tried[-1]}))

    def _by_active_set_last(self) -> ForwardPass | None:
        """Solve by the active-set method after others, where that was not tried and is for it."""
        late = "active-set" in self.tried or time.monotonic() > self.deadline
        found = None if late or self.qp.is_sparse else self._by_active_set()
        if found is not None:
            found.info["tried"] = tuple(self.tried)
        return found

    def _hides(self, done: ForwardPass) -> bool:
        """Whether what looks like rounding at so distant a point may hide that there is none.

        That is a violated row beside the length of −P⁻¹q, or a slope beside Pz.
        """
        return worth_a_proof(self.qp, done.solution.z, done.solution.dual)

    def _left(self) -> float:
        """Seconds that are left, 0 where there is no limit."""
        left = self.deadline - time.monotonic()
        return max(left, 1e-6) if left < np.inf else 0.0

    def _by_active_set(self) -> ForwardPass | None:
        self.tried.append("active-set")
        qp = self.qp
        P, q, A, b, G, h = (torch.tensor(part) for part in (qp.P, qp.q, qp.A, qp.b, qp.G, qp.h))
        with self.clock("solve"):
            point = cpu.solve(P, q, A, b, G, h, active_tol=self.settings.active_tol)
        if point.left:
            return None
        found, neq = point.found, len(qp.b)
        ((steps, primal, dual, _, _),) = found.summary()
        z, duals = found.z[0].numpy(), found.duals[0].numpy()
        nu, lam = duals[:neq], duals[neq:]
        solution = QPSolution(z, nu, lam, np.zeros(0), "solved", int(steps), primal, dual)
        active = ActiveSet(found.active[0].numpy(), found.weak[0].numpy(), (0.0, 0.0))
        info: dict[str, object] = {"forward": "active-set", "polished": True}
        return _pass(qp, solution, active, None, info)

    def _by_sparse_active_set(self) -> ForwardPass | None:
        """Begin with the rows that the problem without them violates, and correct those."""
        self.tried.append("active-set")
        qp, clock, minres = self.scaled, self.clock, self.settings.backward == "minres"
        factor = factorize_kkt(qp.P, qp.A, clock, iterative=minres)
        self.work = factor.work
        free = factor.solve(-qp.q, qp.b, clock)
        if free.least_squares or factor.work > _TOO_HEAVY:
            return None
        with clock("solve"):
            none = np.zeros(qp.nineq)  # a violated row outweighs its multiplier
            begin = QPSolution(free.x, free.y, none, np.zeros(0), "", None, 0.0, 0.0)
        found = self._polish(qp, begin, falling=True)
        if not found.converged:
            return None
        solution = replace(found.solution, iterations=found.steps)
        info: dict[str, object] = {"forward": "active-set", "polished": True}
        return _pass(qp, solution, found.active, found.factor, info)

    def _attempt(self, name: str) -> ForwardPass:
        """Solve without rows that are far away, and with them if the solution violates one."""
        qp = self.scaled
        keep = np.flatnonzero(np.abs(qp.h) < _FAR)
        if len(keep) < qp.nineq and self.settings.equilibrate:
            done = self._polished(name, replace(qp, G=_rows(qp.G, keep), h=qp.h[keep]))
            z = done.solution.z
            if done.solution.status == "solved" and (qp.G @ z <= qp.h).all():
                return self._finish(_widened(done, qp, keep))
        return self._finish(self._polished(name, qp))

    def _polished(self, name: str, qp: ConvexQP) -> ForwardPass:
        """One solver and its polishing, in the problem's own units."""
        settings, clock = self.settings, self.clock
        own_polish = settings.polish == "solver" and name == "osqp"
        tolerances = replace(settings.tolerances, time_limit=self._left())
        solution = solve_qp(qp, name, tolerances, clock, own_polish)
        info: dict[str, object] = {"forward": name}
        if not np.isfinite(solution.z).all():
            return _nothing(qp, solution.status, info)
        if settings.polish != "active-set":
            with clock("extract"):
                active = active_rows(qp, solution, settings.active_tol)
                if solution.status == "solved":
                    solution = _measured(qp, solution, settings.tolerances)
            return _pass(qp, solution, active, None, info)
        polished = self._polish(qp, solution)
        if not polished.converged and not 0.0 < settings.eps_abs <= _RETRY:
            # Too rough a start: the solver goes on to a tolerance at which few rows are in doubt.
            tight = Tolerances(_RETRY, _RETRY, settings.max_iter, self._left())
            again = solve_qp(qp, name, tight, clock)
            info["polish_retry"] = True
            if np.isfinite(again.z).all():
                polished = self._polish(qp, again)
        info["polish_steps"], info["polished"] = polished.steps, polished.converged
        solution = polished.solution
        if not polished.converged:
            right = relative_residual(qp, solution) <= _RIGHT
            solution = replace(solution, status="solved" if right else "inaccurate")
        return _pass(qp, solution, polished.active, polished.factor, info)

    def _polish(self, qp: ConvexQP, begin: QPSolution, falling: bool = False) -> Polished:
        return polish_qp(
            qp,
            begin,
            self.settings.active_tol,
            self.clock,
            iterative=self.settings.backward == "minres",
            falling=falling,
            deadline=self.deadline,
        )

    def _proved(self) -> str:
        """Return "infeasible" or "unbounded" if there is a proof of it, "" otherwise."""
        with self.clock("extract"):
            if farkas_vector(self.qp, self._left()) is not None:
                return "infeasible"
            return "unbounded" if recession_direction(self.qp, self._left()) is not None else ""

    def _finish(self, done: ForwardPass) -> ForwardPass:
        """Take what was found in the problem's own units to the caller's."""
        info = dict(done.info)
        if len(self.tried) > 1:
            info["tried"] = tuple(self.tried)
        self.worth = relative_residual(self.scaled, done.solution)
        solution = self.scaling.back(self.qp, done.solution)
        judged = solution.status == "solved" and "polished" in info
        lost = self.worth > _LOST or componentwise_residual(self.qp, solution) > _RIGHT_EACH
        if judged and lost:
            solution = replace(solution, status="inaccurate")
        return replace(
            done,
            qp=self.qp,
            solution=solution,
            scaled=self.scaled,
            scaling=self.scaling,
            info=info,
        )


def _measured(qp: ConvexQP, solution: QPSolution, tolerances: Tolerances) -> QPSolution:
    """Call a solver's point solved only where its residuals are."""
    allowed = 10.0 * (tolerances.eps_abs + tolerances.eps_rel) or 1e-2
    if relative_residual(qp, solution) <= allowed:
        return solution
    return replace(solution, status="inaccurate")


def _pass(
    qp: ConvexQP,
    solution: QPSolution,
    active: ActiveSet,
    factor: KKTFactor | None,
    info: dict[str, object],
) -> ForwardPass:
    none = np.zeros(0, dtype=bool)
    return ForwardPass(qp, solution, active, none, qp, Scaling.identity(qp), factor, info)


def _nothing(qp: ConvexQP, status: str, info: dict[str, object]) -> ForwardPass:
    nothing = np.zeros(qp.nineq, dtype=bool)
    active = ActiveSet(nothing, nothing, (0.0, 0.0))
    return _pass(qp, no_solution(qp, status), active, None, info)


def _rows(M: Matrix, which: Indices) -> Matrix:
    return sp.csc_matrix(sp.csr_matrix(M)[which]) if sp.issparse(M) else M[which]


def _widened(done: ForwardPass, qp: ConvexQP, keep: Indices) -> ForwardPass:
    """Give a solution on some rows of G the rows that it was found without."""
    active, lam = done.active, np.zeros(qp.nineq)
    lam[keep] = done.solution.lam
    masks = np.zeros((2, qp.nineq), dtype=bool)
    masks[:, keep] = active.rows, active.weak
    scaling = done.scaling
    rows_g = np.ones(qp.nineq)
    rows_g[keep] = scaling.rows_g
    scaling = replace(scaling, rows_g=rows_g)
    return replace(
        done,
        qp=qp,
        solution=replace(done.solution, lam=lam),
        active=ActiveSet(masks[0], masks[1], active.tolerance),
        scaled=scaling.apply(qp),
        scaling=scaling,
    )


def _with_cones(qp: ConvexQP, settings: Settings, clock: Phase) -> ForwardPass:
    name = settings.forward if settings.forward in CONE_SOLVERS else settings.cone_forward
    solution = solve_qp(qp, name, settings.tolerances, clock)
    info: dict[str, object] = {"forward": name}
    if not np.isfinite(solution.z).all():
        verdict = conic_verdict(qp)
        done = _nothing(qp, verdict or f"failed (and said: {solution.status})", info)
        return replace(done, cones=np.zeros(len(qp.cones), dtype=bool))
    with clock("extract"):
        active = active_rows(qp, solution, settings.active_tol)
        cones = active_cones(qp, solution)
    if settings.polish == "active-set":
        solution = polish_cones(qp, solution, active.rows, cones, clock)
    return replace(_pass(qp, solution, active, None, info), cones=cones)
