"""Proofs that a problem with cones has no solution."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers import BPQP
from bpqp_bench.layers.conic_certificates import conic_verdict
from bpqp_bench.layers.problem import ConvexQP
from bpqp_bench.problem.instance import SecondOrderCone, Size


def ball(n, radius):
    return SecondOrderCone(np.eye(n), np.zeros(n), np.zeros(n), radius)


def problem(P, q, G, h, *cones):
    n = len(q)
    rows = np.asarray(G, dtype=float).reshape(-1, n)
    return ConvexQP(
        np.asarray(P, dtype=float),
        np.asarray(q, dtype=float),
        np.zeros((0, n)),
        np.zeros(0),
        rows,
        np.asarray(h, dtype=float),
        cones,
    )


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_a_half_space_beside_a_ball(unit):
    apart = problem(np.eye(2), [0, 0], [[-1, 0]], [-1.01 * unit], ball(2, unit))
    assert conic_verdict(apart) == "infeasible"
    touching = problem(np.eye(2), [0, 0], [[-1, 0]], [-0.99 * unit], ball(2, unit))
    assert conic_verdict(touching) == ""


def test_two_balls_apart():
    other = SecondOrderCone(np.eye(3), np.array([-2.5, 0.0, 0.0]), np.zeros(3), 1.0)
    assert conic_verdict(problem(np.eye(3), [0, 0, 0], [], [], ball(3, 1.0), other)) == "infeasible"


def test_a_cone_that_the_objective_falls_along():
    # ‖z₂‖ ≤ z₁, minimize −z₁; bounded once z₁ costs something, or along z₂ alone.
    cone = SecondOrderCone(np.array([[0.0, 1.0]]), np.zeros(1), np.array([1.0, 0.0]), 0.0)
    zero = np.zeros((2, 2))
    assert conic_verdict(problem(zero, [-1, 0], [], [], cone)) == "unbounded"
    assert conic_verdict(problem(zero, [1, 0.5], [], [], cone)) == ""
    assert conic_verdict(problem(np.diag([1.0, 0.0]), [-1, 0], [], [], cone)) == ""


@pytest.mark.parametrize("family", ["socp", "socp-robust"])
def test_no_proof_where_there_is_a_solution(registry, family):
    for seed in range(5):
        instance = registry.family(family).draw(Size.parse("10x5"), seed)
        assert conic_verdict(ConvexQP.of(instance)) == ""
        away = replace(instance.cones[0], d=-1e3)  # ‖Fz + g‖ ≤ cᵀz − 1000, with c = 0
        if not away.c.any():
            qp = replace(ConvexQP.of(instance), cones=(away, *instance.cones[1:]))
            assert conic_verdict(qp) == "infeasible"


def test_the_layer_says_what_is_proved():
    eye, zero = torch.eye(2).double(), torch.zeros(2).double()
    row, side = torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([-2.0]).double()
    with pytest.raises(InstanceError, match="infeasible"):
        BPQP()(eye, zero, G=row, h=side, cones=[ball(2, 1.0)])
    cone = SecondOrderCone(np.array([[0.0, 1.0]]), np.zeros(1), np.array([1.0, 0.0]), 0.0)
    with pytest.raises(InstanceError, match="unbounded"):
        BPQP()(0.0 * eye, torch.tensor([-1.0, 0.0]).double(), cones=[cone])
