"""The layer on CUDA against the same on the CPU; skipped where there is no CUDA device.

What is solved, differentiated and refused there is tested on the CPU against closed forms and
differences; here only that another device changes nothing.
"""

import numpy as np
import pytest
import torch

from bpqp_bench.layers import BPQP
from bpqp_bench.problem.instance import Size
from bpqp_bench.reference import compute_reference

NAMES = ("P", "q", "A", "b", "G", "h")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def stacked(registry):
    def draw(name, n, m, count):
        instances = [registry.family(name).draw(Size(n, m), seed) for seed in range(count)]
        return [torch.tensor(np.stack([getattr(i, k) for i in instances])) for k in NAMES]

    return draw


def both_passes(data, device, layer, **options):
    leaves = [part.to(device).requires_grad_() for part in data]
    z = layer(*leaves, **options)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
    found = z.detach(), *torch.autograd.grad(z, leaves, v)
    assert {part.device for part in found} == {leaves[0].device}
    assert {part.dtype for part in found} == {leaves[0].dtype}
    return [part.cpu() for part in found]


def agree(data, tolerance=1e-9, **options):
    layer, other = BPQP(**options), BPQP(**options)
    for mine, theirs in zip(
        both_passes(data, "cuda", layer), both_passes(data, "cpu", other), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    return layer


@pytest.mark.parametrize("size", [(10, 5), (50, 10), (100, 20)])
def test_a_batch(stacked, size):
    layer = agree(stacked("qp-active", *size, 8))
    assert all(facts["gradient"] == "exact" for facts in layer.last_info)


@pytest.mark.parametrize("name", ["qp", "qp-active", "lp"])
def test_gradients_are_the_reference_s(registry, stacked, name):
    size = Size(50, 10)
    layer, data = BPQP(), stacked(name, size.n, size.m, 8)
    _, _, q, *_ = both_passes(data, "cuda", layer)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(q.shape, generator=generator, dtype=torch.float64)
    for k in range(8):
        instance = registry.family(name).draw(size, k)
        exact = compute_reference(instance, v[k].numpy(), ("q",)).gradients["q"]
        cosine = q[k].numpy() @ exact / np.linalg.norm(q[k]) / np.linalg.norm(exact)
        assert 1.0 - cosine < 1e-12
        assert layer.last_info[k]["gradient"] == "exact"


def test_one_problem_and_one_that_shares_its_matrices(stacked):
    data = stacked("qp-active", 50, 20, 4)
    agree([part[0] for part in data])
    agree([part[0] if part.ndim == 3 else part for part in data])


def test_float32(stacked):
    data = stacked("qp-active", 20, 8, 4)
    agree([part.float() for part in data], 1e-4)


def test_nothing_of_the_dense_path_goes_to_the_host(stacked, monkeypatch):
    data = stacked("qp-active", 50, 20, 16)
    given = [part.cuda().requires_grad_() for part in data]

    def refuse(*_, **__):
        raise AssertionError("a tensor went to the host")

    with monkeypatch.context() as patched:
        for name in ("cpu", "numpy", "__array__"):
            patched.setattr(torch.Tensor, name, refuse)
        BPQP()(*given).square().sum().backward()
    assert all(part.grad is not None for part in given)


def test_warm(stacked):
    data = stacked("qp-active", 50, 20, 4)
    layer, there = BPQP(), [part.cuda() for part in data]
    z = layer(*there)
    assert layer.state.is_cuda
    again = layer(*there, start=layer.state)
    assert layer.last_info[0]["iterations"] == 1
    torch.testing.assert_close(again, z, rtol=0, atol=1e-12)


def test_an_infeasible_instance_costs_its_own_row_alone(stacked):
    data, good = stacked("qp-active", 10, 5, 4), [0, 1, 3]
    data[4][2], data[5][2] = 0.0, -1.0  # 0 ≤ −1
    with pytest.raises(ValueError, match="infeasible"):
        BPQP()(*(part.cuda() for part in data))
    z, *gradients = both_passes(data, "cuda", BPQP(on_failure="nan"))
    assert z[2].isnan().all()
    assert all((part[2] == 0.0).all() for part in gradients)
    alone = BPQP()(*(part[good] for part in data))
    torch.testing.assert_close(z[good], alone, rtol=1e-9, atol=1e-9)


def test_bounds(stacked):
    P, q, *_ = (part[0] for part in stacked("qp-active", 10, 5, 1))
    lower, upper = torch.full_like(q, -0.5), torch.full_like(q, 0.5)
    z = BPQP()(P.cuda(), q.cuda(), lb=lower.cuda(), ub=upper.cuda())
    torch.testing.assert_close(z.cpu(), BPQP()(P, q, lb=lower, ub=upper), rtol=1e-10, atol=1e-10)


def test_jacobians_by_torch_func(stacked):
    def jacobian(given):
        P, q, *rows = given
        return torch.func.jacrev(lambda q: BPQP()(P, q, *rows))(q).cpu()

    data = [part[0] for part in stacked("qp-active", 10, 5, 1)]
    there = [part.cuda() for part in data]
    torch.testing.assert_close(jacobian(there), jacobian(data), rtol=1e-9, atol=1e-9)
