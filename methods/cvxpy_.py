"""CVXPY: a parametrized problem, solved and differentiated through diffcp."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array

_TIGHTER = {
    "CLARABEL": ("tol_feas", "tol_gap_abs", "tol_gap_rel"),
    "SCS": ("eps_abs", "eps_rel"),
}

_INACCURATE = {
    "Optimal Inaccurate": "Solved/Inaccurate",
    "Infeasible Inaccurate": "Infeasible/Inaccurate",
    "Unbounded Inaccurate": "Unbounded/Inaccurate",
}


@dataclass(frozen=True)
class _Structure:
    """What the canonical form depends on, besides sizes; the values are parameters."""

    shape: tuple[int, ...]  # n, neq, nineq and the rows of each cone
    quadratic: str  # "none", "diagonal" or "full" P
    balls: bool  # F = I in all cones
    offset: bool  # some g ≠ 0


class Cvxpy(Method):
    """A CVXPY problem with ``requires_grad=True``; its derivative is diffcp's.

    ``form=parameters`` declares all data as parameters of one problem that follows the rules of
    disciplined parametrized programming and is canonicalized once, in `build`. The objective is
    ½‖Rz‖² + qᵀz with RᵀR = P, because a quadratic form with a parameter is not allowed; R is the
    Cholesky factor, computed in "prepare". ``form=constants`` is what the paper runs: q alone is a
    parameter, everything else is a constant, and each call canonicalizes anew.

    With parameters, "prepare" holds the assignment and canonicalization, "solve" the cone solver
    with diffcp's preparation of the derivative, "extract" the way back to CVXPY's variables. With
    constants the whole of `Problem.solve` is "solve", as the paper timed it.
    """

    name = "cvxpy"
    label = "CVXPY"
    reference = "Agrawal et al., NeurIPS 2019; Agrawal et al., J. Appl. Numer. Optim. 2019"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("cvxpy", "diffcp", "clarabel", "scs")
    group = "paper"
    tolerance = "tolerance"
    parameters = MappingProxyType(
        {
            "form": "parameters",
            "solver": "CLARABEL",
            "mode": "auto",  # how diffcp solves for the derivative: dense, lsqr, lsmr; see `build`
            "tolerance": 0.0,  # 0: the solver's own default
            "drop_epsilon": False,  # LP without its ε‖z‖²: another problem, see `poses`
        }
    )
    caveats = MappingProxyType({"lp": "tolerances of 1e-8 hide multipliers next to P = 2e-6·I"})
    variants = MappingProxyType(
        {
            "cvxpy-paper": Variant(
                "CVXPY (defaults)", {"form": "constants", "solver": "SCS", "mode": "lsqr"}
            ),
            "cvxpy-lsqr": Variant("CVXPY (LSQR)", {"mode": "lsqr"}),
            "cvxpy-lp0": Variant("CVXPY (ε = 0)", {"drop_epsilon": True}),
        }
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        o = self.options
        for key, known in {
            "form": ("parameters", "constants"),
            "solver": tuple(_TIGHTER),
            "mode": ("auto", "dense", "lsqr", "lsmr"),
        }.items():
            if o[key] not in known:
                raise SpecError(f"{key}={o[key]} of method {self.name}: {' or '.join(known)}")
        self.phases_split = o["form"] == "parameters"
        self._compiled: _Structure | None = None

    def unsupported(self, instance: Instance) -> str | None:
        """Return why not: ε = 0 is for LPs, and constants carry no gradient."""
        if self.options["drop_epsilon"] and instance.problem_class != "lp":
            return "this variant drops the term ε‖z‖² that only the LP has"
        if self.options["drop_epsilon"] and "P" in self.wrt:
            return "this variant drops P, so that there is no gradient of it"
        if self.options["form"] == "constants" and set(self.wrt) - {"q"}:
            return "with form=constants q alone is a parameter; use form=parameters"
        return super().unsupported(instance)

    def poses(self, instance: Instance) -> Instance:
        """Return the LP with ε = 0 where this variant drops it."""
        if not self.options["drop_epsilon"]:
            return instance
        return replace(instance, P=np.zeros((instance.n, instance.n)), planted=None, sha256="")

    def build(self, template: Instance) -> None:
        """Choose diffcp's mode; declare the parametrized problem and canonicalize it."""
        import cvxpy as cp

        mode = self.options["mode"]
        if mode == "auto":
            # Measured: dense is exact and 4 times faster on QP and LP, whose systems are too badly
            # conditioned for LSQR; on cones alone LSQR needs a few steps and is as exact.
            mode = "lsqr" if template.cones else "dense"
        self._solver_options = {"solve_method": self.options["solver"], "mode": mode}
        if self.options["tolerance"]:
            for name in _TIGHTER[str(self.options["solver"])]:
                self._solver_options[name] = self.options["tolerance"]
        if self.options["form"] == "parameters":
            self._compiled = self._structure(template)
            self._declare(template, self._compiled)
            self._assign(template, self._compiled)
            self._problem.get_problem_data(cp.DIFFCP, enforce_dpp=True)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Assign, canonicalize, solve."""
        import cvxpy as cp

        if self.options["form"] == "constants":
            return self._forward_constants(data, clock)
        with clock("prepare"):
            structure = self._structure(data)
            if structure != self._compiled:
                raise MethodError(f"{data.name} has another structure than the template")
            self._assign(data, structure)
            program, chain, inverse = self._problem.get_problem_data(cp.DIFFCP, enforce_dpp=True)
        with clock("solve"):
            try:
                raw = chain.solve_via_data(
                    self._problem, program, False, False, dict(self._solver_options)
                )
            except Exception as error:
                raise _failure(data, error) from error
        with clock("extract"):
            _spell_status(raw)
            try:
                self._problem.unpack_results(raw, chain, inverse)
            except Exception as error:
                raise _failure(data, error) from error
            return self._solution(data)

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array]:
        """Differentiate by `Problem.backward`; ∇P follows from ∇R by the chain rule."""
        with clock("prepare"):
            self._z.gradient = upstream
        with clock("solve"):
            self._problem.backward()
        with clock("extract"):
            return {name: self._gradient(name) for name in self.wrt}

    def _structure(self, problem: Instance | Data) -> _Structure:
        quadratic = "none"
        if not self.options["drop_epsilon"] and problem.P.size:
            entries = problem.P.count_nonzero() if sp.issparse(problem.P) else None
            entries = np.count_nonzero(problem.P) if entries is None else entries
            diagonal = entries == np.count_nonzero(problem.P.diagonal())
            if entries:
                # A gradient of all of P needs all of R as parameter.
                quadratic = "diagonal" if diagonal and "P" not in self.wrt else "full"
            elif "P" in self.wrt:
                raise MethodError(f"P of {problem.name} is zero: CVXPY has no gradient of its root")
        return _Structure(
            (problem.n, problem.neq, problem.nineq, *(c.g.size for c in problem.cones)),
            quadratic,
            all(_is_identity(c.F) for c in problem.cones),
            any(bool(c.g.any()) for c in problem.cones),
        )

    def _declare(self, problem: Instance, structure: _Structure) -> None:
        import cvxpy as cp

        n, neq, nineq = problem.n, problem.neq, problem.nineq
        self._z = z = cp.Variable(n)
        self._given: dict[str, Any] = {"q": cp.Parameter(n)}
        objective, constraints = self._given["q"] @ z, []
        if structure.quadratic == "diagonal":
            self._given["R"] = cp.Parameter(n)
            objective = objective + 0.5 * cp.sum_squares(cp.multiply(self._given["R"], z))
        elif structure.quadratic == "full":
            self._given["R"] = cp.Parameter((n, n))
            objective = objective + 0.5 * cp.sum_squares(self._given["R"] @ z)
        self._equality = self._inequality = None
        if neq:
            self._given |= {"A": cp.Parameter((neq, n)), "b": cp.Parameter(neq)}
            self._equality = self._given["A"] @ z == self._given["b"]
            constraints.append(self._equality)
        if nineq:
            self._given |= {"G": cp.Parameter((nineq, n)), "h": cp.Parameter(nineq)}
            self._inequality = self._given["G"] @ z <= self._given["h"]
            constraints.append(self._inequality)
        self._cones = self._declare_cones(problem, structure)
        self._problem = cp.Problem(cp.Minimize(objective), constraints + self._cones)

    def _declare_cones(self, problem: Instance, structure: _Structure) -> list[Any]:
        import cvxpy as cp

        z, m, n = self._z, len(problem.cones), problem.n
        if m == 0:
            return []
        C, d = cp.Parameter((m, n)), cp.Parameter(m)
        self._given |= {"C": C, "d": d}
        if structure.balls:
            # One constraint for all: with one each, CVXPY's map from parameters to problem data
            # takes memory as the cube of the size, 1.4 GB at 200x40.
            X = cp.reshape(z, (n, 1), order="F") @ np.ones((1, m))
            if structure.offset:
                self._given["offset"] = cp.Parameter((n, m))
                X = X + self._given["offset"]
            return [cp.SOC(C @ z + d, X, axis=0)]
        cones = []
        for i, cone in enumerate(problem.cones):
            F, g = cp.Parameter(cone.F.shape), cp.Parameter(cone.g.size)
            self._given |= {f"F{i}": F, f"g{i}": g}
            cones.append(cp.SOC(C[i] @ z + d[i], F @ z + g))
        return cones

    def _assign(self, problem: Instance | Data, structure: _Structure) -> None:
        values: dict[str, Any] = {"q": problem.q, "A": _dense(problem.A), "b": problem.b}
        values |= {"G": _dense(problem.G), "h": problem.h}
        if structure.quadratic == "diagonal":
            values["R"] = np.sqrt(problem.P.diagonal())
        elif structure.quadratic == "full":
            self._root = values["R"] = _root(_dense(problem.P))
        if problem.cones:
            values["C"] = np.array([cone.c for cone in problem.cones])
            values["d"] = np.array([cone.d for cone in problem.cones])
            if structure.balls and structure.offset:
                values["offset"] = np.column_stack([cone.g for cone in problem.cones])
            elif not structure.balls:
                for i, cone in enumerate(problem.cones):
                    values |= {f"F{i}": _dense(cone.F), f"g{i}": cone.g}
        for name, parameter in self._given.items():
            parameter.value = values[name]

    def _forward_constants(self, problem: Data, clock: PhaseClock) -> Solution:
        import cvxpy as cp

        with clock("prepare"):
            z = self._z = cp.Variable(problem.n)
            q = cp.Parameter(problem.n, value=problem.q)
            self._given = {"q": q}
            objective = q @ z
            if not self.options["drop_epsilon"] and abs(problem.P).max() > 0:
                # psd_wrap spares CVXPY's eigenvalue test of P, as its manual advises.
                objective = objective + 0.5 * cp.quad_form(z, cp.psd_wrap(problem.P))
            self._equality = problem.A @ z == problem.b if problem.neq else None
            self._inequality = problem.G @ z <= problem.h if problem.nineq else None
            self._cones = [cp.SOC(c.c @ z + c.d, c.F @ z + c.g) for c in problem.cones]
            rows = [c for c in (self._equality, self._inequality) if c is not None]
            self._problem = cp.Problem(cp.Minimize(objective), rows + self._cones)
        with clock("solve"):
            try:
                self._problem.solve(requires_grad=True, **self._solver_options)
            except Exception as error:
                raise _failure(problem, error) from error
        with clock("extract"):
            return self._solution(problem)

    def _solution(self, problem: Data) -> Solution:
        status = str(self._problem.status)
        if self._z.value is None:
            raise MethodError(f"{problem.name} has no solution by CVXPY: {status}")
        stats = self._problem.solver_stats
        return Solution(
            z=np.asarray(self._z.value),
            nu=_dual(self._equality),
            lam=_dual(self._inequality),
            # The first part of a cone's dual is the multiplier of ‖Fz + g‖ − cᵀz − d ≤ 0.
            mu=np.concatenate([np.ravel(c.dual_value[0]) for c in self._cones])
            if self._cones
            else None,
            status="solved" if status == "optimal" else status,
            iterations=None if stats.num_iters is None else int(stats.num_iters),
            info=self._info(problem),
        )

    def _info(self, problem: Data) -> dict[str, object]:
        # SCS stops at 1e-5 by default, above the 2e-6 of the LP's quadratic term.
        coarse = self.options["solver"] == "SCS" and not 0 < self.options["tolerance"] < 1e-6
        return {"approximate": True} if coarse and problem.problem_class == "lp" else {}

    def _gradient(self, name: str) -> Array:
        if name == "P":
            # L(R) with RᵀR = P: dP = dRᵀR + RᵀdR, so ∇R = 2R∇P.
            half = np.linalg.solve(self._root, np.asarray(self._given["R"].gradient))
            return 0.25 * (half + half.T)
        if name not in self._given:  # no rows of this kind
            n = self._z.size
            return np.zeros((0, n) if name in "AG" else 0)
        return np.asarray(self._given[name].gradient)


def _spell_status(raw: dict[str, Any]) -> None:
    """Spell what diffcp 1.1 reports of Clarabel's "AlmostSolved" as CVXPY 1.9 knows it.

    The point is there and so is its derivative; CVXPY looks the status up under SCS's name for it
    and would raise a KeyError. The status stays "optimal_inaccurate", which is not "solved".
    """
    words = raw["info"].get("status")
    raw["info"]["status"] = _INACCURATE.get(words, words)


def _failure(problem: Data, error: Exception) -> MethodError:
    if isinstance(error, KeyError) and "Inaccurate" in str(error):
        # CVXPY 1.9 has no entry for what diffcp 1.1 calls "Optimal Inaccurate".
        return MethodError(
            f"the solver stopped short of its tolerance on {problem.name} and CVXPY does not "
            f"know diffcp's status {error}; choose a larger tolerance"
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MethodError(f"CVXPY failed on {problem.name}: {reason}")


def _root(P: Array) -> Array:
    """R with RᵀR = P: Cholesky, or by eigenvalues where P is singular."""
    try:
        root: Array = np.asarray(np.linalg.cholesky(P).T, np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(P)
        root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return root


def _is_identity(F: Any) -> bool:
    if F.shape[0] != F.shape[1]:
        return False
    if sp.issparse(F):
        return bool(F.nnz == F.shape[0] and np.all(F.diagonal() == 1.0))
    return np.count_nonzero(F) == F.shape[0] and bool(np.all(np.diagonal(F) == 1.0))


def _dual(constraint: Any) -> Array | None:
    return None if constraint is None else np.atleast_1d(np.asarray(constraint.dual_value))


def _dense(matrix: Any) -> Array:
    array: Array = matrix.toarray() if sp.issparse(matrix) else matrix
    return array
