"""ConvexProgram: closed forms and finite differences of the solved problem."""

import numpy as np
import pytest
import torch

from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.layers import ConvexProgram
from bpqp_bench.layers.convex_program import cvxpy_solver, quadratic_solver
from bpqp_bench.layers.problem import ConvexQP, Tolerances
from bpqp_bench.problem.instance import SecondOrderCone

TIGHT = Tolerances(1e-10, 1e-10)


def _empty(n):
    return {"A": np.zeros((0, n)), "b": np.zeros(0), "G": np.zeros((0, n)), "h": np.zeros(0)}


def _draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def ball(backward="direct", **options):
    """Minimize qᵀz subject to ‖z‖ ≤ c, as ½(‖z‖² − c²) ≤ 0."""

    def build(q, c):
        n = len(q)
        cone = SecondOrderCone(F=np.eye(n), g=np.zeros(n), c=np.zeros(n), d=float(c))
        return ConvexQP(np.zeros((n, n)), q, **_empty(n), cones=(cone,))

    return ConvexProgram(
        lambda z, q, c: q @ z,
        inequalities=lambda z, q, c: (torch.linalg.vector_norm(z) - c).reshape(1),
        solver=quadratic_solver(build, "clarabel", TIGHT),
        backward=backward,
        **options,
    )


@pytest.mark.parametrize("backward", ["direct", "osqp", "proxqp", "daqp"])
def test_ball_has_the_closed_forms_gradient(backward):
    q, c = _draw(6).requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    v = _draw(6, seed=1)
    program = ball(backward)
    z = program(q, c)
    norm = torch.linalg.vector_norm(q.detach())
    unit = q.detach() / norm
    assert torch.allclose(z, -1.5 * unit, atol=1e-12)
    (z @ v).backward()
    expected = -(1.5 / norm) * (v - unit * (unit @ v))
    assert torch.allclose(q.grad, expected, rtol=1e-7, atol=1e-9)
    assert c.grad == pytest.approx(-(unit @ v).item(), rel=1e-7)
    assert program.last_info["gradient"] == "exact"
    assert program.last_info["active_rows"] == 1


def robust():
    """Minimize qᵀz subject to aᵢᵀz + ‖z‖ ≤ bᵢ, the paper's robust SOCP (eq. 20)."""

    def build(q, a, b):
        n = len(q)
        cones = tuple(
            SecondOrderCone(F=np.eye(n), g=np.zeros(n), c=-row, d=float(bound))
            for row, bound in zip(a, b, strict=True)
        )
        return ConvexQP(np.zeros((n, n)), q, **_empty(n), cones=cones)

    return ConvexProgram(
        lambda z, q, a, b: q @ z,
        inequalities=lambda z, q, a, b: a @ z + torch.linalg.vector_norm(z) - b,
        solver=quadratic_solver(build, "clarabel", TIGHT),
    )


def test_robust_socp_agrees_with_finite_differences_in_all_its_data():
    q, a, b = _draw(4, seed=3), 0.2 * _draw(3, 4, seed=4), torch.tensor([1.0, 1.2, 0.9]).double()
    assert torch.autograd.gradcheck(
        robust(), [part.requires_grad_() for part in (q, a, b)], eps=1e-5, atol=1e-6, rtol=1e-5
    )


def softmax_program():
    """Minimize yᵀz + Σ zᵢ log zᵢ on the simplex: z* = softmax(−y)."""

    def solver(y):
        z = torch.softmax(-y, 0)
        # ∇: y + 1 + log z + ν = 0 for every entry; z > 0 leaves z ≥ 0 without a multiplier.
        return z, [-(y[0] + 1 + z[0].log())], torch.zeros(len(y))

    return ConvexProgram(
        lambda z, y: y @ z + (z * z.log()).sum(),
        equalities=lambda z, y: z.sum().reshape(1) - 1,
        inequalities=lambda z, y: -z,
        solver=solver,
    )


def test_entropy_on_the_simplex_has_the_gradient_of_softmax():
    y, v = _draw(7).requires_grad_(), _draw(7, seed=1)
    program = softmax_program()
    (program(y) @ v).backward()
    z = torch.softmax(-y.detach(), 0)
    assert torch.allclose(y.grad, -(z * v - z * (z @ v)), rtol=1e-12, atol=1e-14)
    assert program.last_info["active_rows"] == 0


def test_refinement_repairs_a_rough_forward_pass():
    exact = softmax_program()

    def rough(y):
        z, nu, lam = exact.solver(y)
        noise = 1e-3 * torch.from_numpy(np.random.default_rng(0).standard_normal(len(y)))
        return z * (1 + noise), nu, lam

    y, v = _draw(7).requires_grad_(), _draw(7, seed=1)
    program = ConvexProgram(exact.objective, exact.equalities, exact.inequalities, solver=rough)
    z = program(y)
    assert torch.allclose(z, torch.softmax(-y.detach(), 0), rtol=1e-10)
    unrefined = ConvexProgram(
        exact.objective, exact.equalities, exact.inequalities, solver=rough, refine=0
    )
    assert not torch.allclose(unrefined(y), z, rtol=1e-6)
    (z @ v).backward()
    soft = z.detach()
    assert torch.allclose(y.grad, -(soft * v - soft * (soft @ v)), rtol=1e-9, atol=1e-12)


def test_logistic_objective_with_linear_constraints_through_cvxpy():
    import cvxpy as cp

    n, samples = 3, 12
    x = _draw(samples, n, seed=5).numpy()
    z, y, bound = cp.Variable(n), cp.Parameter(samples), cp.Parameter()
    loss = cp.sum(cp.logistic(cp.multiply(-x @ z, y))) + 0.1 * cp.sum_squares(z)
    limits = [z <= bound]
    problem = cp.Problem(cp.Minimize(loss), limits)
    data = torch.from_numpy(x)
    program = ConvexProgram(
        lambda z, y, bound: torch.nn.functional.softplus(-(data @ z) * y).sum() + 0.1 * z @ z,
        inequalities=lambda z, y, bound: z - bound,
        solver=cvxpy_solver(problem, z, (y, bound), inequalities=limits, solver=cp.CLARABEL),
    )
    labels = torch.sign(_draw(samples, seed=6)) * (1 + 0.1 * _draw(samples, seed=7))
    level = torch.tensor(0.15, dtype=torch.float64)
    program(labels, level)
    assert 0 < program.last_info["active_rows"] < n
    assert torch.autograd.gradcheck(
        program, [labels.requires_grad_(), level.requires_grad_()], eps=1e-4, atol=1e-6, rtol=1e-4
    )


def test_log_barrier_with_equalities():
    """Minimize −Σ log zᵢ + yᵀz subject to aᵀz = 1, solved here by Newton from a feasible point."""
    a = torch.tensor([1.0, 2.0, 0.5, 1.5]).double()

    def solver(y):
        z, nu = 0.25 / a, torch.zeros(1).double()
        for _ in range(60):
            K = torch.zeros(5, 5).double()
            K[:4, :4], K[4, :4], K[:4, 4] = torch.diag(z**-2), a, a
            step = torch.linalg.solve(K, torch.cat([1 / z - y, (1 - a @ z).reshape(1)]))
            length = 1.0
            while ((z + length * step[:4]) <= 0).any():
                length /= 2
            z, nu = z + length * step[:4], step[4:]
        return z, nu, torch.zeros(0)

    program = ConvexProgram(
        lambda z, y: y @ z - z.log().sum(), lambda z, y: (a @ z - 1).reshape(1), solver=solver
    )
    y = 0.5 * _draw(4)
    assert torch.autograd.gradcheck(program, [y.requires_grad_()], atol=1e-7, rtol=1e-6)


def test_agrees_with_the_bpqp_layer_on_a_qp():
    from bpqp_bench.layers import BPQP

    rng = np.random.default_rng(2)
    root, q, A, G = (rng.standard_normal(s) for s in ((5, 5), 5, (2, 5), (3, 5)))
    P, b = root.T @ root + np.eye(5), A @ np.ones(5)
    h = G @ np.linalg.lstsq(A, b, rcond=None)[0] - 0.1
    data = [torch.from_numpy(part).requires_grad_() for part in (P, q, A, b, G, h)]
    program = ConvexProgram(
        lambda z, P, q, A, b, G, h: 0.5 * z @ P @ z + q @ z,
        lambda z, P, q, A, b, G, h: A @ z - b,
        lambda z, P, q, A, b, G, h: G @ z - h,
        solver=quadratic_solver(ConvexQP, "quadprog"),
    )
    v = _draw(5)
    ours = torch.autograd.grad(program(*data) @ v, data)
    theirs = torch.autograd.grad(BPQP()(*data) @ v, data)
    assert program.last_info["active_rows"] >= 1
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-8, atol=1e-10)


def test_weakly_active_constraint_is_flagged():
    # minimize ½(z − y)² subject to z ≤ 0, at y = 0: one-sided derivatives 1 and 0.
    program = ConvexProgram(
        lambda z, y: 0.5 * ((z - y) ** 2).sum(),
        inequalities=lambda z, y: z,
        solver=lambda y: (torch.zeros(1), torch.zeros(0), torch.zeros(1)),
    )
    y = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    program(y).sum().backward()
    assert program.last_info["gradient"] == "one-sided"
    assert y.grad.item() in (0.0, 1.0)


def test_clear_errors():
    with pytest.raises(SpecError, match="backward is one of"):
        ball("magic")
    with pytest.raises(InstanceError, match="not finite"):
        ball()(torch.tensor([1.0, float("nan")]), torch.tensor(1.0))
    unbounded = ConvexProgram(
        lambda z, q: q @ z,
        solver=quadratic_solver(lambda q: ConvexQP(np.zeros((2, 2)), q, **_empty(2))),
    )
    with pytest.raises(InstanceError, match="unbounded"):
        unbounded(torch.ones(2))
    kink = ConvexProgram(
        lambda z, y: ((z - y) ** 2).sum().sqrt(),
        solver=lambda y: (y, torch.zeros(0), torch.zeros(0)),
    )
    with pytest.raises(InstanceError, match="twice differentiable"):
        kink(torch.ones(2, dtype=torch.float64))
    short = ConvexProgram(
        lambda z, y: z @ z, inequalities=lambda z, y: z - y, solver=lambda y: (y, [], [0.0])
    )
    with pytest.raises(InstanceError, match="0 and 1 multipliers"):
        short(torch.ones(2, dtype=torch.float64))
