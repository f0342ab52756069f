"""The layers after other papers' mathematics, against differences and the papers' own equations."""

import numpy as np
import pytest
import torch
from qp_samples import planted_qp

from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.layers.admm_fixed_point import ADMMFixedPoint
from bpqp_bench.layers.bpqp import BPQP
from bpqp_bench.layers.dqp import DQP
from bpqp_bench.layers.dxpp import DXPP
from bpqp_bench.layers.implicit import BatchQP, Point
from bpqp_bench.layers.scqpth import SCQPTH

NAMES = ("P", "q", "A", "b", "G", "h")
LAYERS = {
    "scqpth": (lambda: SCQPTH(1e-11, 50_000), 1e-7),
    "admm": (lambda: ADMMFixedPoint(1e-11, 50_000, 1e-12), 1e-7),
    "dqp": (lambda: DQP(eps=1e-11, active_tol=1e-8), 1e-7),
    "dxpp": (lambda: DXPP(eps=1e-11, beta=1e-7), 1e-5),
}


def planted(seed=0, active=2):
    """Data of a QP whose first ``active`` inequalities bind, z* and λ*."""
    data, z, _, lam = planted_qp(n=7, neq=2, nineq=5, active=active, seed=seed)
    return data, z, lam


def on_rows(data, active):
    """Solution with those inequalities as equalities: one linear system, nothing of the package."""
    C = np.vstack([data["A"], data["G"][active]])
    d = np.concatenate([data["b"], data["h"][active]])
    K = np.block([[data["P"], C.T], [C, np.zeros((len(C), len(C)))]])
    return np.linalg.solve(K, np.concatenate([-data["q"], d]))[: len(data["q"])]


def differences(solve, data, v, step=1e-5):
    """Central differences of v·solve(data) in every entry; P is moved symmetrically."""
    found = {}
    for name in NAMES:
        found[name] = np.zeros_like(data[name])
        for index in np.ndindex(data[name].shape):
            values = []
            for sign in (1, -1):
                moved = data[name].copy()
                moved[index] += 0.5 * sign * step
                moved[index[::-1] if name == "P" else index] += 0.5 * sign * step
                values.append(v @ solve(data | {name: moved}))
            found[name][index] = (values[0] - values[1]) / (2 * step)
    return found


def tensors(*problems):
    """One problem's tensors, or those of several with a leading dimension."""
    stacked = {k: np.stack([p[k] for p in problems]) for k in NAMES}
    return {
        k: torch.tensor(t if len(problems) > 1 else t[0]).requires_grad_()
        for k, t in stacked.items()
    }


def gradients(layer, given, v):
    z = layer(*given.values())
    found = torch.autograd.grad(z, list(given.values()), torch.as_tensor(v))
    return z.detach().numpy(), {k: g.numpy() for k, g in zip(NAMES, found, strict=True)}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_all_data_match_central_differences(name):
    make, atol = LAYERS[name]
    data, z, lam = planted()
    v = np.random.default_rng(1).standard_normal(len(z))
    layer = make()
    found, gradient = gradients(layer, tensors(data), v)
    np.testing.assert_allclose(found, z, atol=1e-8)
    assert layer.last.status == ("solved",)
    np.testing.assert_allclose(layer.last.lam[0], lam, atol=1e-7)
    truth = differences(lambda moved: on_rows(moved, lam > 0), data, v)
    for key in NAMES:
        np.testing.assert_allclose(gradient[key], truth[key], atol=atol, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_is_its_problems_one_by_one(name):
    make, atol = LAYERS[name]
    problems = [planted(seed, active=seed)[0] for seed in (1, 2, 3)]
    v = np.random.default_rng(2).standard_normal((3, 7))
    z, together = gradients(make(), tensors(*problems), v)
    for i, problem in enumerate(problems):
        alone_z, alone = gradients(make(), tensors(problem), v[i])
        np.testing.assert_allclose(z[i], alone_z, atol=1e-8)
        for key in NAMES:
            np.testing.assert_allclose(together[key][i], alone[key], atol=10 * atol, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_data_shared_by_a_batch_get_the_sum_of_its_gradients(name):
    make, atol = LAYERS[name]
    data = planted(4)[0]
    given = tensors(data)
    q = torch.stack([given["q"].detach(), given["q"].detach() * 1.001]).requires_grad_()
    shared = list((given | {"q": q}).values())
    v = torch.ones(2, 7, dtype=torch.float64)
    total = torch.autograd.grad(make()(*shared), given["P"], v)[0]
    parts = [
        torch.autograd.grad(make()(*(given | {"q": q[i]}).values()), given["P"], v[i])[0]
        for i in range(2)
    ]
    np.testing.assert_allclose(total, sum(parts), atol=10 * atol)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["equalities", "inequalities"])
def test_either_kind_of_constraint_may_be_absent(name, kind):
    data, _, lam = planted(5)
    empty = ("G", "h") if kind == "equalities" else ("A", "b")
    data = data | {key: data[key][:0] for key in empty}
    if kind == "inequalities":  # then other rows bind: those that the planted point needs
        data["q"] = -(data["P"] @ np.ones(7) + data["G"].T @ lam)
        data["h"] = data["G"] @ np.ones(7) + np.where(lam > 0, 0.0, 1.0)
    v = np.random.default_rng(3).standard_normal(7)
    make, atol = LAYERS[name]
    active = lam > 0 if kind == "inequalities" else np.zeros(0, dtype=bool)
    _, found = gradients(make(), tensors(data), v)
    truth = differences(lambda moved: on_rows(moved, active), data, v)
    for key in NAMES:
        np.testing.assert_allclose(found[key], truth[key], atol=10 * atol, err_msg=key)


def test_dxpp_is_the_derivative_of_its_penalty_problem():
    """At the penalty problem's own minimum the backward pass is exact, at any β."""
    data, _, lam = planted(6)
    beta, zeta = 0.05, 10.0
    v = np.random.default_rng(4).standard_normal(7)
    rho = zeta * 2.0

    def minimum(d, z=None):
        z = np.zeros(7) if z is None else z
        for _ in range(200):
            s, t = sigmoid((d["G"] @ z - d["h"]) / beta), sigmoid((d["A"] @ z - d["b"]) / beta)
            slope = d["P"] @ z + d["q"] + rho * (d["G"].T @ s + d["A"].T @ (2 * t - 1))
            H = d["P"] + rho / beta * (
                d["G"].T @ ((s * (1 - s))[:, None] * d["G"])
                + d["A"].T @ ((2 * t * (1 - t))[:, None] * d["A"])
            )
            step = np.linalg.solve(H, -slope)
            z = z + step * min(1.0, 0.2 / np.abs(step).max())
        assert np.abs(slope).max() < 1e-9
        return z

    z = minimum(data)
    lam = rho * sigmoid((data["G"] @ z - data["h"]) / beta)
    nu = rho * (2 * sigmoid((data["A"] @ z - data["b"]) / beta) - 1)
    given = tensors(data)
    qp = BatchQP(*(t.detach()[None] for t in given.values()))
    point = Point(*(torch.from_numpy(x)[None] for x in (z, nu, lam)), status=("solved",))
    # the layer takes ρ from the largest multiplier; here it must be the ρ of the problem above
    layer = DXPP(beta=beta, penalty=rho / max(lam.max(), np.abs(nu).max()))
    layer.solve = lambda qp: point
    found = layer.adjoint(qp, point, torch.from_numpy(v)[None])
    _, gradient = gradients(layer, given, v)
    truth = differences(lambda d: minimum(d, z), data, v)
    np.testing.assert_allclose(found.z[0], truth["q"], atol=1e-6)
    for key in NAMES:
        np.testing.assert_allclose(gradient[key], truth[key], atol=1e-6, err_msg=key)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def test_dxpp_converges_linearly_in_its_smoothing():
    data, z, lam = planted()
    v = np.random.default_rng(1).standard_normal(len(z))
    truth = differences(lambda moved: on_rows(moved, lam > 0), data, v)["q"]
    errors = [
        np.abs(gradients(DXPP(eps=1e-12, beta=beta), tensors(data), v)[1]["q"] - truth).max()
        for beta in (1e-2, 1e-3, 1e-4)
    ]
    ratios = [errors[0] / errors[1], errors[1] / errors[2]]
    np.testing.assert_allclose(ratios, 10.0, rtol=0.2)


def test_scqpth_satisfies_the_fixed_point_and_its_linearization():
    """z(q) through s = F(s; q), with F written out and its Jacobian by differences."""
    data, z, lam = planted(7)
    C = np.vstack([data["A"], data["G"]])
    upper = np.concatenate([data["b"], data["h"]])
    lower = np.concatenate([data["b"], np.full(len(lam), -np.inf)])
    rho = 0.7
    M = data["P"] + rho * C.T @ C

    def primal(s, q):
        return np.linalg.solve(M, rho * C.T @ (2 * np.clip(s, lower, upper) - s) - q)

    def step_map(s, q):
        return C @ primal(s, q) + s - np.clip(s, lower, upper)

    layer = SCQPTH(1e-12, 50_000)
    v = np.random.default_rng(5).standard_normal(7)
    _, gradient = gradients(layer, tensors(data), v)
    y = np.concatenate([layer.last.nu[0], layer.last.lam[0]])
    s = C @ z + y / rho  # the layer's multipliers at its z are the fixed point for any ρ
    np.testing.assert_allclose(step_map(s, data["q"]), s, atol=1e-8)

    def columns(f, x, step=1e-6):
        return np.column_stack(
            [(f(x + step * e) - f(x - step * e)) / (2 * step) for e in np.eye(len(x))]
        )

    dF_ds, dF_dq = (
        columns(lambda x: step_map(x, data["q"]), s),
        columns(lambda x: step_map(s, x), data["q"]),
    )
    dz_ds = columns(lambda x: primal(x, data["q"]), s)
    ds_dq = np.linalg.solve(np.eye(len(s)) - dF_ds, dF_dq)
    total = -np.linalg.inv(M) + dz_ds @ ds_dq
    np.testing.assert_allclose(gradient["q"], total.T @ v, atol=1e-6)


def test_fixed_point_iteration_gets_to_the_direct_solution_as_far_as_asked():
    data = planted(8)[0]
    v = np.random.default_rng(6).standard_normal(7)
    _, direct = gradients(SCQPTH(1e-11, 50_000), tensors(data), v)
    errors, counts = [], []
    for eps in (1e-2, 1e-5, 1e-9):
        layer = ADMMFixedPoint(1e-11, 50_000, eps)
        _, found = gradients(layer, tensors(data), v)
        errors.append(np.abs(found["q"] - direct["q"]).max())
        counts.append(layer.iterations)
    assert errors[2] < 1e-7
    assert errors[0] >= errors[1] >= errors[2]
    assert counts[0] <= counts[1] <= counts[2] < 50_000


def test_dqp_solves_the_equations_of_bpqp_with_a_direct_backward_pass():
    data, z, _ = planted(9)
    v = np.random.default_rng(7).standard_normal(len(z))
    _, found = gradients(DQP(eps=1e-11, active_tol=1e-8), tensors(data), v)
    _, theirs = gradients(BPQP(forward="proxqp", backward="direct"), tensors(data), v)
    for key in NAMES:
        np.testing.assert_allclose(found[key], theirs[key], atol=1e-8, err_msg=key)


def test_an_iteration_that_does_not_end_is_said():
    layer = SCQPTH(1e-12, max_iter=2)
    layer(*tensors(planted()[0]).values())
    assert layer.last.status == ("iteration limit",)


def test_wrong_arguments_are_refused():
    data = tensors(planted()[0])
    with pytest.raises(InstanceError, match="batch sizes differ: 2, 3"):
        SCQPTH()(data["P"].expand(2, 7, 7), data["q"].expand(3, 7), *list(data.values())[2:])
    for wrong in (
        lambda: SCQPTH(eps=0.0),
        lambda: ADMMFixedPoint(eps_backward=-1.0),
        lambda: DQP(active_tol=-1.0),
        lambda: DXPP(beta=0.0),
        lambda: DXPP(penalty=1.0),
    ):
        with pytest.raises(SpecError):
            wrong()
