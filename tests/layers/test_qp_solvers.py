"""Every QP solver by name: one property, all solvers."""

import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from qp_samples import planted_qp

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.layers import BPQP
from bpqp_bench.layers.active_set import polish_qp
from bpqp_bench.layers.problem import ConvexQP, Tolerances
from bpqp_bench.layers.qp_solvers import CONE_SOLVERS, DENSE_ONLY, SOLVERS, solve_qp
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import SecondOrderCone

TIGHT = Tolerances(1e-9, 1e-9, 100_000)
# HiGHS regularizes the Hessian by 1e-7, which is the accuracy that it can reach.
ACCURACY = dict.fromkeys(SOLVERS, 1e-6) | {"highs": 1e-5}


def planted(**shape):
    """Draw a strictly convex QP with known z*, ν*, λ*."""
    data, *solution = planted_qp(**shape)
    return ConvexQP(**data), *solution


def sparse(qp):
    return replace(qp, P=sp.csc_matrix(qp.P), A=sp.csc_matrix(qp.A), G=sp.csc_matrix(qp.G))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("missing", ["", "equalities", "inequalities", "both"])
def test_finds_the_planted_solution_and_multipliers(name, missing):
    neq = 0 if missing in ("equalities", "both") else 3
    nineq = 0 if missing in ("inequalities", "both") else 6
    qp, z, nu, lam = planted(neq=neq, nineq=nineq, active=min(nineq, 3))
    found = solve_qp(qp, name, TIGHT)
    assert found.status == "solved"
    tolerance = ACCURACY[name]
    np.testing.assert_allclose(found.z, z, atol=tolerance)
    np.testing.assert_allclose(found.nu, nu, atol=10 * tolerance)
    np.testing.assert_allclose(found.lam, lam, atol=10 * tolerance)
    assert (found.lam >= 0).all()
    gradient = qp.P @ found.z + qp.q + qp.A.T @ found.nu + qp.G.T @ found.lam
    assert found.dual == pytest.approx(np.abs(gradient).max(), abs=1e-13)
    violation = [np.abs(qp.A @ found.z - qp.b), np.maximum(qp.G @ found.z - qp.h, 0.0)]
    assert found.primal == pytest.approx(np.concatenate(violation).max(initial=0.0), abs=1e-13)


@pytest.mark.parametrize("name", SOLVERS)
def test_sparse_data_give_the_same_or_are_refused(name):
    qp, z, _, lam = planted()
    if name in DENSE_ONLY:
        with pytest.raises(SpecError, match="dense matrices only"):
            solve_qp(sparse(qp), name)
        return
    found = solve_qp(sparse(qp), name, TIGHT)
    np.testing.assert_allclose(found.z, z, atol=ACCURACY[name])
    np.testing.assert_allclose(found.lam, lam, atol=10 * ACCURACY[name])


@pytest.mark.parametrize("name", SOLVERS)
def test_infeasible_problems_are_called_so(name):
    qp = planted()[0]
    above = replace(qp, G=np.concatenate([qp.G, -qp.G[:1]]), h=np.append(qp.h, -qp.h[0] - 1.0))
    found = solve_qp(above, name, Tolerances(1e-6, 1e-6, 20_000))
    assert found.status == "infeasible"
    assert np.isnan(found.z).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_unbounded_problems_are_called_so(name):
    qp = replace(planted()[0], P=np.zeros((12, 12)))
    status = solve_qp(qp, name, Tolerances(1e-6, 1e-6, 20_000)).status
    if name == "quadprog":  # which asks for P ≻ 0 before anything else
        assert status == "failed (quadprog: P is not positive definite)"
    else:
        assert status == "unbounded"


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "quadprog"])
def test_iteration_limit_is_said(name):
    found = solve_qp(planted()[0], name, Tolerances(1e-9, 1e-9, 1))
    assert found.status == "iteration limit"


@pytest.mark.parametrize("name", SOLVERS)
def test_phases_are_marked_and_inputs_left_alone(name):
    qp = planted()[0]
    before = {key: np.array(getattr(qp, key)) for key in ("P", "q", "A", "b", "G", "h")}
    clock = PhaseClock()
    _, spent = clock.measure(lambda: solve_qp(qp, name, TIGHT, clock))
    assert spent.solve > 0
    assert spent.prepare > 0
    assert spent.extract > 0
    # DAQP and quadprog are one call, which cannot be split.
    assert (spent.setup == 0) == (name in ("daqp", "quadprog"))
    for key, value in before.items():
        np.testing.assert_array_equal(getattr(qp, key), value)


@pytest.mark.parametrize("name", SOLVERS)
def test_cones(name):
    n = 4
    q, none = np.arange(1.0, 5.0), np.zeros((0, n))
    ball = SecondOrderCone(F=np.eye(n), g=np.zeros(n), c=np.zeros(n), d=2.0)
    qp = ConvexQP(np.zeros((n, n)), q, none, np.zeros(0), none, np.zeros(0), (ball,))
    if name not in CONE_SOLVERS:
        with pytest.raises(SpecError, match="no second-order cones"):
            solve_qp(qp, name)
        return
    found = solve_qp(qp, name, Tolerances(1e-9, 1e-9))
    np.testing.assert_allclose(found.z, -2.0 * q / np.linalg.norm(q), atol=1e-6)
    np.testing.assert_allclose(found.mu, [np.linalg.norm(q)], atol=1e-6)


def test_a_matrix_that_is_not_positive_semidefinite_is_no_solution():
    qp = replace(planted()[0], P=-np.eye(12))
    for name in ("osqp", "clarabel", "daqp", "quadprog", "scs", "piqp"):
        assert solve_qp(qp, name, Tolerances(1e-6, 1e-6, 1000)).status != "solved"


def test_unknown_names_are_refused():
    with pytest.raises(SpecError, match="unknown QP solver 'gurobi'"):
        solve_qp(planted()[0], "gurobi")
    with pytest.raises(SpecError, match="no polishing"):
        solve_qp(planted()[0], "piqp", polish=True)


@pytest.mark.parametrize("name", ["osqp", "clarabel", "highs", "scs", "scs-indirect", "daqp"])
def test_a_time_limit_ends_the_solvers_that_know_of_limits(name):
    qp, *_ = planted(n=80, neq=10, nineq=200, active=40)
    assert solve_qp(qp, name, replace(TIGHT, time_limit=1e-6)).status == "time limit"


def test_polishing_and_the_layer_end_at_the_time_limit():
    qp, z, *_ = planted(n=20, neq=2, nineq=10, active=5)
    begin = solve_qp(qp, "clarabel", TIGHT)
    ended = polish_qp(qp, begin, deadline=time.monotonic())
    assert (ended.steps, ended.converged) == (0, False)
    assert polish_qp(qp, begin, deadline=time.monotonic() + 60.0).converged
    data = [torch.tensor(getattr(qp, name)) for name in "PqAbGh"]
    layer = BPQP("osqp", time_limit=1e-6)
    with pytest.raises(MethodError, match="tried osqp"):
        layer(*data)
    np.testing.assert_allclose(BPQP("osqp", time_limit=60.0)(*data), z, atol=1e-9)
