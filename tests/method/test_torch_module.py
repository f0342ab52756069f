"""Methods as torch layers: gradients by differences, order of passes, times, failures."""

import numpy as np
import pytest
import torch

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.method.choice import MethodChoice
from bpqp_bench.method.contract import Method
from bpqp_bench.method.torch_module import MethodLayer
from bpqp_bench.problem.instance import Instance, Size
from bpqp_bench.problem.solution import Solution

N, NEQ, NINEQ = 6, 2, 4


@pytest.fixture(scope="module")
def template():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((N, N))
    inner = rng.standard_normal(N)
    A, G = rng.standard_normal((NEQ, N)), rng.standard_normal((NINEQ, N))
    # Two inequalities are so tight that the minimizer meets them.
    slack = np.array([0.0, 0.0, 5.0, 5.0])
    return Instance(
        P=root @ root.T + np.eye(N),
        q=3 * rng.standard_normal(N),
        A=A,
        b=A @ inner,
        G=G,
        h=G @ inner + slack,
        size=Size(N, NINEQ),
    )


@pytest.mark.parametrize("name", ["bpqp-fast", "exact-solve", "qpth"])
def test_gradients_of_all_vectors_agree_with_differences(name, registry, template):
    layer = MethodLayer(registry.method(name), template, wrt=("q", "b", "h"))
    given = [torch.tensor(getattr(template, k), requires_grad=True) for k in ("q", "b", "h")]
    z = layer(q=given[0])
    assert ((template.G @ z.detach().numpy() - template.h) > -1e-7).any()  # something is active
    assert torch.autograd.gradcheck(
        lambda q, b, h: layer(q=q, b=b, h=h), given, eps=1e-5, atol=1e-4, rtol=1e-4
    )


def test_matrix_gradient_agrees_with_differences(registry, template):
    layer = MethodLayer(registry.method("bpqp-fast"), template, wrt=("G",))
    G = torch.tensor(template.G, requires_grad=True)
    assert torch.autograd.gradcheck(lambda G: layer(G=G), (G,), eps=1e-6, atol=1e-5, rtol=1e-5)


def test_backward_belongs_to_its_own_forward(registry, template):
    layer = MethodLayer(registry.method("bpqp-fast"), template)
    # From another quadrant: another active set.
    q1 = torch.tensor(template.q, requires_grad=True)
    q2 = torch.tensor(-5 * template.q, requires_grad=True)
    (alone,) = torch.autograd.grad(layer(q=q1).square().sum(), q1)
    z1, z2 = layer(q=q1), layer(q=q2)
    assert not torch.allclose(z1, z2)
    layer.take_times()
    z1.square().sum().backward()  # the method has solved z2's problem since
    assert layer.take_times().repeated == 1
    torch.testing.assert_close(q1.grad, alone, rtol=0, atol=0)


def test_types_devices_and_constants(registry, template):
    layer = MethodLayer(registry.method("bpqp-fast"), template)
    q = torch.tensor(template.q, dtype=torch.float32, requires_grad=True)
    P = torch.tensor(template.P, requires_grad=True)
    z = layer(q=q, P=P)
    assert z.dtype == torch.float64
    z.sum().backward()
    assert q.grad.dtype == torch.float32
    assert P.grad is None  # not in wrt
    assert not layer(q=template.q).requires_grad


def test_times_and_statuses_are_kept_until_taken(registry, template):
    layer = MethodLayer(registry.method("bpqp"), template)
    q = torch.tensor(template.q, requires_grad=True)
    layer.warm_up()
    assert layer.take_times().forward == ()
    for _ in range(2):
        layer(q=q).sum().backward()
    times = layer.take_times()
    assert len(times.forward) == len(times.backward) == 2
    assert all(0 < p.solve < p.call for p in (*times.forward, *times.backward))
    assert layer.statuses == {"solved": 2}
    assert layer.take_times().forward == ()


def test_other_shapes_build_anew(registry, template):
    layer = MethodLayer(registry.method("bpqp-fast"), template)
    layer(q=template.q)
    small = layer(
        P=np.eye(3), q=-np.ones(3), A=np.ones((1, 3)), b=np.ones(1), G=-np.eye(3), h=np.zeros(3)
    )
    np.testing.assert_allclose(small.numpy(), np.full(3, 1 / 3), atol=1e-9)


class _Picky(Method):
    name = "picky"
    label = "Picky"
    reference = ""
    problem_classes = frozenset({"socp"})

    def build(self, template):
        raise AssertionError("never built")

    def forward(self, problem, clock):
        return Solution(problem.q)

    def backward(self, upstream, clock):
        return {"q": upstream}


class _Missing(_Picky):
    requires = ("no_such_library_anywhere",)


def test_failures_are_clear(registry, template):
    layer = MethodLayer(registry.method("bpqp"), template)
    with pytest.raises(SpecError, match="no data named Q"):
        layer(Q=template.P)
    with pytest.raises(MethodError, match="Picky: QP: not supported"):
        MethodLayer(MethodChoice(_Picky, {}, "picky", "Picky"), template)(q=template.q)
    with pytest.raises(MethodError, match="no_such_library_anywhere"):
        MethodLayer(MethodChoice(_Missing, {}, "picky", "Picky"), template)
