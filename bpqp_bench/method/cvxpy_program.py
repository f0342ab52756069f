"""CVXPY problems for the adapters that use it: with all data as parameters, or as constants.

Adapters import this file in their verbs: it needs CVXPY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import MethodError
from bpqp_bench.method.contract import Data
from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.problem.solution import Solution

_GAPS, _EPS = ("tol_feas", "tol_gap_abs", "tol_gap_rel"), ("eps_abs", "eps_rel")
_TOLERANCES = {"CLARABEL": _GAPS, "MOREAU": _GAPS, "SCS": _EPS, "OSQP": _EPS}
# diffcp 1.1 reports Clarabel's "AlmostSolved" by words that CVXPY 1.9 looks up under SCS's and does
# not know. The point is there and so is its derivative; the status stays "optimal_inaccurate".
_SPELLED = {
    "Optimal Inaccurate": "Solved/Inaccurate",
    "Infeasible Inaccurate": "Infeasible/Inaccurate",
    "Unbounded Inaccurate": "Unbounded/Inaccurate",
}


def tolerances(solver: str, value: float) -> dict[str, float]:
    """Return the options that set a solver's tolerances; none for 0, the solver's own default."""
    return dict.fromkeys(_TOLERANCES[solver.upper()], value) if value else {}


@dataclass(frozen=True)
class _Structure:
    """What the canonical form depends on, besides sizes; the values are parameters."""

    shape: tuple[int, ...]  # n, neq, nineq and the rows of each cone
    quadratic: str  # "none", "diagonal" or "full" P
    balls: bool  # F = I in all cones
    offset: bool  # some g ≠ 0


@dataclass(eq=False)
class Program:
    """A CVXPY problem from its declaration to its gradients.

    Attributes
    ----------
    problem, z
        The problem and its variable.
    given
        Parameters by name.
    rows
        The constraints of Az = b and of Gz ≤ h, None where there are none, and those of the cones.
    structure
        Of the parametrized form, with `read`, which finds it in other data.
    """

    problem: cp.Problem
    z: cp.Variable
    given: dict[str, Any]
    rows: tuple[Any, Any, list[Any]]
    read: Callable[[Instance | Data], _Structure] | None = None
    structure: _Structure | None = None
    compiled: tuple[Any, Any, Any] | None = None
    root: Any = None  # R where it is full

    def canonicalize(self, problem: Instance | Data) -> None:
        """Set all parameters of the parametrized form, and let CVXPY make the cone program.

        Raises
        ------
        MethodError
            If the data have another structure than those that it was declared for.
        """
        if self.read is None or self.structure is None or self.read(problem) != self.structure:
            raise MethodError(f"{problem.name} has another structure than the template")
        values = _values(problem, self.structure)
        self.root = values["R"] if self.structure.quadratic == "full" else None
        for name, parameter in self.given.items():
            parameter.value = values[name]
        self.compiled = self.problem.get_problem_data(cp.DIFFCP, enforce_dpp=True)

    def solve(self, data: Data, options: Mapping[str, Any]) -> Any:
        """Solve by diffcp, which prepares the derivative too; `unpack` takes what it returns.

        Raises
        ------
        MethodError
            If CVXPY or the solver raises.
        """
        try:
            if self.compiled is None:
                return self.problem.solve(requires_grad=True, **options)
            program, chain, _ = self.compiled
            return chain.solve_via_data(self.problem, program, False, False, dict(options))
        except Exception as error:
            raise _failure(data, error) from error

    def unpack(self, data: Data, raw: Any) -> None:
        """Carry the cone program's solution back to CVXPY's variables."""
        if self.compiled is None:
            return
        _, chain, inverse = self.compiled
        word = raw["info"].get("status")
        raw["info"]["status"] = _SPELLED.get(word, word)
        try:
            self.problem.unpack_results(raw, chain, inverse)
        except Exception as error:
            raise _failure(data, error) from error

    def solution(self, data: Data, info: Mapping[str, object]) -> Solution:
        """Return point, multipliers and status of the solved problem."""
        status = str(self.problem.status)
        if self.z.value is None:
            raise MethodError(f"{data.name} has no solution by CVXPY: {status}")
        iterations = self.problem.solver_stats.num_iters
        equality, inequality, cones = self.rows
        # The first part of a cone's dual is the multiplier of ‖Fz + g‖ − cᵀz − d ≤ 0.
        mu = [np.ravel(cone.dual_value[0]) for cone in cones]
        return Solution(
            z=np.asarray(self.z.value),
            nu=_dual(equality),
            lam=_dual(inequality),
            mu=np.concatenate(mu) if mu else None,
            status="solved" if status == "optimal" else status,
            iterations=None if iterations is None else int(iterations),
            info=info,
        )

    def gradient(self, name: str) -> Array:
        """Return the gradient that `Problem.backward` has found, zeros where there are no rows."""
        if name == "P":
            # L(R) with RᵀR = P: dP = dRᵀR + RᵀdR, so ∇R = 2R∇P.
            half = np.linalg.solve(self.root, np.asarray(self.given["R"].gradient))
            return 0.25 * (half + half.T)
        if name not in self.given:
            n = self.z.size
            return np.zeros((0, n) if name in "AG" else 0)
        return np.asarray(self.given[name].gradient)


def constant(data: Data, parameters: Sequence[str], keep_P: bool = True) -> Program:
    """Declare a problem with these of q, b, h as parameters and everything else as constants."""
    z = cp.Variable(data.n, name="z")
    values: dict[str, Any] = {name: getattr(data, name) for name in ("q", "b", "h")}
    given = {
        name: cp.Parameter(len(values[name]), name=name, value=values[name])
        for name in parameters
        if len(values[name])
    }
    values |= given
    objective = values["q"] @ z
    if keep_P and abs(data.P).max() > 0:
        # psd_wrap spares CVXPY's eigenvalue test of P, as its manual advises.
        objective = objective + 0.5 * cp.quad_form(z, cp.psd_wrap(data.P))
    equality = data.A @ z == values["b"] if data.neq else None
    inequality = data.G @ z <= values["h"] if data.nineq else None
    cones = [cp.SOC(c.c @ z + c.d, c.F @ z + c.g) for c in data.cones]
    return _program(objective, z, given, (equality, inequality, cones))


def parametrized(template: Instance, wrt: tuple[str, ...], keep_P: bool) -> Program:
    """Declare a problem by the rules of disciplined parametrized programming, all data parameters.

    The objective is ½‖Rz‖² + qᵀz with RᵀR = P, because a quadratic form with a parameter is not
    allowed. R is the Cholesky factor, or the roots of a diagonal P.

    Parameters
    ----------
    template
        Gives the structure; `Program.canonicalize` sets the values.
    wrt
        Parameters that gradients are wanted of.
    keep_P
        Whether the objective has its quadratic term.
    """

    def read(problem: Instance | Data) -> _Structure:
        return _Structure(
            (problem.n, problem.neq, problem.nineq, *(c.g.size for c in problem.cones)),
            _quadratic(problem, full="P" in wrt) if keep_P and problem.P.size else "none",
            all(_is_identity(c.F) for c in problem.cones),
            any(bool(c.g.any()) for c in problem.cones),
        )

    n, neq, nineq, structure = template.n, template.neq, template.nineq, read(template)
    z = cp.Variable(n)
    given: dict[str, Any] = {"q": cp.Parameter(n)}
    objective = given["q"] @ z
    if structure.quadratic == "diagonal":
        given["R"] = cp.Parameter(n)
        objective = objective + 0.5 * cp.sum_squares(cp.multiply(given["R"], z))
    elif structure.quadratic == "full":
        given["R"] = cp.Parameter((n, n))
        objective = objective + 0.5 * cp.sum_squares(given["R"] @ z)
    equality = inequality = None
    if neq:
        given |= {"A": cp.Parameter((neq, n)), "b": cp.Parameter(neq)}
        equality = given["A"] @ z == given["b"]
    if nineq:
        given |= {"G": cp.Parameter((nineq, n)), "h": cp.Parameter(nineq)}
        inequality = given["G"] @ z <= given["h"]
    cones = _parametrized_cones(template, structure, z, given)
    return _program(objective, z, given, (equality, inequality, cones), read, structure)


def _program(
    objective: Any, z: Any, given: dict[str, Any], rows: tuple[Any, Any, list[Any]], *more: Any
) -> Program:
    linear = [one for one in rows[:2] if one is not None]
    return Program(cp.Problem(cp.Minimize(objective), linear + rows[2]), z, given, rows, *more)


def _quadratic(problem: Instance | Data, *, full: bool) -> str:
    entries = problem.P.count_nonzero() if sp.issparse(problem.P) else np.count_nonzero(problem.P)
    if entries:
        # A gradient of all of P needs all of R as parameter.
        diagonal = entries == np.count_nonzero(problem.P.diagonal())
        return "diagonal" if diagonal and not full else "full"
    if full:
        raise MethodError(f"P of {problem.name} is zero: CVXPY has no gradient of its root")
    return "none"


def _values(problem: Instance | Data, structure: _Structure) -> dict[str, Any]:
    values: dict[str, Any] = {"q": problem.q, "A": _dense(problem.A), "b": problem.b}
    values |= {"G": _dense(problem.G), "h": problem.h}
    if structure.quadratic == "diagonal":
        values["R"] = np.sqrt(problem.P.diagonal())
    elif structure.quadratic == "full":
        values["R"] = _root(_dense(problem.P))
    if problem.cones:
        values["C"] = np.array([cone.c for cone in problem.cones])
        values["d"] = np.array([cone.d for cone in problem.cones])
        if structure.balls and structure.offset:
            values["offset"] = np.column_stack([cone.g for cone in problem.cones])
        elif not structure.balls:
            for i, cone in enumerate(problem.cones):
                values |= {f"F{i}": _dense(cone.F), f"g{i}": cone.g}
    return values


def _parametrized_cones(
    problem: Instance, structure: _Structure, z: cp.Variable, given: dict[str, Any]
) -> list[Any]:
    m, n = len(problem.cones), problem.n
    if m == 0:
        return []
    C, d = cp.Parameter((m, n)), cp.Parameter(m)
    given |= {"C": C, "d": d}
    if structure.balls:
        # One constraint for all: with one each, CVXPY's map from parameters to problem data
        # takes memory as the cube of the size, 1.4 GB at 200x40.
        X = cp.reshape(z, (n, 1), order="F") @ np.ones((1, m))
        if structure.offset:
            given["offset"] = cp.Parameter((n, m))
            X = X + given["offset"]
        return [cp.SOC(C @ z + d, X, axis=0)]
    cones = []
    for i, cone in enumerate(problem.cones):
        F, g = cp.Parameter(cone.F.shape), cp.Parameter(cone.g.size)
        given |= {f"F{i}": F, f"g{i}": g}
        cones.append(cp.SOC(C[i] @ z + d[i], F @ z + g))
    return cones


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
