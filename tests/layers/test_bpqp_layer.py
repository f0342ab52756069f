"""The BPQP layer: gradients against finite differences, batches, types, errors."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import lsqr

from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.layers import BPQP
from bpqp_bench.layers.bpqp import BPQPWarning
from bpqp_bench.layers.qp_solvers import DENSE_ONLY, SOLVERS
from bpqp_bench.problem.instance import Size

NAMES = ("P", "q", "A", "b", "G", "h")


def tensors(instance, grad=True, dtype=torch.float64):
    return [
        torch.tensor(getattr(instance, name), dtype=dtype, requires_grad=grad) for name in NAMES
    ]


def active(registry, share=0.5, size=(8, 3), seed=0):
    family = registry.family(f"qp-active[active_share={share},margin=0.2]")
    return family.draw(Size(*size), seed)


@pytest.mark.parametrize("backward", ["osqp", "direct"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_gradcheck_at_several_active_shares(registry, share, backward):
    instance = active(registry, share)
    assert torch.autograd.gradcheck(BPQP(backward=backward), tensors(instance))


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_in_either_pass_gives_the_same_gradients(registry, name):
    data = tensors(active(registry))
    v = torch.arange(1.0, 9.0).double()
    expected = torch.autograd.grad(BPQP(backward="direct")(*data) @ v, data)
    tight = {"eps_abs": 1e-10, "eps_rel": 1e-10}
    forward = torch.autograd.grad(BPQP(name, "direct", **tight)(*data) @ v, data)
    backward = torch.autograd.grad(BPQP("daqp", name, **tight)(*data) @ v, data)
    tolerance = 1e-4 if name == "highs" else 1e-6
    for exact, one, other in zip(expected, forward, backward, strict=True):
        assert torch.allclose(one, exact, rtol=1e-8, atol=1e-9)
        assert torch.allclose(other, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("absent", ["A", "G", "both"])
def test_missing_constraints(registry, absent):
    P, q, A, b, G, h = tensors(active(registry))
    if absent in ("A", "both"):
        A = b = None
    if absent in ("G", "both"):
        G = h = None
    given = [part for part in (P, q, A, b, G, h) if part is not None]

    def layer(*parts):
        rest = iter(parts)
        return BPQP(backward="direct")(
            *(None if part is None else next(rest) for part in (P, q, A, b, G, h))
        )

    assert torch.autograd.gradcheck(layer, given)


def test_gradients_are_computed_only_where_needed(registry):
    data = tensors(active(registry), grad=False)
    data[1].requires_grad_()
    BPQP()(*data).sum().backward()
    assert [part.grad is not None for part in data] == [name == "q" for name in NAMES]


def test_only_the_symmetric_part_of_the_hessian_counts(registry):
    P, q, A, b, G, h = tensors(active(registry), grad=False)
    skew = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    crooked = (P + skew - skew.T).requires_grad_()
    z = BPQP()(crooked, q, A, b, G, h)
    assert torch.allclose(z, BPQP()(P, q, A, b, G, h), atol=1e-12)
    z.sum().backward()
    assert torch.allclose(crooked.grad, crooked.grad.T)


def test_batches_mix_own_and_shared_arguments(registry):
    P, q, A, b, G, h = tensors(active(registry), grad=False)
    noise = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own_q = (q + 0.05 * noise).requires_grad_()
    own_G = (G + torch.zeros(3, 1, 1, dtype=torch.float64)).requires_grad_()
    shared = [part.clone().requires_grad_() for part in (P, A, b, h)]
    layer = BPQP(backward="direct")
    z = layer(shared[0], own_q, shared[1], shared[2], own_G, shared[3])
    assert z.shape == (3, 8)
    assert len(layer.last_info) == 3
    v = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (z * v).sum().backward()
    sums = [torch.zeros_like(part) for part in shared]
    for i in range(3):
        alone = [part.detach().clone().requires_grad_() for part in shared]
        q_i, G_i = (part[i].detach().clone().requires_grad_() for part in (own_q, own_G))
        single = layer(alone[0], q_i, alone[1], alone[2], G_i, alone[3])
        assert torch.allclose(single, z[i], rtol=0, atol=1e-13)
        (single @ v[i]).backward()
        assert torch.allclose(own_q.grad[i], q_i.grad, atol=1e-13)
        assert torch.allclose(own_G.grad[i], G_i.grad, atol=1e-13)
        sums = [total + part.grad for total, part in zip(sums, alone, strict=True)]
    for part, total in zip(shared, sums, strict=True):
        assert torch.allclose(part.grad, total, rtol=1e-12, atol=1e-12)


def test_a_batch_of_one_stays_a_batch(registry):
    P, q, A, b, G, h = tensors(active(registry), grad=False)
    assert BPQP()(P, q[None], A, b, G, h).shape == (1, 8)


def test_float32_in_float32_out(registry):
    instance = active(registry)
    data = tensors(instance, dtype=torch.float32)
    z = BPQP()(*data)
    z.sum().backward()
    exact = tensors(instance)
    BPQP()(*exact).sum().backward()
    assert z.dtype == torch.float32
    for single, double in zip(data, exact, strict=True):
        assert single.grad.dtype == torch.float32
        assert torch.allclose(single.grad.double(), double.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("backward", ["osqp", "direct", "minres"])
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_tensors_get_sparse_gradients_on_their_pattern(registry, layout, backward):
    data = tensors(active(registry), grad=False)
    for i in (2, 4):  # holes in A and G
        data[i] = torch.where(data[i].abs() > 0.2, data[i], 0.0)
    data[3], data[5] = data[2] @ torch.ones(8).double(), data[4] @ torch.ones(8).double() + 0.1
    dense = [part.clone().requires_grad_() for part in data]
    sparse = [
        (getattr(part, layout)() if part.ndim == 2 else part.clone()).requires_grad_()
        for part in data
    ]
    layer = BPQP(backward=backward)
    layer(*dense).sum().backward()
    layer(*sparse).sum().backward()
    for full, thin in zip(dense, sparse, strict=True):
        if full.ndim == 1:
            assert torch.allclose(thin.grad, full.grad, rtol=1e-6, atol=1e-8)
            continue
        assert thin.grad.layout == thin.layout
        there = full.detach() != 0
        assert torch.allclose(thin.grad.to_dense()[there], full.grad[there], rtol=1e-6, atol=1e-8)
        assert (thin.grad.to_dense()[~there] == 0).all()


def test_scipy_matrices_are_taken_as_constants(registry):
    P, q, A, b, G, h = tensors(active(registry), grad=False)
    q.requires_grad_()
    expected = BPQP(backward="direct")(P, q, A, b, G, h)
    z = BPQP(backward="direct")(*(sp.csr_matrix(P), q, sp.coo_matrix(A), b, sp.csc_matrix(G), h))
    assert torch.allclose(z, expected, atol=1e-9)
    z.sum().backward()
    assert torch.isfinite(q.grad).all()


@pytest.mark.parametrize("name", DENSE_ONLY)
def test_dense_solvers_refuse_sparse_data(registry, name):
    P, q = tensors(active(registry), grad=False)[:2]
    with pytest.raises(SpecError, match="dense matrices only"):
        BPQP(name)(sp.csr_matrix(P), q)


def _batch(registry):
    P, q, A, b, G, h = tensors(active(registry), grad=False)
    return {
        "P": P.repeat(3, 1, 1),
        "q": q.repeat(3, 1),
        "A": A.repeat(3, 1, 1),
        "b": b.repeat(3, 1),
        "G": G.repeat(3, 1, 1),
        "h": h.repeat(3, 1),
    }


@pytest.mark.parametrize("solver", ["osqp", "proxqp", "piqp", "clarabel"])
def test_infeasible_instance_is_named(registry, solver):
    data = _batch(registry)
    data["A"][2, 1], data["b"][2, 1] = data["A"][2, 0], data["b"][2, 0] + 1
    with pytest.raises(InstanceError, match="instance 2 is infeasible"):
        BPQP(solver)(**data)


@pytest.mark.parametrize("solver", ["osqp", "proxqp", "piqp", "clarabel"])
def test_unbounded_instance_is_named(registry, solver):
    data = _batch(registry)
    data["P"][1] = 0
    with pytest.raises(ValueError, match="instance 1 is unbounded"):
        BPQP(solver, max_iter=20_000)(**data)


def test_bad_data_are_named(registry):
    data = _batch(registry)
    not_convex = data["P"].clone()
    not_convex[1] -= 10 * torch.eye(8)
    with pytest.raises(InstanceError, match="P of instance 1 is not positive semidefinite"):
        BPQP()(**data | {"P": not_convex})
    with pytest.raises(InstanceError, match="P is not positive semidefinite"):
        BPQP()(**data | {"P": not_convex[1]})
    missing = data["h"].clone()
    missing[2, 0] = float("nan")
    with pytest.raises(InstanceError, match="h of instance 2 has entries that are not finite"):
        BPQP()(**data | {"h": missing})
    with pytest.raises(InstanceError, match="A has shape"):
        BPQP()(**data | {"A": data["A"][:, :, :5]})
    with pytest.raises(InstanceError, match="b and h"):
        BPQP()(**data | {"b": data["b"][:, :1]})
    with pytest.raises(InstanceError, match="batch sizes differ"):
        BPQP()(**data | {"q": data["q"][:2]})
    with pytest.raises(InstanceError, match="go together"):
        BPQP()(**data | {"b": None})
    with pytest.raises(InstanceError, match="dimensions"):
        BPQP()(**data | {"P": data["P"][None]})
    with pytest.raises(InstanceError, match="floating-point"):
        BPQP()(**data | {"G": data["G"].long()})


def _chain(n, shift=0.0):
    """Draw a sparse QP in n variables, a few entries a row, with its solution."""
    rng = np.random.default_rng(0)

    def rows(count):
        start = rng.integers(0, n - 3, count)
        columns = (start[:, None] + np.arange(3)).ravel()
        values = rng.standard_normal(3 * count)
        return sp.csc_matrix((values, (np.repeat(np.arange(count), 3), columns)), shape=(count, n))

    P = sp.diags([np.full(n - 1, -0.9), np.full(n, 2.0 - shift), np.full(n - 1, -0.9)], [-1, 0, 1])
    A, G = rows(n // 10), rows(n // 5)
    z, nu = rng.standard_normal(n), rng.standard_normal(n // 10)
    lam = np.where(rng.random(n // 5) < 0.5, rng.uniform(0.5, 1.0, n // 5), 0.0)
    slack = np.where(lam > 0, 0.0, rng.uniform(0.5, 1.0, n // 5))
    q = -(P @ z) - A.T @ nu - G.T @ lam
    return sp.csc_matrix(P), torch.from_numpy(q), A, A @ z, G, G @ z + slack, z


@pytest.mark.parametrize("pair", [("osqp", "direct"), ("piqp", "osqp"), ("scs-indirect", "minres")])
def test_large_sparse_problems_stay_sparse(pair, monkeypatch):
    P, q, A, b, G, h, z = _chain(5000)

    def refuse(*_, **__):
        raise AssertionError("a sparse matrix was made dense")

    for kind in (sp.csc_matrix, sp.csr_matrix, sp.coo_matrix):
        monkeypatch.setattr(kind, "toarray", refuse)
        monkeypatch.setattr(kind, "todense", refuse)
    layer = BPQP(*pair)
    q.requires_grad_()
    found = layer(P, q, A, torch.from_numpy(b), G, torch.from_numpy(h))
    np.testing.assert_allclose(found.detach(), z, atol=1e-9)
    found.sum().backward()
    # The adjoint equations themselves are the test: P z̃ + v in the span of the binding rows.
    binding = sp.csr_matrix(G)[np.flatnonzero(h - G @ z < 1e-9)]
    C = sp.vstack([A, binding])
    left = P @ q.grad.numpy() + 1.0
    multipliers = lsqr(C.T, left, atol=1e-13, btol=1e-13)[0]
    assert np.abs(left - C.T @ multipliers).max() < 1e-6
    assert np.abs(C @ q.grad.numpy()).max() < 1e-6
    assert layer.last_info[0]["gradient"] == "exact"


def test_a_sparse_matrix_that_is_not_semidefinite_is_refused():
    P, q = _chain(500, shift=0.5)[:2]
    with pytest.raises(InstanceError, match="not positive semidefinite"):
        BPQP()(P, q)


def test_unknown_settings_are_refused():
    with pytest.raises(SpecError, match="forward='gurobi'"):
        BPQP("gurobi")
    with pytest.raises(SpecError, match="forward='direct'"):
        BPQP("direct")
    with pytest.raises(SpecError, match="negative"):
        BPQP(eps_abs=-1.0)


def test_an_unconverged_solver_warns_and_says_so(registry):
    data = tensors(active(registry), grad=False)
    layer = BPQP("osqp", max_iter=1, polish="none")
    with pytest.warns(BPQPWarning, match="instance 0: osqp ended its forward pass"):
        layer(*data)
    assert layer.last_info[0]["status"] == "iteration limit"
    assert layer.last_info[0]["dual_residual"] > 1e-5


def test_changing_the_data_before_backward_is_noticed(registry):
    data = tensors(active(registry), grad=False)
    data[1].requires_grad_()
    loss = BPQP()(*data).sum()
    with torch.no_grad():
        data[0] += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    P = data[0].clone()
    with torch.no_grad():
        kept = P.clone()
        BPQP()(P, *data[1:])
    assert torch.equal(P, kept)
    np.testing.assert_array_equal(P.numpy(), kept.numpy())
