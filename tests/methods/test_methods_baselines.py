"""The baselines against truths that none of them computes: closed forms, planted solutions,
central differences of the planted problem's own KKT conditions."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

from bpqp_bench import Instance, MethodError, PhaseClock, SecondOrderCone, Size
from bpqp_bench.errors import SpecError
from bpqp_bench.layers.exact import exact_adjoint, full_kkt_matrix, gradients, kkt_point
from bpqp_bench.layers.exact_layer import ExactKKT
from bpqp_bench.method.conformance import check_method
from bpqp_bench.method.data import make_data, make_upstream, to_numpy
from bpqp_bench.method.measure import clock_for, judged_status, measure_call
from bpqp_bench.plugins.registry import Registry

ALL = ("P", "q", "A", "b", "G", "h")
QP_METHODS = ("exact", "exact-solve", "qpth", "cvxpy")
SOCP_METHODS = ("exact", "exact-solve", "cvxpy")


# CVXPY's cone program has the objective as a cone, so that an error of Clarabel's 1e-8 in the
# objective is one of its square root, 1e-4, in z.
_ATOL = {"exact": 1e-8, "exact-solve": 1e-8, "qpth": 1e-7, "cvxpy": 1e-4}


def planted_qp(seed=0, n=8, neq=2, nineq=5, active=2):
    """A QP with known solution, multipliers and active set; strictly complementary."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n))
    P, A, G = root @ root.T + np.eye(n), rng.standard_normal((neq, n)), rng.random((nineq, n))
    z, nu = rng.standard_normal(n), rng.standard_normal(neq)
    lam, slack = np.zeros(nineq), np.zeros(nineq)
    lam[:active], slack[active:] = 0.5 + rng.random(active), 0.5 + rng.random(nineq - active)
    problem = Instance(
        P=P,
        q=-(P @ z + A.T @ nu + G.T @ lam),
        A=A,
        b=A @ z,
        G=G,
        h=G @ z + slack,
        size=Size(n, nineq),
    )
    return problem, z, nu, lam


def solve_active(P, q, A, b, G, h, active):
    """Solution for a known active set: one linear system, nothing shared with the package."""
    C, d = np.vstack([A, G[active]]), np.concatenate([b, h[active]])
    K = np.block([[P, C.T], [C, np.zeros((len(C), len(C)))]])
    return np.linalg.solve(K, np.concatenate([-q, d]))[: len(q)]


def numerical_gradients(problem, active, v, step=1e-5):
    """Central differences of v·z* in every entry; P is perturbed symmetrically."""
    data = {name: getattr(problem, name) for name in ALL}
    found = {}
    for name in ALL:
        gradient = np.zeros_like(data[name])
        for index in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                moved = data[name].copy()
                if name == "P":  # half on each side of the diagonal: the gradient is symmetric
                    moved[index] += 0.5 * sign * step
                    moved[index[::-1]] += 0.5 * sign * step
                else:
                    moved[index] += sign * step
                values.append(v @ solve_active(**(data | {name: moved}), active=active))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        found[name] = gradient
    return found


def call(method, problem, upstream):
    problem = replace(problem, upstream=upstream, sha256="")
    data, v = make_data([problem], method), make_upstream([problem], method)
    found = measure_call(method, data, v, clock_for(method))
    return found.solution, found.gradients


def forward(method, problem):
    (data,) = make_data([problem], method)
    return method.forward(data, PhaseClock())


@pytest.mark.parametrize("name", QP_METHODS)
def test_qp_against_planted_solution_and_central_differences(registry, name):
    problem, z, nu, lam = planted_qp()
    before = {key: getattr(problem, key).copy() for key in ALL}
    v = np.random.default_rng(1).standard_normal(problem.n)
    method = registry.method(name).create(wrt=ALL)
    method.build(planted_qp(seed=5)[0])
    solution, found = call(method, problem, v)

    close = {"rtol": 0, "atol": _ATOL[name]}
    assert judged_status(solution, problem) == "solved"
    np.testing.assert_allclose(solution.z, z, **close)
    np.testing.assert_allclose(solution.nu, nu, **close)
    np.testing.assert_allclose(solution.lam, lam, **close)
    truth = numerical_gradients(problem, lam > 0, v)
    for key in ALL:
        atol = max(10 * _ATOL[name], 1e-6)
        np.testing.assert_allclose(found[key], truth[key], rtol=0, atol=atol, err_msg=key)
        np.testing.assert_array_equal(getattr(problem, key), before[key], err_msg=key)


@pytest.mark.parametrize("name", QP_METHODS)
def test_lp_gradient_is_that_of_its_active_set(registry, name):
    """The smoothed LP: a tiny quadratic term, gradient through the rows that are active."""
    problem = registry.family("lp").draw(Size(8, 3), 3)
    method = registry.method(name).create()
    method.build(problem)
    _, found = call(method, problem, np.ones(problem.n))
    # The true active set is the one whose solution satisfies all conditions: at most 2³ to try.
    best = min(
        (_violation(problem, active), bits)
        for bits in range(8)
        for active in [np.array([bool(bits >> i & 1) for i in range(3)])]
    )
    assert best[0] < 1e-9
    active = np.array([bool(best[1] >> i & 1) for i in range(3)])
    step = 1e-9
    moved = [
        solve_active(problem.P, problem.q + sign * step * np.eye(8)[i], problem.A, problem.b,
                     problem.G, problem.h, active)
        for i in range(8) for sign in (1, -1)
    ]  # fmt: skip
    truth = np.array([(moved[2 * i] - moved[2 * i + 1]).sum() / (2 * step) for i in range(8)])
    cosine = found["q"] @ truth / (np.linalg.norm(found["q"]) * np.linalg.norm(truth))
    # Clarabel's 1e-8 and qpth's clamp of multipliers at 1e-8 are not small beside 2e-6, the LP's
    # curvature (docs/methods.md).
    assert 1 - cosine < {"cvxpy": 1e-2, "qpth": 1e-3}.get(name, 1e-10)


def _violation(problem, active):
    C = np.vstack([problem.A, problem.G[active]])
    K = np.block([[problem.P, C.T], [C, np.zeros((len(C), len(C)))]])
    d = np.concatenate([problem.b, problem.h[active]])
    w = np.linalg.solve(K, np.concatenate([-problem.q, d]))
    z, lam = w[: problem.n], w[problem.n + problem.neq :]
    return max((problem.G @ z - problem.h).max(), (-lam).max(initial=0.0))


@pytest.mark.parametrize("name", SOCP_METHODS)
def test_ball_against_its_closed_form(registry, name):
    problem = registry.family("socp").draw(Size(6, 3), 0)
    v = np.random.default_rng(2).standard_normal(6)
    method = registry.method(name).create()
    method.build(registry.family("socp").draw(Size(6, 3), 1))
    solution, found = call(method, problem, v)
    norm, radius = np.linalg.norm(problem.q), problem.cones[0].d
    unit = problem.q / norm
    np.testing.assert_allclose(solution.z, -radius * unit, rtol=1e-7)
    np.testing.assert_allclose(solution.mu, [norm], rtol=1e-6)
    np.testing.assert_allclose(found["q"], -radius / norm * (v - unit * (unit @ v)), atol=1e-6)


@pytest.mark.parametrize("name", SOCP_METHODS)
def test_robust_socp_against_central_differences(registry, name):
    """Differences of z*(q) by Newton's method on the active cones' own conditions."""
    problem = registry.family("socp-robust").draw(Size(5, 3), 1)
    bare = replace(problem, planted=None)
    v = np.ones(5)
    method = registry.method(name).create()
    method.build(bare)
    solution, found = call(method, bare, v)
    # The square root of Clarabel's tolerance, 1e-9 and 1e-8: cones are curved.
    np.testing.assert_allclose(solution.z, problem.planted.z, atol=1e-4)
    truth = np.array(
        [(_newton(problem, 1e-6 * e) - _newton(problem, -1e-6 * e)) @ v / 2e-6 for e in np.eye(5)]
    )
    np.testing.assert_allclose(found["q"], truth, rtol=1e-3)


def _newton(problem, change):
    """Solve q + Σ μᵢ(z/‖z‖ + aᵢ) = 0, aᵢᵀz + ‖z‖ = bᵢ over the planted active cones."""
    active = [c for c, on in zip(problem.cones, problem.planted.active, strict=True) if on]
    a, b = np.array([-c.c for c in active]), np.array([c.d for c in active])
    mu = problem.planted.mu[problem.planted.active]
    q, n = problem.q + change, problem.n
    w = np.concatenate([problem.planted.z, mu])
    for _ in range(20):
        z, mu = w[:n], w[n:]
        norm = np.linalg.norm(z)
        unit = z / norm
        D = a + unit
        F = np.concatenate([q + D.T @ mu, a @ z + norm - b])
        H = mu.sum() * (np.eye(n) - np.outer(unit, unit)) / norm
        w = w - np.linalg.solve(np.block([[H, D.T], [D, np.zeros((len(b), len(b)))]]), F)
    assert np.abs(F).max() < 1e-12
    return w[:n]


@pytest.mark.parametrize("name", QP_METHODS)
def test_infeasible_is_said(registry, name):
    problem, *_ = planted_qp()
    G = np.vstack([problem.G[0], -problem.G[0], problem.G[2:]])
    bad = replace(problem, G=G, h=np.concatenate([[-1.0, -1.0], problem.h[2:]]), sha256="")
    method = registry.method(name).create()
    method.build(problem)
    try:
        solution = forward(method, bad)
        solution = method.describe(replace(solution, z=to_numpy(solution.z)))
        said = judged_status(solution, bad)
    except (MethodError, ValueError) as error:
        said = str(error)
    assert "feasib" in said


def test_both_ways_solve_the_same_kkt_system_even_off_the_solution():
    """Inverse and factorization agree at a point with weak rows that are neither 0 nor exact."""
    problem, z, nu, lam = planted_qp(nineq=6, active=3)
    rng = np.random.default_rng(3)
    lam = lam + np.array([0, 0, 0, 1e-4, 0, 1e-7])
    point = kkt_point(problem, z + 1e-5 * rng.standard_normal(z.size), nu, lam)
    v = rng.standard_normal(z.size)
    inverse = gradients(point, exact_adjoint(point, v, "inverse"), ALL)
    solved = gradients(point, exact_adjoint(point, v, "solve"), ALL)
    for key in ALL:
        np.testing.assert_allclose(solved[key], inverse[key], rtol=1e-9, atol=1e-11, err_msg=key)


def test_kkt_matrix_is_the_jacobian_of_the_conditions():
    problem, z, nu, lam = planted_qp(n=4, neq=1, nineq=3, active=1)
    point = kkt_point(problem, z, nu, lam)

    def conditions(w):
        z, nu, lam = w[:4], w[4:5], w[5:]
        return np.concatenate(
            [
                problem.P @ z + problem.q + problem.A.T @ nu + problem.G.T @ lam,
                problem.A @ z - problem.b,
                lam * (problem.G @ z - problem.h),
            ]
        )

    w, step = np.concatenate([z, nu, lam]), 1e-6
    truth = [(conditions(w + step * e) - conditions(w - step * e)) / (2 * step) for e in np.eye(8)]
    np.testing.assert_allclose(full_kkt_matrix(point), np.array(truth).T, atol=1e-8)


@pytest.mark.parametrize("mode", ["inverse", "solve"])
def test_weakly_active_row_is_named_as_the_cause(mode):
    problem, z, nu, lam = planted_qp()
    point = replace(kkt_point(problem, z, nu, lam), lam=np.zeros(5), g=np.zeros(5))
    with pytest.raises(MethodError, match="5 inequalities have both zero slack and zero mult"):
        exact_adjoint(point, np.ones(z.size), mode)


def test_tip_of_a_cone_is_named_as_the_cause():
    n = 3
    cone = SecondOrderCone(np.eye(n), np.zeros(n), np.zeros(n), 0.0)
    none = np.zeros((0, n))
    problem = Instance(np.eye(n), np.ones(n), none, np.zeros(0), none, np.zeros(0), (cone,), "socp")
    with pytest.raises(MethodError, match="tip of a cone"):
        kkt_point(problem, np.zeros(n), None, None, np.ones(1))


@pytest.mark.parametrize("mode", ["inverse", "solve"])
def test_torch_layer_passes_gradcheck(mode):
    problem, *_ = planted_qp(n=4, neq=1, nineq=3, active=1)
    layer = ExactKKT(backward=mode)
    tensors = {name: torch.tensor(getattr(problem, name), requires_grad=True) for name in ALL}

    def symmetric(P, *rest):
        return layer(0.5 * (P + P.T), *rest)

    assert torch.autograd.gradcheck(symmetric, tuple(tensors.values()), eps=1e-6, atol=1e-4)


def test_torch_layer_without_constraints_is_a_linear_solve():
    problem, *_ = planted_qp()
    P, q = torch.tensor(problem.P), torch.tensor(problem.q, requires_grad=True)
    z = ExactKKT()(P, q)
    z.sum().backward()
    expected = torch.linalg.solve(P, -torch.ones(problem.n, dtype=P.dtype))
    torch.testing.assert_close(z.detach(), torch.linalg.solve(P, -q.detach()))
    torch.testing.assert_close(q.grad, expected)


def test_wrong_settings_are_refused(registry):
    with pytest.raises(ValueError, match="neither 'inverse' nor 'solve'"):
        ExactKKT(backward="lu")
    method = registry.method("exact[backward=lu]").create()
    with pytest.raises(SpecError, match="'inverse' nor 'solve'"):
        method.build(planted_qp()[0])
    with pytest.raises(SpecError, match="CLARABEL or SCS"):
        registry.method("cvxpy[solver=ecos]").create()


def test_cvxpy_paper_form_and_lp_without_epsilon(registry):
    problem, z, *_ = planted_qp()
    paper = registry.method("cvxpy-paper").create()
    assert not paper.phases_split
    paper.build(problem)
    solution, found = call(paper, problem, np.ones(problem.n))
    np.testing.assert_allclose(solution.z, z, atol=1e-3)  # SCS at CVXPY's default tolerance
    truth = numerical_gradients(problem, np.arange(5) < 2, np.ones(problem.n))["q"]
    np.testing.assert_allclose(found["q"], truth, atol=1e-3)
    assert "form=parameters" in registry.method("cvxpy-paper").create(wrt=ALL).unsupported(problem)

    bare = registry.method("cvxpy-lp0").create()
    assert "only the LP" in bare.unsupported(problem)
    lp = registry.family("lp").draw(Size(6, 3), 0)
    posed = bare.poses(lp)
    assert not posed.P.any()
    assert posed.sha256 != lp.sha256
    bare.build(lp)
    value = forward(bare, lp).z @ lp.q
    dual = _lp_value(lp)
    assert value == pytest.approx(dual, abs=1e-6)


def _lp_value(lp):
    from scipy.optimize import linprog

    found = linprog(lp.q, lp.G, lp.h, lp.A, lp.b, bounds=(None, None), method="highs")
    assert found.success
    return found.fun


def test_cvxpy_refuses_another_structure_than_it_was_built_for(registry):
    problem, *_ = planted_qp()
    method = registry.method("cvxpy").create()
    method.build(replace(problem, P=np.eye(problem.n), sha256=""))
    with pytest.raises(MethodError, match="another structure"):
        forward(method, problem)


def test_cvxpy_keeps_a_point_that_stops_short_of_its_tolerance(registry):
    problem, z, *_ = planted_qp()
    method = registry.method("cvxpy[tolerance=1e-15]").create()
    method.build(problem)
    with pytest.warns(UserWarning, match="may be inaccurate"):
        solution, found = call(method, problem, np.ones(problem.n))
    assert solution.status == "optimal_inaccurate"
    # Clarabel calls a point "almost solved" from 5e-5 on.
    np.testing.assert_allclose(solution.z, z, atol=1e-4)
    truth = numerical_gradients(problem, np.arange(5) < 2, np.ones(problem.n))["q"]
    np.testing.assert_allclose(found["q"], truth, atol=1e-4)


def test_cvxpy_phases_are_split(registry):
    problem, *_ = planted_qp()
    method = registry.method("cvxpy").create()
    method.build(problem)
    data, v = make_data([problem], method), make_upstream([problem], method)
    spent = measure_call(method, data, v, clock_for(method)).forward
    assert min(spent.prepare, spent.solve, spent.extract) > 0
    assert spent.other < 0.2 * spent.call


def test_qpth_says_what_it_cannot_take(registry):
    method = registry.method("qpth").create()
    none = planted_qp(nineq=0, active=0)[0]
    assert "at least one inequality" in method.unsupported(none)
    assert "quadratic programs" in method.unsupported(registry.family("socp").draw(Size(4, 2), 0))


JAX_SCRIPT = """
import json, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
import jax, jaxopt
from bpqp_bench import Size
from bpqp_bench.errors import MethodError
from bpqp_bench.plugins.registry import Registry
from test_methods_baselines import ALL, call, numerical_gradients, planted_qp

out, r = {}, Registry()
problem, z, nu, lam = planted_qp()
v = np.random.default_rng(1).standard_normal(problem.n)
truth = numerical_gradients(problem, lam > 0, v)
m = r.method("jaxopt-accurate").create(wrt=ALL)
m.build(planted_qp(seed=5)[0])
s, g = call(m, problem, v)
out["solution"] = max(abs(s.z - z).max(), abs(s.nu - nu).max(), abs(s.lam - lam).max())
out["status"] = s.status
out["gradients"] = {k: float(abs(g[k] - truth[k]).max()) for k in ALL}
again = call(m, problem, v)[1]
out["repeat"] = max(float(abs(again[k] - g[k]).max()) for k in ALL)

# The default derivative must be JAXOpt's own: jax.vjp through the whole solver.
d = r.method("jaxopt").create()
d.build(problem)
s, g = call(d, problem, v)
osqp = jaxopt.OSQP()
def whole(q):
    p = problem
    return osqp.run(None, (p.P, q), (p.A, p.b), (p.G, p.h)).params.primal
z_whole, pull = jax.vjp(whole, jax.numpy.asarray(problem.q))
out["default_z"] = float(abs(s.z - np.asarray(z_whole)).max())
out["default_q"] = float(abs(g["q"] - np.asarray(pull(jax.numpy.asarray(v))[0])).max())
out["scale"] = float(abs(g["q"]).max())

for key in ("jaxopt", "jaxopt-accurate"):
    ball = r.family("socp").draw(Size(6, 3), 0)
    m = r.method(key).create()
    m.build(r.family("socp").draw(Size(6, 3), 1))
    s, g = call(m, ball, np.arange(6.0))
    norm, unit = np.linalg.norm(ball.q), ball.q / np.linalg.norm(ball.q)
    radius = ball.cones[0].d
    expected = -radius / norm * (np.arange(6.0) - unit * (unit @ np.arange(6.0)))
    out[key + " ball"] = max(float(abs(s.z + radius * unit).max()), float(abs(s.mu[0] - norm)),
                             float(abs(g["q"] - expected).max()))
robust = r.family("socp-robust").draw(Size(5, 3), 1)
out["robust"] = m.unsupported(robust)
jax.config.update("jax_enable_x64", False)
try:
    r.method("jaxopt").create().build(problem)
except MethodError as error:
    out["x32"] = str(error)
print(json.dumps(out))
"""


@pytest.mark.slow
def test_jaxopt_in_a_process_with_64_bit_jax():
    """JAX's precision is a setting of the process, hence a process of its own."""
    found = subprocess.run(
        [sys.executable, "-c", JAX_SCRIPT, str(Path(__file__).parent), str(ROOT / "tests")],
        env=dict(os.environ) | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    out = json.loads(found.stdout.splitlines()[-1])
    assert out["status"] == "solved"
    assert out["solution"] < 1e-7
    assert max(out["gradients"].values()) < 2e-5, out["gradients"]
    assert out["repeat"] == 0.0
    assert out["default_z"] < 1e-12
    assert out["default_q"] < 1e-10 * max(out["scale"], 1.0)
    assert out["jaxopt ball"] < 1e-6
    assert out["jaxopt-accurate ball"] < 1e-9
    assert "one ball" in out["robust"]
    assert "JAX_ENABLE_X64" in out["x32"]


def test_documented_method_is_the_template_and_keeps_the_contract(tmp_path):
    """docs/add-a-method.md shows the template file; dropped in a folder, it passes the check."""
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    template = (ROOT / "methods" / "template_method.py").read_text(encoding="utf-8")
    assert blocks[0] == template
    (tmp_path / "mine.py").write_text(blocks[0], encoding="utf-8")
    registry = Registry(methods_dirs=(tmp_path,))
    assert not registry.broken
    for key in ("kkt-example", "kkt-piqp"):
        failed = [r for r in check_method(registry.method(key), registry.family) if not r.passed]
        assert not failed, failed
    problem, z, _, lam = planted_qp()
    v = np.random.default_rng(1).standard_normal(problem.n)
    method = registry.method("kkt-example").create(wrt=("q", "b", "h"))
    method.build(problem)
    solution, found = call(method, problem, v)
    truth = numerical_gradients(problem, lam > 0, v)
    np.testing.assert_allclose(solution.z, z, atol=1e-8)
    for key in ("q", "b", "h"):
        np.testing.assert_allclose(found[key], truth[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("ball", [True, False])
@pytest.mark.parametrize("name", ["exact", "cvxpy", "cvxpy-paper"])
def test_general_cones_with_a_quadratic_objective(registry, name, ball):
    """Shifted balls and cones ‖Fz + g‖ ≤ cᵀz + d: planted solution and multipliers; differences."""
    rng = np.random.default_rng(4)
    n, mu = 4, np.array([0.7, 0.4, 0.0])
    z = rng.standard_normal(n)
    cones = []
    for slack in (0.0, 0.0, 0.5):
        F = np.eye(n) if ball else rng.standard_normal((3, n))
        g, c = rng.standard_normal(len(F)), 0.3 * rng.standard_normal(n)
        cones.append(SecondOrderCone(F, g, c, float(np.linalg.norm(F @ z + g) - c @ z + slack)))
    root, none = rng.standard_normal((n, n)), np.zeros((0, n))
    P = root @ root.T + np.eye(n)
    q = -(P @ z + sum(m * cone.gradient(z) for m, cone in zip(mu, cones, strict=True)))
    problem = Instance(
        P, q, none, np.zeros(0), none, np.zeros(0), tuple(cones), "socp", size=Size(n, 3)
    )

    def solution(change):
        w = np.concatenate([z, mu[:2]])
        for _ in range(20):
            x, y = w[:n], w[n:]
            D = np.array([cone.gradient(x) for cone in cones[:2]])
            values = np.array([cone.value(x) for cone in cones[:2]])
            H = P + sum(m * cone.hessian(x) for m, cone in zip(y, cones, strict=False))
            K = np.block([[H, D.T], [D, np.zeros((2, 2))]])
            w = w - np.linalg.solve(K, np.concatenate([P @ x + q + change + D.T @ y, values]))
        return w[:n]

    v = np.arange(1.0, n + 1)
    truth = [(solution(1e-5 * e) - solution(-1e-5 * e)) @ v / 2e-5 for e in np.eye(n)]
    method = registry.method(name).create()
    method.build(problem)
    found, gradient = call(method, problem, v)
    # Square root of the solvers' tolerances; SCS under cvxpy-paper stops at 1e-5.
    atol = 3e-3 if name == "cvxpy-paper" else 1e-4
    np.testing.assert_allclose(found.z, z, atol=atol)
    np.testing.assert_allclose(found.mu, mu, atol=10 * atol)
    np.testing.assert_allclose(gradient["q"], truth, atol=10 * atol)
