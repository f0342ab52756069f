"""DC3: completion, correction, gradients of the layer itself, training and its cache."""

from itertools import pairwise

import numpy as np
import pytest

from bpqp_bench import MethodError, PhaseClock, Registry, Size
from bpqp_bench.errors import SpecError
from bpqp_bench.layers.dc3 import DC3, Settings, cached_training, train
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import clock_for, measure_call
from bpqp_bench.plugins.registry import builtin_directory

torch = pytest.importorskip("torch")


def problem(n=12, neq=4, nineq=5, seed=0):
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((n, n))
    A, G = rng.standard_normal((neq, n)), rng.standard_normal((nineq, n))
    inside = rng.standard_normal(n)
    return R @ R.T / n + np.eye(n), A, A @ inside, G, G @ inside + 0.3


def layer_of(settings=None, **sizes):
    return DC3(*problem(**sizes), settings or Settings(hidden=16)).eval()


def samples(count, n=12, seed=1):
    return np.random.default_rng(seed).standard_normal((count, n))


def test_completion_satisfies_the_equalities():
    _, A, b, *_ = problem()
    layer = layer_of()
    with torch.no_grad():
        z = layer(torch.from_numpy(100 * samples(50))).numpy()
    assert np.abs(z @ A.T - b).max() < 1e-10
    assert np.ptp(z, axis=0).min() > 0.1  # it does depend on q


def test_completion_survives_a_badly_chosen_leading_block():
    """The first neq columns of A are nearly dependent; pivoting must avoid them."""
    P, A, _, G, h = problem()
    A[:, 1] = A[:, 0] * (1 + 1e-14)
    b = A @ np.ones(12)
    layer = DC3(P, A, b, G, h, Settings(hidden=8)).eval()
    with torch.no_grad():
        z = layer(torch.from_numpy(samples(20))).numpy()
    assert np.abs(z @ A.T - b).max() < 1e-10


def test_each_correction_lowers_the_violation_and_keeps_the_equalities():
    _, A, b, G, h = problem()
    start = torch.from_numpy(3 * samples(40, n=8))
    violations = []
    for steps in (0, 1, 3, 10, 200):
        layer = layer_of(Settings(hidden=8, correction_steps=steps, correction_tolerance=1e-9))
        with torch.no_grad():
            z = layer.complete(layer.correct(start)).numpy()
        assert np.abs(z @ A.T - b).max() < 1e-10
        violations.append(np.maximum(z @ G.T - h, 0).max())
    assert violations[0] > 1
    assert all(later < earlier for earlier, later in pairwise(violations))
    assert violations[-1] < 1e-3 * violations[0]


def test_correction_step_is_the_gradient_of_the_violation():
    layer = layer_of(Settings(hidden=8, correction_steps=1))
    partial = torch.from_numpy(3 * samples(1, n=8)).requires_grad_()
    (gradient,) = torch.autograd.grad(layer.violation(partial).square().sum(), partial)
    moved = layer.correct(partial) - partial
    torch.testing.assert_close(moved, -layer.rate * gradient)
    reduced_norm = np.linalg.norm(layer.reduced.numpy(), 2)
    assert layer.rate == pytest.approx(0.5 / reduced_norm**2)


def test_feasible_points_are_left_alone():
    P, A, b, G, h = problem()
    layer = DC3(P, A, b, G, h + 1e6, Settings(hidden=8)).eval()
    partial = torch.from_numpy(samples(3, n=8))
    torch.testing.assert_close(layer.correct(partial), partial, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_finite_differences_of_the_layer(seed):
    layer = layer_of()
    q = torch.from_numpy(samples(1, seed=10 + seed)[0]).requires_grad_()
    v = samples(1, seed=20 + seed)[0]
    (gradient,) = torch.autograd.grad(layer(q), q, torch.from_numpy(v))
    step, expected = 1e-6, np.empty(12)
    with torch.no_grad():
        for i in range(12):
            e = step * torch.eye(12, dtype=torch.float64)[i]
            expected[i] = v @ (layer(q + e) - layer(q - e)).numpy() / (2 * step)
    assert np.linalg.norm(expected) > 1e-3
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-6 * np.abs(expected).max())


def test_batch_and_single_agree():
    layer = layer_of()
    q = torch.from_numpy(samples(20))
    with torch.no_grad():
        torch.testing.assert_close(layer(q), torch.stack([layer(row) for row in q]))


def test_no_equalities_and_no_inequalities():
    P, *_ = problem()
    empty, none = np.zeros((0, 12)), np.zeros(0)
    layer = DC3(P, empty, none, empty, none, Settings(hidden=8)).eval()
    assert layer(torch.from_numpy(samples(2))).shape == (2, 12)


def test_training_lowers_the_loss_on_unseen_q_and_leaves_the_random_state():
    layer = layer_of(Settings(hidden=32, epochs=15, samples=400, batch=50, lr=1e-3))
    state = torch.random.get_rng_state()
    training = train(layer, samples(400), samples(100, seed=9))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not layer.training
    assert training.loss_after < training.loss_before
    # ½zᵀPz + qᵀz over the affine set alone bounds every feasible objective from below.
    P, A, b, *_ = problem()
    kkt = np.block([[P, A.T], [A, np.zeros((4, 4))]])
    bounds = []
    for q in samples(100, seed=9):
        z = np.linalg.solve(kkt, np.concatenate([-q, b]))[:12]
        bounds.append(0.5 * z @ P @ z + q @ z)
    assert training.loss_after > np.mean(bounds)


def test_cache_gives_the_same_network_and_notices_another_configuration(tmp_path):
    settings = Settings(hidden=8, epochs=2, samples=40, batch=20)
    q, unseen = samples(40), samples(10, seed=9)
    runs, outputs = [], []
    for _ in range(2):
        layer = layer_of(settings)
        runs.append(cached_training(layer, q, unseen, "problem", tmp_path))
        with torch.no_grad():
            outputs.append(layer(torch.from_numpy(unseen)))
    assert [run.cached for run in runs] == [False, True]
    assert runs[1].seconds == runs[0].seconds
    assert runs[1].loss_after == runs[0].loss_after
    assert torch.equal(outputs[0], outputs[1])
    assert not cached_training(layer_of(settings), q, unseen, "another", tmp_path).cached
    other = Settings(hidden=8, epochs=2, samples=40, batch=20, lr=1e-3)
    assert not cached_training(layer_of(other), q, unseen, "problem", tmp_path).cached
    assert len(list(tmp_path.iterdir())) == 3


def test_unreadable_cache_file_is_replaced(tmp_path):
    settings = Settings(hidden=8, epochs=1, samples=20, batch=10)
    q, unseen = samples(20), samples(10, seed=9)
    cached_training(layer_of(settings), q, unseen, "problem", tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for content in (b"not a network", whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        assert not cached_training(layer_of(settings), q, unseen, "problem", tmp_path).cached
    assert cached_training(layer_of(settings), q, unseen, "problem", tmp_path).cached


def test_dependent_equalities_are_refused():
    P, A, b, G, h = problem()
    A[3] = A[0] + A[1]
    with pytest.raises(ValueError, match="linearly dependent"):
        DC3(P, A, b, G, h)


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    monkeypatch.setenv("BPQP_BENCH_CACHE", str(tmp_path))

    def make(family, text="dc3[samples=40,epochs=2,batch=20,hidden=8]", wrt=("q",)):
        method = Registry().method(text).create(wrt=wrt)
        choice = Registry().family(family)
        template = choice.draw(Size(10, 5), 2**31)
        return method, template, choice

    return make


@pytest.mark.parametrize("family", ["qp[fixed=true]", "lp[fixed=true]"])
def test_adapter_solves_and_differentiates(adapter, family):
    method, template, choice = adapter(family)
    assert method.unsupported(template) is None
    method.build(template)
    instance = choice.draw(Size(10, 5), 3)
    data, v = make_data([instance], method), make_upstream([instance], method)
    call = measure_call(method, data, v, clock_for(method))
    solution = call.solution
    assert solution.status == "approximate"
    assert solution.info["approximate"] is True
    assert instance.residuals(solution.z).primal < 1.0
    assert abs(instance.A @ solution.z - instance.b).max() < 1e-9
    assert solution.info["training"]["cached"] is False
    assert call.forward.solve > 0
    second, *_ = adapter(family)
    second.build(template)
    again = measure_call(second, make_data([instance], second), v, clock_for(second))
    assert again.solution.info["training"]["cached"] is True
    np.testing.assert_array_equal(again.solution.z, solution.z)
    np.testing.assert_array_equal(again.gradients["q"], call.gradients["q"])


def test_adapter_trains_on_a_users_own_family(tmp_path, monkeypatch):
    monkeypatch.setenv("BPQP_BENCH_CACHE", str(tmp_path))
    source = (builtin_directory("problems") / "qp.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(source.replace('name="qp"', 'name="mine"'), encoding="utf-8")
    registry = Registry(problems_dirs=(tmp_path,))
    assert not registry.broken
    family = registry.family("mine[fixed=true]")
    method = registry.method("dc3[samples=10,epochs=1,hidden=8]").create()
    method.build(family.draw(Size(10, 5), 2**31))
    assert method.forward(
        *make_data([family.draw(Size(10, 5), 3)], method), PhaseClock()
    ).z.shape == (10,)


def test_adapter_says_what_it_cannot_do(adapter):
    method, template, _ = adapter("qp")
    assert "qp[fixed=true]" in method.unsupported(template)
    with pytest.raises(MethodError, match="fixed=true"):
        method.build(template)
    method, template, _ = adapter("qp[fixed=true]", wrt=("q", "b"))
    assert "q alone" in method.unsupported(template)
    method, template, _ = adapter("socp")
    assert "SOCP" in method.unsupported(template)
    method, template, _ = adapter("qp[fixed=true]", text="dc3[dropout=1.5]")
    with pytest.raises(SpecError, match="dropout"):
        method.build(template)


def test_adapter_refuses_a_problem_with_other_data(adapter):
    method, template, _ = adapter("qp[fixed=true]")
    method.build(template)
    other = Registry().family("qp").draw(Size(10, 5), 1)
    with pytest.raises(MethodError, match="another family"):
        method.forward(*make_data([other], method), PhaseClock())
