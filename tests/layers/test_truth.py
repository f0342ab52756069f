"""What a layer says is so: verdicts, flags and statuses against closed forms."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers import BPQP, AltDiff, ConvexProgram, ExactKKT
from bpqp_bench.layers.certificates import farkas_vector, is_farkas, recession_direction
from bpqp_bench.layers.convex_program import quadratic_solver
from bpqp_bench.layers.problem import ConvexQP
from bpqp_bench.layers.solver_pass import BPQPWarning

ALL = ("active-set", "osqp", "proxqp", "piqp", "clarabel", "daqp")


def t(x):
    return None if x is None else torch.tensor(x, dtype=torch.float64)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_small_objective_is_not_unbounded(solver, scale):
    P, q = t([[1e-5, 0.0], [0.0, 2e-5]]), t([-2e-5, -1e-5])
    z = BPQP(solver)(P, q * scale, None, None, -eye(2), t([0.0, 0.0]))
    torch.testing.assert_close(z, scale * t([2.0, 0.5]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("backward", ["direct", "osqp", "piqp", "clarabel", "scs"])
@pytest.mark.parametrize("p", [[1.0, 10.0, 1e5], [1.0, 1e8], [60.0, 2e9, 1000.0]])
def test_backward_problems_of_any_condition(p, backward):
    p = t(p)
    q = (-p).clone().requires_grad_()
    layer = BPQP(backward=backward)
    (layer(torch.diag(p), q) * p).sum().backward()
    assert layer.last_info[0]["gradient"] == "exact"
    torch.testing.assert_close(q.grad, -torch.ones_like(p), rtol=1e-6, atol=0)


@pytest.mark.parametrize("solver", ["active-set", "clarabel", "osqp", "piqp", "proxqp"])
@pytest.mark.parametrize("far", [1e9, 1e12, 1e15, 1e19, 1e20, np.inf])
def test_a_bound_that_means_none(solver, far):
    q, h = t([-2.0]).requires_grad_(), t([-1.0, far]).requires_grad_()
    z = BPQP(solver)(t([[2.0]]), q, None, None, t([[-2.0], [1.0]]), h)
    assert float(z) == pytest.approx(1.0, abs=1e-9)
    z.sum().backward()
    assert h.grad.tolist() == [0.0, 0.0]
    assert float(q.grad) == pytest.approx(-0.5)


def test_a_bound_of_minus_infinity_has_no_solution():
    with pytest.raises(InstanceError, match="infeasible"):
        BPQP()(eye(1), t([0.0]), None, None, eye(1), t([-np.inf]))


@pytest.mark.parametrize("polish", ["active-set", "none"])
@pytest.mark.parametrize("solver", ["active-set", "clarabel"])
def test_binding_rows_at_the_origin(solver, polish):
    layer = BPQP(solver, polish=polish, eps_abs=1e-9, eps_rel=1e-9)
    q = t([1.0, 0.5]).requires_grad_()
    layer(eye(2), q, None, None, -eye(2), t([0.0, 0.0])).sum().backward()
    assert q.grad.abs().max() < 1e-9
    q, h = t([-12.0]).requires_grad_(), t([2.0, 0.0]).requires_grad_()
    layer(t([[5.0]]), q, None, None, t([[1.0], [3.0]]), h).sum().backward()
    assert abs(float(q.grad)) < 1e-9
    torch.testing.assert_close(h.grad, t([0.0, 1 / 3]), rtol=0, atol=1e-9)


def _projection():
    none = np.zeros(0)
    return ConvexProgram(
        lambda z, y: ((z - y) ** 2).sum() / 2,
        None,
        lambda z, y: -z,
        solver=quadratic_solver(
            lambda y: ConvexQP(np.eye(2), -y, np.zeros((0, 2)), none, -np.eye(2), np.zeros(2))
        ),
    )


@pytest.mark.parametrize(
    ("y", "J"), [([-1.0, -0.5], [[0, 0], [0, 0]]), ([1.0, 2.0], [[1, 0], [0, 1]])]
)
def test_convex_program_at_the_origin_and_in_the_interior(y, J):
    program = _projection()
    found = torch.autograd.functional.jacobian(program, t(y))
    torch.testing.assert_close(found, t(J).double(), rtol=0, atol=1e-6)
    assert program.last_info["gradient"] == "exact"


@pytest.mark.parametrize("pair", [("active-set", "direct"), ("osqp", "osqp"), ("proxqp", "direct")])
@pytest.mark.parametrize("apart", [0.0, 1e-16, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6])
def test_rows_that_nearly_repeat(pair, apart):
    A = t([[1.0, 0.5], [2.0, 1.0 + apart]])
    b = A @ t([0.5, 0.5])
    q = t([0.0, 0.0]).requires_grad_()
    layer = BPQP(*pair)
    z = layer(eye(2), q, A, b)
    z.sum().backward()
    assert (A @ z - b).abs().max() < 1e-9
    assert torch.isfinite(q.grad).all()
    if apart in (0.0, 1e-6):
        expected = t([0.2, -0.4]) if apart == 0.0 else t([0.0, 0.0])
        torch.testing.assert_close(q.grad, expected, rtol=0, atol=1e-6)


def test_repeated_entries_of_a_sparse_matrix():
    where, values = torch.tensor([[0, 0, 0], [0, 1, 1]]), t([1.0, 0.5, 1.5]).requires_grad_()
    A = torch.sparse_coo_tensor(where, values, (1, 2), check_invariants=True)
    (BPQP()(eye(2), t([0.0, 0.0]), A, t([3.0])) @ t([1.0, 5.0])).backward()
    # z = 3a/|a|² with a = (1, 2): dL/da = (−2.04, −2.28)
    torch.testing.assert_close(values.grad, t([-2.04, -2.28, -2.28]))


def _newton():
    return ConvexProgram(
        lambda z, P, q, *_: z @ P @ z / 2 + q @ z,
        solver=lambda P, q, *_: (-torch.linalg.solve(P, q), [], []),
    )


def _interior():
    P = t([[2.0, 0.5], [0.5, 1.0]])
    return [P, t([1.0, -1.0]), t([[1.0, 1.0]]), t([0.5]), t([[1.0, 0.0]]), t([9.0])]


LAYERS = [BPQP, lambda: BPQP("osqp"), ExactKKT, AltDiff, _newton]


@pytest.mark.parametrize("make", LAYERS)
def test_the_answer_shares_no_memory_with_what_backward_keeps(make):
    found = []
    for shift in (0.0, 1.5):
        leaves = [part.clone().requires_grad_() for part in _interior()]
        z = make()(*leaves)
        z -= shift
        loss = (z * t([1.0, 2.0])).sum()
        found.append(torch.autograd.grad(loss, leaves, allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert one is other or torch.equal(one, other)


@pytest.mark.parametrize("make", LAYERS)
def test_second_derivatives_are_refused_not_zero(make):
    P, q, *rows = _interior()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.functional.hessian(lambda q: (make()(P, q, *rows) ** 2).sum() / 2, q)


def test_nothing_is_printed():
    code = """
import torch
from bpqp_bench.layers import BPQP
for options in ([], ["osqp", "osqp"], ["highs"], ["scs"], ["proxqp", "piqp"]):
    q = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    BPQP(*options)(torch.eye(2).double(), q).sum().backward()
    print("after", *options, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["after", "after osqp osqp", "after highs", "after scs", "after proxqp piqp"]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("solver", ["active-set", "proxqp"])
def test_rounding_is_that_of_the_type_that_the_matrix_came_in(solver):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(20, 40, generator=generator)
    P, box, one = X.T @ X / 20, -torch.eye(40), torch.ones(40)
    z = BPQP(solver)(P, one, None, None, box, one)
    same = BPQP(solver)(P, one.double(), None, None, box, one)
    torch.testing.assert_close(same.float(), z, rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", ["active-set", "osqp"])
def test_a_bad_instance_costs_no_other(solver):
    P, G = eye(1).requires_grad_(), t([[1.0], [-1.0]])
    q = t([[0.0], [0.0], [0.0], [np.nan]]).requires_grad_()
    h = t([[2.0, 1.0], [-1.0, -1.0], [3.0, -1.0], [1.0, 1.0]])
    layer = BPQP(solver, on_failure="nan")
    z = layer(P, q, None, None, G, h)
    assert z.isnan().squeeze(1).tolist() == [False, True, False, True]
    torch.testing.assert_close(z[[0, 2]], t([[0.0], [1.0]]))
    z[[0, 2]].sum().backward()
    assert torch.equal(q.grad, t([[-1.0], [0.0], [0.0], [0.0]]))
    assert torch.isfinite(P.grad).all()
    assert [facts["status"] for facts in layer.last_info] == ["solved", "failed"] * 2
    assert "instance 1 is infeasible" in layer.last_info[1]["error"]
    with pytest.raises(InstanceError, match=r"2 instances failed: .*instance 1 .*instance 3 has"):
        BPQP(solver)(P, q, None, None, G, h)


@pytest.mark.parametrize("solver", ["active-set", "osqp"])
def test_an_empty_batch(solver):
    P, q = eye(1).requires_grad_(), torch.zeros(0, 1, dtype=torch.float64, requires_grad=True)
    z = BPQP(solver)(P, q, None, None, -eye(1), t([1.0]))
    assert z.shape == (0, 1)
    z.sum().backward()
    assert q.grad.shape == (0, 1)
    assert P.grad.tolist() == [[0.0]]


NARROW = [[1.0], [-1.0]], [10.0, -10.0001]
NO_SOLUTION = {
    "infeasible": (eye(2), [-1.0, -2.0], [[1.0, 0.0], [-1.0, 0.0]], [0.0, -1.0]),
    "narrowly infeasible": (eye(1), [0.0], *NARROW),
    "unbounded": (0 * eye(2), [-1.0, -2.0], [[-1.0, 0.0], [0.0, -1.0]], [0.0, 0.0]),
    "unbounded along a null vector": (
        t([[1.0, 2.0], [2.0, 4.0]]),
        [0.0, 300.0],
        [[-2.0, 0.0]],
        [2.0],
    ),
}


@pytest.mark.parametrize(
    "make", [BPQP, lambda: BPQP("osqp"), lambda: BPQP("proxqp"), AltDiff, ExactKKT]
)
@pytest.mark.parametrize("case", NO_SOLUTION)
def test_problems_without_a_solution(make, case):
    P, q, G, h = NO_SOLUTION[case]
    with pytest.raises(InstanceError, match=case.split()[-1 if "infeasible" in case else 0]):
        make()(P, t(q), None, None, t(G), t(h))


@pytest.mark.parametrize(
    ("solver", "P", "q", "A", "b", "G", "h", "z"),
    [
        ("osqp", [[8e-5]], [-1.0], None, None, [[-1.0]], [0.0], [12500.0]),
        ("osqp", [[1.0]], [0.0], [[3e-5]], [1.0], None, None, [1 / 3e-5]),
        ("proxqp", [[0.0]], [-1.0], None, None, [[0.001], [1.0]], [1.0, 0.0], [0.0]),
        ("piqp", [[1.0]], [0.0], None, None, [[2e-5]], [-1.0], [-50000.0]),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_bounded_and_feasible_problems_have_solutions(solver, P, q, A, b, G, h, z, own):
    layer = BPQP(solver if own else "active-set")
    found = layer(*(t(part) for part in (P, q, A, b, G, h)))
    torch.testing.assert_close(found, t(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["active-set", "clarabel"])
def test_a_far_row_and_a_flat_objective(solver):
    # minimize z1²/2 + z3 with z1 = −z3: −1/2 at z1 = 1
    P = torch.diag(t([1.0, 0.0, 0.0]))
    G, h = t([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]), t([0.0, 1e15])
    z = BPQP(solver)(P, t([0.0, 0.0, 1.0]), t([[-1.0, 0.0, -1.0]]), t([0.0]), G, h)
    torch.testing.assert_close(z[[0, 2]], t([1.0, -1.0]))


@pytest.mark.parametrize("solver", ALL)
def test_strided_arguments(solver):
    q = t([[-1.0, 1.0], [-1.0, 1.0]])[:, 0]
    torch.testing.assert_close(BPQP(solver)(eye(2), q, None, None, eye(2), 10 * t([1.0, 1.0])), -q)


@pytest.mark.parametrize("pair", [("active-set", "direct"), ("osqp", "osqp")])
@pytest.mark.parametrize("s", [1.0, 1e-4, 1e-8, 1e8])
def test_the_scale_of_a_row_does_not_matter(pair, s):
    q = t([-1.0, -1.0]).requires_grad_()
    layer = BPQP(*pair)
    layer(eye(2), q, None, None, s * t([[1.0, 2.0]]), s * t([1.0]))[0].backward()
    torch.testing.assert_close(q.grad, t([-0.8, 0.4]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
@pytest.mark.parametrize("pair", [("active-set", "direct"), ("clarabel", "direct")])
def test_a_loss_that_is_not_finite_gives_nan(pair, factor):
    q = t([-1.0, -2.0]).requires_grad_()
    z = BPQP(*pair)(eye(2), q, None, None, t([[1.0, 1.0]]), t([1.0]))
    (z * factor).sum().backward()
    assert q.grad.isnan().all()


def test_a_subnormal_hessian_is_an_lp():
    box, one = torch.cat([eye(2), -eye(2)]), t([1.0, 1.0, 1.0, 1.0])
    for solver in ("active-set", "clarabel"):
        z = BPQP(solver)(1e-320 * eye(2), -one[:2], None, None, box, one)
        torch.testing.assert_close(z, one[:2])


def test_alt_diff_tells_what_it_has_not_solved():
    q = t([-3.0, -2e6])
    with pytest.warns(BPQPWarning, match="Alt-Diff ended"):
        AltDiff()(torch.diag(t([1.0, 1e6])), q, None, None, eye(2), t([5.0, 1.0]))
    with pytest.raises(InstanceError, match="G has shape"):
        AltDiff()(eye(2), t([1.0, 1.0]), None, None, eye(2), t([0.1]))
    layer = AltDiff()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = layer(eye(2), t([-1.0, -2.0]), None, None, eye(2), t([0.5, 9.0]))
    torch.testing.assert_close(z, t([0.5, 2.0]), rtol=0, atol=1e-6)
    assert layer.last_info[0]["status"] == "solved"


class TestBounds:
    def test_box_and_two_sided_rows(self):
        q = t([-3.0, 2.0, 0.5, -1.0]).requires_grad_()
        lb = t([0.0, 0.0, 0.0, -np.inf]).requires_grad_()
        ub = t([1.0, 1.0, 1.0, np.inf]).requires_grad_()
        z = BPQP()(eye(4), q, lb=lb, ub=ub)
        torch.testing.assert_close(z, t([1.0, 0.0, 0.0, 1.0]))
        z.sum().backward()
        torch.testing.assert_close(q.grad, t([0.0, 0.0, 0.0, -1.0]))
        torch.testing.assert_close(lb.grad, t([0.0, 1.0, 1.0, 0.0]))
        torch.testing.assert_close(ub.grad, t([1.0, 0.0, 0.0, 0.0]))
        low = t([4.0]).requires_grad_()
        z = BPQP()(eye(4), 0 * q, None, None, t([[1.0, 1.0, 1.0, 1.0]]), t([np.inf]), l=low)
        torch.testing.assert_close(z, t([1.0, 1.0, 1.0, 1.0]))
        z[0].backward()
        torch.testing.assert_close(low.grad, t([0.25]))

    def test_batches(self):
        q = t([[-3.0, 2.0], [0.0, -5.0], [1.0, 1.0]])
        z = BPQP()(eye(2), q, lb=t([0.0, 0.0]), ub=t([[1.0, 1.0], [2.0, 2.0], [1.0, np.inf]]))
        torch.testing.assert_close(z, t([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))

    def test_bad_ones(self):
        with pytest.raises(InstanceError, match="infeasible"):
            BPQP()(eye(1), t([0.0]), lb=t([1.0]), ub=t([0.0]))
        with pytest.raises(InstanceError, match="G and h, too"):
            BPQP()(eye(1), t([0.0]), l=t([1.0]))
        with pytest.raises(InstanceError, match="expected 1 entries"):
            BPQP()(eye(1), t([0.0]), lb=t([1.0, 2.0]))


def test_certificates_are_checked_on_the_data_themselves():
    G, h, none = np.array([[1.0], [-1.0]]), np.array([1.0, -2.0]), np.zeros(0)
    qp = ConvexQP(np.eye(1), np.zeros(1), np.zeros((0, 1)), none, G, h)
    nu, lam = farkas_vector(qp)
    assert is_farkas(qp, nu, lam)
    assert not is_farkas(qp, nu, np.array([1.0, 0.9]))
    assert recession_direction(qp) is None
    feasible = ConvexQP(np.eye(1), np.zeros(1), np.zeros((0, 1)), none, G, np.array([2.0, -2.0]))
    assert farkas_vector(feasible) is None
