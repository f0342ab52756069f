"""Alt-Diff against finite differences, closed forms and KKT solutions of independent origin."""

from itertools import pairwise

import numpy as np
import pytest
from qp_samples import planted_qp

from bpqp_bench import Instance, MethodError, PhaseClock, Registry, Size
from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.layers.altdiff_core import (
    Settings,
    balanced_rho,
    factorize,
    iterate,
    jacobian,
    vjp,
)
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import clock_for, measure_call

ALL = ("P", "q", "A", "b", "G", "h")


def lp_like_the_paper(n, m, seed):
    rng = np.random.default_rng(seed)
    x0, A, G = rng.random(n), rng.random((m, n)), rng.random((m, n))
    s0 = rng.standard_normal(m)
    return {
        "P": 2e-6 * np.eye(n),
        "q": -G.T @ np.maximum(-s0, 0),
        "A": A,
        "b": A @ x0,
        "G": G,
        "h": G @ x0 + np.maximum(s0, 0),
    }


def solve(data, settings=None, record=False):
    settings = settings or Settings(tolerance=1e-12)
    split = factorize(data["P"], data["A"], data["G"], settings)
    run = iterate(split, data["q"], data["b"], data["h"], settings, record=record)
    return split, run


def kkt_solution(data, active):
    """Z and the map from (q, b, h) to it for a known active set, by one dense solve."""
    n = data["q"].size
    M = np.vstack([data["A"], data["G"][active]])
    k = len(M)
    K = np.block([[data["P"], M.T], [M, np.zeros((k, k))]])
    right = np.concatenate([-data["q"], data["b"], data["h"][active]])
    return np.linalg.solve(K, right)[:n]


def kkt_gradient(data, active, v):
    n = v.size
    M = np.vstack([data["A"], data["G"][active]])
    k = len(M)
    K = np.block([[data["P"], M.T], [M, np.zeros((k, k))]])
    return np.linalg.solve(K, np.concatenate([-v, np.zeros(k)]))[:n]


def one_minus_cos(a, b):
    return 0.5 * np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2


def test_solution_and_multipliers_are_the_planted_ones():
    data, z, nu, lam = planted_qp()
    _, run = solve(data)
    assert run.status == "solved"
    np.testing.assert_allclose(run.z, z, atol=1e-9)
    np.testing.assert_allclose(run.nu, nu, atol=1e-9)
    np.testing.assert_allclose(run.lam, lam, atol=1e-9)


@pytest.mark.parametrize("name", ["q", "b", "h"])
def test_jacobian_against_finite_differences_of_the_kkt_solution(name):
    data, _, _, lam = planted_qp()
    split, run = solve(data)
    J = jacobian(split, run.masks, (name,))[name]
    step, expected = 1e-5, np.empty_like(J)
    for i in range(data[name].size):
        moved = []
        for sign in (1, -1):
            value = data[name].copy()
            value[i] += sign * step
            moved.append(kkt_solution(data | {name: value}, lam > 0))
        expected[:, i] = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(J, expected, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_vjp_against_finite_differences_of_the_kkt_solution(name):
    data, _, _, lam = planted_qp(n=7, neq=2, nineq=4, active=2)
    v = np.random.default_rng(5).standard_normal(7)
    split, run = solve(data, record=True)
    gradient = vjp(split, run, v, (name,))[name]
    step, expected = 1e-6, np.empty_like(gradient)
    for index in np.ndindex(gradient.shape):
        moved = []
        for sign in (1, -1):
            value = data[name].copy()
            value[index] += 0.5 * sign * step
            if name == "P":  # a symmetric change
                value[index[::-1]] += 0.5 * sign * step
            else:
                value[index] += 0.5 * sign * step
            moved.append(v @ kkt_solution(data | {name: value}, lam > 0))
        expected[index] = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * (1 + abs(expected).max()))


@pytest.mark.parametrize("nineq", [6, 20])  # fewer and more rows than parameters
@pytest.mark.parametrize("iterations", [1, 2, 3, 8, 60])
def test_vjp_is_the_jacobian_transposed_at_every_truncation(iterations, nineq):
    data, *_ = planted_qp(seed=3, nineq=nineq)
    settings = Settings(tolerance=1e-15, max_iterations=iterations)
    split, run = solve(data, settings)
    v = np.random.default_rng(1).standard_normal(12)
    products = vjp(split, run, v, ("q", "b", "h"))
    by_name = jacobian(split, run.masks, ("q", "b", "h"))
    for name, J in by_name.items():
        expected = J.T @ v
        alone = jacobian(split, run.masks, (name,))[name]
        np.testing.assert_allclose(alone, J, atol=1e-13 * (1 + abs(J).max()))
        np.testing.assert_allclose(products[name], expected, atol=1e-13 * (1 + abs(J).max()))


@pytest.mark.parametrize("iterations", [1, 2, 7])
@pytest.mark.parametrize("name", ALL)
def test_vjp_differentiates_the_truncated_iteration_itself(name, iterations):
    data, *_ = planted_qp(n=6, neq=2, nineq=3, active=1)
    settings = Settings(rho=0.7, equality_weight=9.0, tolerance=1e-15, max_iterations=iterations)
    v = np.random.default_rng(2).standard_normal(6)
    split, run = solve(data, settings, record=True)
    gradient = vjp(split, run, v, (name,))[name]
    rng, step = np.random.default_rng(4), 1e-5
    direction = rng.standard_normal(data[name].shape)
    if name == "P":
        direction = direction + direction.T
    ends = [
        v @ solve(data | {name: data[name] + sign * step * direction}, settings)[1].z
        for sign in (1, -1)
    ]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_truncated_jacobian_is_that_of_the_textbook_recursion():
    """The condensed recursion equals the paper's, written with n-vectors and explicit updates."""
    data, *_ = planted_qp(n=8, neq=2, nineq=4, active=2, seed=6)
    rho, n = 0.8, 8
    P, q, A, b, G, h = (data[name] for name in ALL)
    K = P + rho * (A.T @ A + G.T @ G)
    nu, lam, s = np.zeros(2), np.zeros(4), np.zeros(4)
    dnu, dlam, ds = np.zeros((2, n)), np.zeros((4, n)), np.zeros((4, n))
    for _ in range(15):
        x = np.linalg.solve(K, -q - A.T @ (nu - rho * b) - G.T @ (lam + rho * (s - h)))
        dx = -np.linalg.solve(K, np.eye(n) + A.T @ dnu + G.T @ (dlam + rho * ds))
        s = np.maximum(-lam / rho - (G @ x - h), 0)
        ds = -1.0 * (s > 0)[:, None] * (dlam / rho + G @ dx)
        nu, dnu = nu + rho * (A @ x - b), dnu + rho * (A @ dx)
        lam, dlam = lam + rho * (G @ x + s - h), dlam + rho * (G @ dx + ds)
    settings = Settings(rho=rho, equality_weight=1.0, tolerance=1e-15, max_iterations=15)
    split, run = solve(data, settings)
    np.testing.assert_allclose(run.z, x, atol=1e-12)
    np.testing.assert_allclose(run.nu, nu, atol=1e-12)
    np.testing.assert_allclose(run.lam, lam, atol=1e-12)
    np.testing.assert_allclose(jacobian(split, run.masks)["q"], dx, atol=1e-12)


def test_smaller_threshold_smaller_truncation_error():
    data, _, _, lam = planted_qp()
    v = np.ones(12)
    exact = kkt_gradient(data, lam > 0, v)
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6, 1e-8):
        split, run = solve(data, Settings(tolerance=tolerance))
        error = jacobian(split, run.masks)["q"].T @ v - exact
        errors.append(np.linalg.norm(error) / np.linalg.norm(exact))
    assert all(b < a / 5 for a, b in pairwise(errors))
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("size", [(10, 5), (50, 10), (100, 20)])
def test_default_converges_on_lp_where_the_published_rule_does_not(size):
    data = lp_like_the_paper(*size, seed=1)
    v = np.ones(size[0])
    split, run = solve(data, Settings())
    assert run.status == "solved"
    exact = kkt_gradient(data, run.lam > 0, v)
    assert one_minus_cos(vjp(split, run, v)["q"], exact) < 1e-10
    instance = Instance(**data)
    residuals = instance.residuals(run.z, run.nu, run.lam)
    scale = np.abs(run.z).max()
    assert max(residuals.primal, residuals.complementarity) < 1e-6 * scale
    assert residuals.dual < 1e-6 * np.abs(data["q"]).max()


def test_published_rule_stops_early_on_lp_with_a_wrong_gradient():
    data = lp_like_the_paper(100, 20, seed=0)
    _, accurate = solve(data, Settings())
    published = Settings(rho=1.0, equality_weight=1.0, rule="objective", tolerance=1e-3)
    split, run = solve(data, published)
    v = np.ones(100)
    exact = kkt_gradient(data, accurate.lam > 0, v)
    assert run.iterations < 6
    assert one_minus_cos(vjp(split, run, v)["q"], exact) > 1e-2


def test_objective_rule_follows_the_objective():
    data, *_ = planted_qp()
    values = []
    for k in range(1, 8):
        _, run = solve(data, Settings(rho=1.0, tolerance=1e-15, max_iterations=k))
        values.append(0.5 * run.z @ data["P"] @ run.z + data["q"] @ run.z)
    changes = np.abs(np.diff(values)) / np.abs(values[:-1])
    for k, change in enumerate(changes, start=2):
        if change < changes[: k - 2].min(initial=np.inf):
            stop = Settings(rho=1.0, rule="objective", tolerance=change * (1 + 1e-6))
            assert solve(data, stop)[1].iterations == k


def test_iterate_rule_follows_the_iterates():
    data, *_ = planted_qp()
    points = [
        solve(data, Settings(rho=1.0, tolerance=1e-15, max_iterations=k))[1].z for k in range(1, 8)
    ]
    changes = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in pairwise(points)]
    k = int(np.argmin(changes))
    stop = Settings(rho=1.0, rule="iterate", tolerance=changes[k] * (1 + 1e-6))
    assert solve(data, stop)[1].iterations == k + 2


def test_iteration_limit_is_reported():
    data, *_ = planted_qp()
    _, run = solve(data, Settings(tolerance=1e-12, max_iterations=4))
    assert (run.status, run.iterations) == ("iteration limit", 4)
    assert max(run.primal_residual, run.dual_residual) > 1e-12


def test_infeasible_problem_is_not_called_solved():
    data, *_ = planted_qp()
    data["G"][1], data["h"][0], data["h"][1] = -data["G"][0], -1.0, -1.0
    _, run = solve(data, Settings(max_iterations=300))
    assert run.status == "iteration limit"
    assert run.primal_residual > 1e-3
    for rule in ("objective", "iterate"):
        _, run = solve(data, Settings(rule=rule, tolerance=1e-3, max_iterations=3000))
        assert run.status != "solved"


@pytest.mark.parametrize(("neq", "nineq"), [(0, 0), (0, 4), (3, 0)])
def test_a_kind_of_constraint_may_be_absent(neq, nineq):
    data, z, _, lam = planted_qp(n=8, neq=neq, nineq=nineq, active=min(nineq, 2))
    split, run = solve(data)
    assert run.status == "solved"
    np.testing.assert_allclose(run.z, z, atol=1e-8)
    v = np.ones(8)
    expected = kkt_gradient(data, lam > 0, v)
    np.testing.assert_allclose(jacobian(split, run.masks)["q"].T @ v, expected, atol=1e-8)


def test_duplicate_rows_and_singular_hessian():
    """Redundant rows leave K regular; so does a P that is singular but not on null(A, G)."""
    data, *_ = planted_qp(n=5, neq=2, nineq=5, active=3)
    data["A"][1], data["b"][1] = data["A"][0], data["b"][0]
    _, run = solve(data, Settings(tolerance=1e-10))
    assert run.status == "solved"
    np.testing.assert_allclose(data["A"] @ run.z, data["b"], atol=1e-8)
    P = np.diag([1.0, 1.0, 0.0])
    box = np.vstack([np.eye(3), -np.eye(3)])
    singular = {
        "P": P,
        "q": np.array([0.1, -0.2, 1.0]),
        "A": np.zeros((0, 3)),
        "b": np.zeros(0),
        "G": box,
        "h": np.ones(6),
    }
    split, run = solve(singular)
    np.testing.assert_allclose(run.z, [-0.1, 0.2, -1.0], atol=1e-9)
    np.testing.assert_allclose(jacobian(split, run.masks)["q"], -np.diag([1, 1, 0]), atol=1e-8)


def test_balanced_rho_is_the_inverse_geometric_mean_of_the_dual_spectrum():
    data, *_ = planted_qp()
    N = np.linalg.svd(data["A"])[2][3:].T  # null space of A
    reduced = data["G"] @ N @ np.linalg.inv(N.T @ data["P"] @ N) @ N.T @ data["G"].T
    eta = np.linalg.eigvalsh(reduced)
    rho = balanced_rho(data["P"], data["A"], data["G"])
    assert rho == pytest.approx(np.exp(-np.log(eta).mean()), rel=1e-8)


def test_problem_without_curvature_is_refused():
    with pytest.raises(ValueError, match="not positive definite"):
        factorize(np.zeros((3, 3)), np.ones((1, 3)), np.zeros((0, 3)), Settings())


def adapter(text, wrt=("q",), data=None):
    method = Registry().method(text).create(wrt=wrt)
    instance = Instance(**(data or planted_qp()[0]), size=Size(12, 6))
    method.build(instance)
    return method, instance


def test_adapter_passes_and_variants_agree():
    results = {}
    for text in ("altdiff", "altdiff-vjp"):
        method, instance = adapter(text, wrt=("q", "b", "h"))
        data, v = make_data([instance], method), make_upstream([instance], method)
        call = measure_call(method, data, v, clock_for(method))
        solution, found, forward, backward = (
            call.solution,
            call.gradients,
            call.forward,
            call.backward,
        )
        assert solution.status == "solved"
        assert forward.setup > 0
        assert backward.solve > 0
        results[text] = found
    for name in ("q", "b", "h"):
        np.testing.assert_allclose(
            results["altdiff"][name], results["altdiff-vjp"][name], rtol=0, atol=1e-12
        )


def test_adapter_says_what_it_cannot_do():
    method, instance = adapter("altdiff", wrt=("q", "P"))
    assert "altdiff-vjp" in method.unsupported(instance)
    with pytest.raises(MethodError, match="Jacobian"):
        method.forward(*make_data([instance], method), PhaseClock())
    assert adapter("altdiff-vjp", wrt=ALL)[0].unsupported(instance) is None
    with pytest.raises(SpecError, match="rule"):
        adapter("altdiff[rule=nonsense]")


def test_layer_gradcheck_and_refusals():
    torch = pytest.importorskip("torch")
    from bpqp_bench.layers.altdiff import AltDiff

    data, *_ = planted_qp(n=5, neq=1, nineq=3, active=1)
    tensors = [torch.tensor(data[name], requires_grad=True) for name in ALL]

    def layer(P, *rest):
        return AltDiff(Settings(rho=1.0, tolerance=1e-13))(0.5 * (P + P.T), *rest)

    assert torch.autograd.gradcheck(layer, tensors, eps=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="vjp"):
        AltDiff(derivative="jacobian")(*tensors)
    fixed = [t.detach() for t in tensors]
    fixed[1].requires_grad_()
    published, cheap = [
        torch.autograd.grad(AltDiff(derivative=kind)(*fixed).sum(), fixed[1])[0]
        for kind in ("jacobian", "vjp")
    ]
    torch.testing.assert_close(published, cheap, rtol=0, atol=1e-12)
    single = AltDiff()(*(t.float() for t in fixed))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), AltDiff()(*fixed), rtol=0, atol=1e-5)
    with pytest.raises(InstanceError, match="dense tensors"):
        AltDiff()(fixed[0].to_sparse(), *fixed[1:])
