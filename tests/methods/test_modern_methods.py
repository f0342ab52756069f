"""Adapters of today's layers: what they return is what the library called directly returns.

The direct calls follow each library's own documentation and share nothing with the adapters. What
is known to be wrong in a library (docs/known-faults.md) is then wrong in both.
"""

import importlib.util

import numpy as np
import pytest

from bpqp_bench import Instance, MethodError, PhaseClock, Size
from bpqp_bench.method.data import make_data, make_upstream, to_numpy

NAMES = ("P", "q", "A", "b", "G", "h")
N, NEQ, NINEQ = 8, 2, 5


def planted(seed=0, active=2, neq=NEQ, nineq=NINEQ):
    """A strictly complementary QP, and the gradients of vᵀz* from the KKT system that it plants."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((N, N))
    P, A, G = root @ root.T + np.eye(N), rng.standard_normal((neq, N)), rng.random((nineq, N))
    z, nu, v = rng.standard_normal(N), rng.standard_normal(neq), rng.standard_normal(N)
    lam, slack = np.zeros(nineq), np.zeros(nineq)
    lam[:active], slack[active:] = 0.5 + rng.random(active), 0.5 + rng.random(nineq - active)
    q, h = -(P @ z + A.T @ nu + G.T @ lam), G @ z + slack
    C = np.vstack([A, G[:active]])
    K = np.block([[P, C.T], [C, np.zeros((len(C), len(C)))]])
    dz, dnu, dact = np.split(np.linalg.solve(K, np.r_[-v, np.zeros(len(C))]), [N, N + neq])
    dlam = np.r_[dact, np.zeros(nineq - active)]
    truth = {
        "P": 0.5 * (np.outer(dz, z) + np.outer(z, dz)),
        "q": dz,
        "A": np.outer(dnu, z) + np.outer(nu, dz),
        "b": -dnu,
        "G": np.outer(dlam, z) + np.outer(lam, dz),
        "h": -dlam,
    }
    problem = Instance(P=P, q=q, A=A, b=A @ z, G=G, h=h, size=Size(N, nineq), upstream=v)
    return problem, truth


def torch_gradients(solve, problem, names=NAMES):
    """z and gradients of solve(P, q, A, b, G, h), all with a leading batch dimension."""
    import torch

    given = [torch.tensor(getattr(problem, k))[None].requires_grad_() for k in NAMES]
    z = solve(*given).reshape(1, N)
    wanted = [t for k, t in zip(NAMES, given, strict=True) if k in names]
    found = torch.autograd.grad(z, wanted, torch.tensor(problem.upstream)[None])
    return z[0].detach().numpy(), {k: g[0].numpy() for k, g in zip(names, found, strict=True)}


def jax_gradients(solve, problem):
    import jax

    z, pull_back = jax.vjp(solve, *(jax.numpy.asarray(getattr(problem, k)) for k in NAMES))
    return np.asarray(z), dict(
        zip(NAMES, map(np.asarray, pull_back(problem.upstream)), strict=True)
    )


def qplayer(problem, **options):
    import torch
    from proxsuite.torch.qplayer import QPFunction

    def solve(P, q, A, b, G, h):
        return QPFunction(**options)(P, q, A, b, G, torch.full_like(h, -1e20), h)[0]

    return torch_gradients(solve, problem)


def cvxpylayer(problem, moreau, **options):
    import cvxpy as cp
    import torch
    from cvxpylayers.torch import CvxpyLayer

    x, R = cp.Variable(N), cp.Parameter((N, N), PSD=moreau)
    q, A, b = cp.Parameter(N), cp.Parameter((NEQ, N)), cp.Parameter(NEQ)
    G, h = cp.Parameter((NINEQ, N)), cp.Parameter(NINEQ)
    quadratic = cp.quad_form(x, R) if moreau else cp.sum_squares(R @ x)
    program = cp.Problem(cp.Minimize(0.5 * quadratic + q @ x), [A @ x == b, G @ x <= h])
    assert program.is_dpp(quad_form_dpp="qp")
    layer = CvxpyLayer(program, parameters=[R, q, A, b, G, h], variables=[x], **options)

    def solve(P, *rest):
        return layer(P if moreau else torch.linalg.cholesky(P).mT, *rest)[0]

    return torch_gradients(solve, problem)


def qpax(problem, **options):
    import qpax

    return jax_gradients(lambda *given: qpax.solve_qp_primal(*given, **options), problem)


def ffolayer(problem, **options):
    from ffolayer import FFOQPLayer

    layer = FFOQPLayer(verbose=-1, **options)
    return torch_gradients(lambda P, q, A, b, G, h: layer(P, q, G, h, A, b), problem)


def diffapqp(problem, regular, **options):
    import cvxpy as cp
    from diffapqp import SolMapLayer

    z = cp.Variable(N, name="z")
    q, b = cp.Parameter(N, name="q"), cp.Parameter(NEQ, name="b")
    h = cp.Parameter(NINEQ, name="h")
    objective = cp.Minimize(0.5 * cp.quad_form(z, problem.P) + q @ z)
    program = cp.Problem(objective, [problem.A @ z == b, problem.G @ z <= h])
    layer = SolMapLayer(program, max_n_cores=1, **regular)

    def solve(P, q, A, b, G, h):
        return layer({"q": q, "b": b, "h": h}, **options)[0]["z"]

    return torch_gradients(solve, problem, ("q", "b", "h"))


def cvxpyqp(problem, **options):
    import jaxopt

    solver = jaxopt.CvxpyQP(**options)

    def solve(P, q, A, b, G, h):
        run = solver.run(None, params_obj=(P, q), params_eq=(A, b), params_ineq=(G, h))
        return run.params.primal

    return jax_gradients(solve, problem)


CLARABEL = {"tol_feas": 1e-10, "tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10}
SCS = {"solve_method": "SCS", "eps_abs": 1e-10, "eps_rel": 1e-10}
TIGHT = {"eps_backward": 1e-10, "rho_backward": 1e-12, "mu_backward": 1e-12}
LPGD = {"mode": "lpgd", "derivative_kwargs": {"tau": 1e-3, "rho": 0.0}}
# Adapter; library; the direct call; whether the library's gradient is right for all data.
DIRECT = {
    "qplayer": ("proxsuite", lambda p: qplayer(p, **TIGHT), True),
    "qplayer-defaults": ("proxsuite", qplayer, True),
    "cvxpylayers": (
        "moreau",
        lambda p: cvxpylayer(p, True, solver="MOREAU", solver_args={"solver": "auto"}),
        True,
    ),
    "cvxpylayers-ipm": (
        "moreau",
        lambda p: cvxpylayer(p, True, solver="MOREAU", solver_args={"solver": "ipm"}),
        True,
    ),
    "cvxpylayers-diffcp": (
        "cvxpylayers",
        lambda p: cvxpylayer(p, False, solver_args=SCS | {"mode": "dense"}),
        True,
    ),
    "cvxpylayers-defaults": ("cvxpylayers", lambda p: cvxpylayer(p, False), True),
    "diffcp-lpgd": ("cvxpylayers", lambda p: cvxpylayer(p, False, solver_args=SCS | LPGD), True),
    "qpax": (
        "qpax",
        lambda p: qpax(p, backend="i", solver_tol=1e-12, target_kappa=1e-12, max_iter=50),
        True,
    ),
    "qpax-defaults": ("qpax", qpax, False),
    "ffolayer": ("ffolayer", lambda p: ffolayer(p, solver="PDIPM", maxIter=50), False),
    "ffolayer-osqp": ("ffolayer", lambda p: ffolayer(p, solver="OSQP_NATIVE"), False),
    "diffapqp": (
        "diffapqp",
        lambda p: diffapqp(
            p,
            {"act_ineq_tol": 1e-7, "act_ineq_tol_rel": 1e-7},
            solver="CLARABEL",
            solver_args=CLARABEL,
            reduced_kkt=True,
            mode="spsolve",
        ),
        True,
    ),
    "diffapqp-defaults": ("diffapqp", lambda p: diffapqp(p, {}), True),
    "jaxopt-cvxpyqp-defaults": ("jaxopt", cvxpyqp, True),
}  # fmt: skip
RIGHT_ONLY = {"jaxopt-cvxpyqp": "jaxopt", "scqpth": "torch", "admm-fixed-point": "torch",
              "dqp": "torch", "dxpp": "torch"}  # fmt: skip


BATCHED = ("qplayer", "cvxpylayers", "cvxpylayers-diffcp", "qpax", "scqpth", "admm-fixed-point",
           "dqp", "dxpp")  # fmt: skip


@pytest.fixture(autouse=True)
def _double_precision_in_jax():
    """As the worker sets it, and back: other tests must find JAX as it comes."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def create(registry, name, **options):
    choice = registry.method(name)
    if reason := choice.missing():
        pytest.skip(reason)
    wrt = ("q", "b", "h") if name.startswith("diffapqp") else NAMES
    return choice.create(wrt=wrt, **options)


def run(method, problems):
    """z and gradients of a list of problems, as the harness calls the method."""
    method.build(problems[0])
    zs, found = [], []
    for data, v in zip(make_data(problems, method), make_upstream(problems, method), strict=True):
        solution = method.describe(method.forward(data, PhaseClock()))
        gradients = {k: to_numpy(g) for k, g in method.backward(v, PhaseClock()).items()}
        zs.append(to_numpy(solution.z).reshape(data.batch, N))
        found.append({k: g.reshape(data.batch, *g.shape[-2:] if k in "PAG" else g.shape[-1:])
                      for k, g in gradients.items()})  # fmt: skip
    return np.concatenate(zs), {k: np.concatenate([f[k] for f in found]) for k in method.wrt}


def symmetric(name, gradient):
    return 0.5 * (gradient + gradient.T) if name == "P" else gradient


# JAX compiles what it is given call by call for some ten seconds.
SLOW = ("qpax", "qpax-defaults", "jaxopt-cvxpyqp-defaults")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in DIRECT]
)
def test_adapter_gives_what_the_library_gives(registry, name):
    library, direct, right = DIRECT[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no module {library}")
    problem, truth = planted()
    z, gradients = run(create(registry, name), [problem])
    expected_z, expected = direct(problem)
    np.testing.assert_allclose(z[0], expected_z, atol=1e-9)
    assert set(gradients) == set(expected)
    for key, gradient in gradients.items():
        scale = np.linalg.norm(truth[key])
        ours, theirs = symmetric(key, gradient[0]), symmetric(key, expected[key])
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * scale, err_msg=key)
        if right:
            np.testing.assert_allclose(ours, truth[key], atol=2e-3 * scale, err_msg=key)


@pytest.mark.parametrize("name", BATCHED)
def test_adapter_on_a_batch(registry, name):
    """B problems in one call give what each gives alone."""
    problems = [planted(seed)[0] for seed in (1, 2, 3)]
    method = create(registry, name)
    assert len(make_data(problems, method)) == 1
    z, together = run(method, problems)
    for i, problem in enumerate(problems):
        alone_z, alone = run(method, [problem])
        np.testing.assert_allclose(z[i], alone_z[0], atol=1e-4)
        for key, gradient in together.items():
            atol = 1e-3 * max(1.0, np.abs(alone[key]).max())
            np.testing.assert_allclose(gradient[i], alone[key][0], atol=atol, err_msg=key)


@pytest.mark.parametrize("name", RIGHT_ONLY)
def test_gradient_is_that_of_the_planted_solution(registry, name):
    problem, truth = planted(4)
    _, gradients = run(create(registry, name), [problem])
    for key, gradient in gradients.items():
        scale = np.linalg.norm(truth[key])
        found = symmetric(key, gradient[0])
        np.testing.assert_allclose(found, truth[key], atol=1e-3 * scale, err_msg=key)


@pytest.mark.parametrize(("neq", "nineq"), [(0, NINEQ), (NEQ, 0)])
@pytest.mark.parametrize("name", [*BATCHED, "ffolayer", "ffolayer-osqp", "diffapqp"])
def test_without_one_kind_of_constraint_it_is_right_or_says_no(registry, name, neq, nineq):
    problem, truth = planted(6, active=2 if nineq else 0, neq=neq, nineq=nineq)
    method = create(registry, name)
    if reason := method.unsupported(problem):
        assert ("inequality" if nineq == 0 else "equalities") in reason
        return
    _, gradients = run(method, [problem])
    np.testing.assert_allclose(
        gradients["q"][0], truth["q"], atol=1e-3 * np.linalg.norm(truth["q"])
    )


@pytest.fixture
def compilations():
    """How often JAX's compiler has run since the test began: a list that grows."""
    import jax

    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


# One size of batch each: all but diffqcp compile through the same function.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch"),
    [("qpax", 3), ("jaxopt", 1), ("jaxopt-accurate", 3), ("jaxopt-equality", 1), ("diffqcp", 1)],
)
def test_build_compiles_nothing_at_shapes_already_compiled(registry, compilations, name, batch):
    def cycle(seed, nineq):
        nineq = 0 if name == "jaxopt-equality" else nineq
        neq = NEQ + (seed == 9)
        method = create(registry, name, **({"batch": batch} if batch > 1 else {}))
        problems = [planted(seed + k, active=0, neq=neq, nineq=nineq)[0] for k in range(batch)]
        before = len(compilations)
        method.build(problems[0])
        built = len(compilations) - before
        for data, v in zip(
            make_data(problems, method), make_upstream(problems, method), strict=True
        ):
            method.forward(data, PhaseClock())
            method.backward(v, PhaseClock())
        return built, len(compilations) - before - built

    cycle(0, NINEQ)
    assert cycle(3, NINEQ) == (0, 0)
    built, called = cycle(9, NINEQ - 1)  # another shape: what this test counts does occur
    assert built > 0
    assert called == 0


def test_equality_constrained_qp(registry):
    problem, truth = planted(5, active=0, nineq=0)
    method = create(registry, "jaxopt-equality")
    assert method.unsupported(planted()[0]) is not None
    assert method.unsupported(problem) is None
    _, gradients = run(method, [problem])
    for key in NAMES:
        scale = max(np.linalg.norm(truth[key]), 1.0)
        found = symmetric(key, gradients[key][0])
        np.testing.assert_allclose(found, truth[key], atol=1e-6 * scale, err_msg=key)


def test_a_solver_that_says_infeasible_is_heard(registry):
    problem, _ = planted()
    G, h = problem.G.copy(), problem.h.copy()
    G[1], h[1] = -G[0], -h[0] - 10.0
    wrong = Instance(P=problem.P, q=problem.q, A=problem.A, b=problem.b, G=G, h=h,
                     size=problem.size)  # fmt: skip
    for name in ("cvxpylayers-diffcp", "diffapqp", "jaxopt-cvxpyqp"):
        method = create(registry, name)
        method.build(problem)
        with pytest.raises(MethodError, match=r"infeasible"):
            method.forward(make_data([wrong], method)[0], PhaseClock())


def test_what_a_method_cannot_take_has_a_reason(registry):
    problem, _ = planted()
    assert "no gradient of P" in registry.method("diffapqp").create(wrt=("P",)).unsupported(problem)
    cone = registry.family("socp").draw(Size(6, 2), 0)
    for name in ("cvxpylayers-diffcp", "diffcp-lpgd"):  # P = 0 has no factor to differentiate
        assert "no gradient of P" in registry.method(name).create(wrt=("P",)).unsupported(cone)
        assert registry.method(name).create(wrt=("q",)).unsupported(cone) is None
    for name in ("qplayer", "qpax", "ffolayer", "diffapqp", "jaxopt-cvxpyqp", "scqpth", "dxpp"):
        assert registry.method(name).create().unsupported(cone).startswith("SOCP")


def test_modern_methods_are_one_group_and_fit_a_screen(registry):
    from pathlib import Path

    modern = [found.plugin for found in registry.methods.values() if found.plugin.group == "modern"]
    assert {m.name for m in modern} >= {"qplayer", "cvxpylayers", "qpax", "ffolayer", "diffapqp",
                                        "diffqcp", "scqpth", "dxpp", "dqp"}  # fmt: skip
    folder = Path(__file__).parents[2] / "methods"
    for name in ("qplayer", "cvxpylayers_", "qpax_", "ffolayer_", "diffapqp_", "diffqcp_", "dqp"):
        assert len((folder / f"{name}.py").read_text().splitlines()) <= 120
