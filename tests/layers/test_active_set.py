"""The active-set method: planted solutions, differences, batches, transforms, units."""

from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bpqp_bench.layers import BPQP
from bpqp_bench.layers.primal_dual import batched, cpu
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Size

NAMES = ("P", "q", "A", "b", "G", "h")


@pytest.fixture(scope="module")
def family():
    return Registry().family


def stacked(family, name, size, seeds):
    instances = [family(name).draw(Size(*size), seed) for seed in seeds]
    data = [torch.tensor(np.stack([getattr(i, k) for i in instances])) for k in NAMES]
    return instances, data


@pytest.mark.parametrize("size", [(10, 5), (50, 20), (200, 80)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_planted_solutions_alone_and_in_a_batch(family, size, share):
    name = f"qp-active[active_share={share}]"
    instances, data = stacked(family, name, size, range(4))
    layer = BPQP()
    together = layer(*data)
    assert all(facts["forward"] == "active-set" for facts in layer.last_info)
    for i, instance in enumerate(instances):
        alone = layer(*(part[i] for part in data))
        np.testing.assert_allclose(alone, instance.planted.z, rtol=0, atol=1e-11)
        np.testing.assert_allclose(together[i], instance.planted.z, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(layer.state, instance.planted.active)


def test_gradients_of_a_batch_agree_with_differences(family):
    _, data = stacked(family, "qp-active", (6, 3), range(3))
    assert torch.autograd.gradcheck(BPQP(), [part.requires_grad_() for part in data])


@pytest.mark.parametrize("rank", [0, 3, 15])
def test_a_singular_objective_is_solved_by_the_kernel(rank):
    """Planted solutions of LPs and of QPs flat along many directions, with their gradients."""
    rng, n, neq, count = np.random.default_rng(rank), 20, 4, 8
    free = rank // 2  # directions that the binding rows leave to the objective
    active, rest = n - neq - free, 10
    F = rng.standard_normal((count, n, rank))
    P = F @ F.mT
    A, G = rng.standard_normal((count, neq, n)), rng.standard_normal((count, active + rest, n))
    z, nu = rng.standard_normal((count, n)), rng.standard_normal((count, neq))
    lam = np.concatenate([rng.uniform(0.5, 2, (count, active)), np.zeros((count, rest))], axis=1)
    slack = np.concatenate([np.zeros((count, active)), rng.uniform(0.5, 2, (count, rest))], axis=1)
    q = -np.einsum("kij,kj->ki", P, z)
    q -= np.einsum("kij,ki->kj", A, nu) + np.einsum("kij,ki->kj", G, lam)
    sides = np.einsum("kij,kj->ki", A, z), np.einsum("kij,kj->ki", G, z) + slack
    data = [torch.tensor(part) for part in (P, q, A, sides[0], G, sides[1])]
    layer = BPQP()
    v = torch.tensor(rng.standard_normal((count, n)))
    for part in data[1:]:
        part.requires_grad_()
    (layer(*data) * v).sum().backward()
    # Vertices of nearly dependent rows are left: one of 24.
    left = [facts["forward"] != "active-set" for facts in layer.last_info]
    assert sum(left) <= 1
    assert {facts["gradient"] for facts in layer.last_info} == {"exact"}
    for i in range(count):
        np.testing.assert_allclose(layer(*(part[i] for part in data)).detach(), z[i], atol=1e-9)
        C = np.concatenate([A[i], G[i, :active]])
        K = np.block([[P[i], C.T], [C, np.zeros((n - free, n - free))]])
        adjoint = np.linalg.solve(K, np.concatenate([-v[i].numpy(), np.zeros(n - free)]))
        np.testing.assert_allclose(data[1].grad[i], adjoint[:n], atol=1e-7)
        found = torch.cat([data[3].grad[i], data[5].grad[i, :active]])
        np.testing.assert_allclose(found, -adjoint[n:], atol=1e-7)


def test_a_flat_optimum_goes_to_another_solver():
    """Many points are optimal: there is no gradient, and nothing says that there is one."""
    P = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    q = torch.tensor([-1.0, 0.0], dtype=torch.float64, requires_grad=True)
    G = torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    layer = BPQP()
    z = layer(P, q, G=G, h=torch.ones(2, dtype=torch.float64))
    z.sum().backward()
    assert abs(z[0] - 1.0) < 1e-9
    assert layer.last_info[0]["forward"] != "active-set"
    assert layer.last_info[0]["gradient"] == "least-squares"


@pytest.mark.parametrize("own", [(), (1,), (0,), (2,), (1, 4), (3, 5), (0, 1, 2, 3, 4, 5)])
def test_shared_arguments_get_the_sum_of_the_gradients(family, own):
    _, data = stacked(family, "qp-active", (8, 4), [0])
    base = [part[0] for part in data]
    generator = torch.Generator().manual_seed(0)
    noise = [
        1e-3 * torch.randn(3, *part.shape, dtype=part.dtype, generator=generator) for part in base
    ]
    given = [(base[k] + noise[k] if k in own else base[k]).requires_grad_() for k in range(6)]
    if not own:
        given[1] = base[1].detach().expand(3, -1).clone().requires_grad_()
    v = torch.randn(3, 8, dtype=torch.float64, generator=generator)
    found = torch.autograd.grad((BPQP()(*given) * v).sum(), given)
    expected = [torch.zeros_like(part) for part in given]
    for i in range(3):
        alone = [part[i] if part.ndim > base[k].ndim else part for k, part in enumerate(given)]
        alone = [part.detach().clone().requires_grad_() for part in alone]
        parts = torch.autograd.grad(BPQP()(*alone) @ v[i], alone)
        for k, part in enumerate(parts):
            if given[k].ndim > base[k].ndim:
                expected[k][i] = part
            else:
                expected[k] += part
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_where_all_rows_at_once_would_cycle_one_at_a_time_ends(family):
    instance = family("qp-active").draw(Size(10, 5), 36)
    layer = BPQP()
    z = layer(*(torch.tensor(getattr(instance, name)) for name in NAMES))
    np.testing.assert_allclose(z, instance.planted.z, atol=1e-12)
    assert layer.last_info[0]["forward"] == "active-set"


@pytest.mark.parametrize("kernel", [cpu, batched])
def test_units_change_nothing_but_the_units(family, kernel):
    i = family("qp-active").draw(Size(20, 8), 3)
    rng = np.random.default_rng(0)
    columns, rows, more = (10.0 ** rng.uniform(-6, 6, k) for k in (20, 8, 8))
    money = 1e-7
    scaled = (
        money * i.P * columns * columns[:, None],
        money * i.q * columns,
        i.A * columns * rows[:, None],
        i.b * rows,
        i.G * columns * more[:, None],
        i.h * more,
    )
    point = kernel.solve(*(torch.tensor(part)[None] for part in scaled))
    assert not point.left
    z, active = point.found.z[0].numpy(), point.found.active[0].numpy()
    np.testing.assert_allclose(z * columns, i.planted.z, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(active, i.planted.active)


def test_a_start_at_the_solution_needs_one_step_and_a_wrong_one_costs_only_steps(family):
    instances, data = stacked(family, "qp-active", (50, 20), range(3))
    layer = BPQP()
    z = layer(*data)
    cold = layer.last_info[0]["iterations"]
    same = layer(*data, start=layer.state)
    assert layer.last_info[0]["iterations"] == 1 < cold
    wrong = layer(*data, start=~layer.state)
    torch.testing.assert_close(same, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(wrong, z, rtol=0, atol=1e-12)
    alone = [part[1] for part in data]
    layer(*alone)
    layer(*alone, start=layer.state)
    assert layer.last_info[0]["iterations"] == 1
    with pytest.raises(ValueError, match="start is"):
        layer(*data, start=layer.state)
    del instances


def test_the_dense_batch_never_leaves_its_device(family, monkeypatch):
    _, data = stacked(family, "qp-active", (10, 5), range(4))

    def refuse(*_, **__):
        raise AssertionError("a tensor went to the host")

    # As if the tensors were on another device than the CPU.
    monkeypatch.setattr(cpu, "solve", batched.solve)
    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    given = [part.requires_grad_() for part in data]
    layer = BPQP()
    layer(*given).square().sum().backward()
    assert all(part.grad is not None for part in given)


def test_an_instance_that_the_kernel_leaves_costs_no_other(family):
    _, data = stacked(family, "qp-active", (10, 5), range(3))
    alone = BPQP()(*(part[0] for part in data))
    data[0][1] = 0.0  # an LP with these constraints: bounded by a box
    box = torch.eye(10, dtype=torch.float64)
    G = torch.cat([data[4], box.expand(3, -1, -1), -box.expand(3, -1, -1)], dim=1)
    h = torch.cat([data[5], torch.full((3, 20), 9.0, dtype=torch.float64)], dim=1)
    layer = BPQP()
    z = layer(data[0], data[1], data[2], data[3], G, h)
    assert [facts["forward"] == "active-set" for facts in layer.last_info][::2] == [True, True]
    torch.testing.assert_close(z[0], alone, rtol=0, atol=1e-11)
    violation = (torch.einsum("bij,bj->bi", G, z) - h).amax()
    assert violation < 1e-9


def test_compiling_breaks_the_graph_once(family):
    _, data = stacked(family, "qp-active", (10, 5), range(3))
    layer, scale = BPQP(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def loss():
        return layer(data[0], torch.tanh(scale * data[1]), *data[2:]).square().sum()

    expected = torch.autograd.grad(loss(), scale)[0]
    torch._dynamo.reset()
    graphs: list[object] = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(loss, backend=keep)
    found = torch.autograd.grad(compiled(), scale)[0]
    assert found == expected
    assert len(graphs) == 2  # before the layer, and after it


class TestTransforms:
    @pytest.fixture
    def data(self, family):
        return [part[0] for part in stacked(family, "qp-active", (5, 2), [1])[1]]

    @staticmethod
    def differences(data):
        P, q, *rows = data
        steps = 1e-6 * torch.eye(5, dtype=torch.float64)
        return torch.stack(
            [(BPQP()(P, q + e, *rows) - BPQP()(P, q - e, *rows)) / 2e-6 for e in steps], dim=1
        )

    def test_jacrev(self, data):
        P, q, *rows = data
        J = torch.func.jacrev(lambda q: BPQP()(P, q, *rows))(q)
        torch.testing.assert_close(J, self.differences(data), rtol=1e-6, atol=1e-6)

    def test_vmap(self, data):
        P, q, *rows = data
        many = torch.stack([q, q + 0.01, q - 0.01])
        z = torch.vmap(lambda q: BPQP()(P, q, *rows))(many)
        torch.testing.assert_close(z, BPQP()(P, many, *rows), rtol=0, atol=1e-12)

    def test_vmap_over_a_batch(self, data):
        P, q, A, b, G, h = data
        qs, bs = q + 0.01 * torch.arange(6.0).double().reshape(3, 2, 1), b.expand(2, -1)
        z = torch.vmap(lambda q: BPQP()(P, q, A, bs, G, h))(qs)
        assert z.shape == (3, 2, 5)
        for i in range(3):
            torch.testing.assert_close(z[i], BPQP()(P, qs[i], A, b, G, h), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("batch", [False, True])
    def test_gradients_per_sample(self, data, batch):
        P, q, A, b, G, h = data

        def loss(q, h):
            rows = (A, b.expand(2, -1) if batch else b, G, h)
            return BPQP()(P, q, *rows).square().sum()

        qs = torch.stack([q, q + 0.01, q - 0.01])
        found = torch.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(qs, h)
        for i in range(3):
            one = torch.func.grad(loss, argnums=(0, 1))(qs[i], h)
            leaves = [qs[i].clone().requires_grad_(), h.clone().requires_grad_()]
            two = torch.autograd.grad(loss(*leaves), leaves)
            for part, alone, plain in zip(found, one, two, strict=True):
                torch.testing.assert_close(part[i], alone, rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(alone, plain, rtol=1e-10, atol=1e-10)

    def test_jacobians_per_sample(self, data):
        P, q, *rows = data
        qs = torch.stack([q, q + 0.01])
        J = torch.vmap(torch.func.jacrev(lambda q: BPQP()(P, q, *rows)))(qs)
        expected = torch.func.jacrev(lambda q: BPQP()(P, q, *rows))(qs[1])
        torch.testing.assert_close(J[1], expected, rtol=1e-10, atol=1e-10)

    def test_second_derivatives_are_refused(self, data):
        P, q, *rows = data

        def loss(q):
            return BPQP()(P, q, *rows).square().sum()

        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.functional.hessian(loss, q)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.func.jacrev(torch.func.jacrev(loss))(q)


@pytest.mark.parametrize("n", [50, 3000])
def test_sparse_projections(n):
    """On the simplex, against sorting; along a chain |z_{i+1} − z_i| ≤ w, by its conditions."""
    rng = np.random.default_rng(n)
    y, eye = rng.standard_normal(n), sp.eye(n, format="csc")
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    q = torch.tensor(-y, requires_grad=True)
    layer = BPQP()
    z = layer(eye, q, sp.csc_matrix(np.ones((1, n))), one, -eye, zero)
    assert layer.last_info[0]["forward"] == "active-set"
    ordered = np.sort(y)[::-1]
    shifts = (np.cumsum(ordered) - 1) / np.arange(1, n + 1)
    expected = np.maximum(y - shifts[np.flatnonzero(ordered > shifts)[-1]], 0.0)
    np.testing.assert_allclose(z.detach(), expected, rtol=0, atol=1e-12)
    z[int(expected.argmax())].backward()
    on = expected > 0
    np.testing.assert_allclose(
        q.grad, -1.0 * on * ((np.arange(n) == expected.argmax()) - 1.0 / on.sum()), atol=1e-12
    )
    y = np.cumsum(y)
    steps = sp.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n), format="csc")
    G, h = sp.vstack([steps, -steps], format="csc"), np.full(2 * (n - 1), 0.5)
    z = layer(eye, torch.tensor(-y), None, None, G, torch.tensor(h)).numpy()
    lam = layer.multipliers[1].numpy()
    assert (G @ z - h).max() < 1e-11
    assert lam.min() >= 0.0
    np.testing.assert_allclose(z - y + G.T @ lam, 0.0, atol=1e-9)
    np.testing.assert_allclose(lam * (G @ z - h), 0.0, atol=1e-9)


def test_two_graphs_at_once_keep_their_own_factors(family):
    """Memory of factors is handed on, but only when its graph is gone."""
    data = [stacked(family, "qp-active", (60, 30), [seed])[1] for seed in range(3)]
    leaves = [[part[0].clone().requires_grad_() for part in parts] for parts in data]
    alone = []
    for given in leaves:
        alone.append(torch.autograd.grad(BPQP()(*given).sum(), given))
    layer = BPQP()
    z = [layer(*given) for given in leaves]
    for given, value, expected in zip(leaves, z, alone, strict=True):
        for _ in range(2):  # a graph that is kept gives the same again
            found = torch.autograd.grad(value.sum(), given, retain_graph=True)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_threads_change_nothing(family):
    _, data = stacked(family, "qp-active", (50, 20), range(32))
    given = [part.requires_grad_() for part in data]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            z = BPQP()(*given)
            found.append([z, *torch.autograd.grad(z.square().sum(), given)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_blas_has_one_thread_wherever_small_matrices_need_it(family, monkeypatch):
    """In both passes of a batch that shares P; one problem needs no BLAS in its backward pass."""
    _, data = stacked(family, "qp-active", (60, 20), range(3))
    entered = []

    @contextmanager
    def held():
        entered.append(True)
        yield

    monkeypatch.setattr(cpu, "one_thread", held)
    for given, times in (([data[0][0], *data[1:]], 2), ([part[0] for part in data], 1)):
        leaves = [part.clone().requires_grad_() for part in given]
        entered.clear()
        z = BPQP()(*leaves)
        assert len(entered) == 1
        z.sum().backward()
        assert len(entered) == times


@pytest.mark.parametrize("size", [(10, 5), (33, 10), (60, 35)])
def test_both_kernels_agree(family, size):
    """Plain loops, LAPACK and torch: the same solutions, multipliers and gradients."""
    _, data = stacked(family, "qp-active", size, range(3))
    one, other = cpu.solve(*data), batched.solve(*data)
    v = torch.randn(3, size[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = [(one.found.z, other.found.z), (one.found.duals, other.found.duals)]
    first, second = (point.pullback(v, (True,) * 6, flat=False) for point in (one, other))
    count = 3 * one.found.duals.shape[-1]  # the rest are residuals, at rounding level
    pairs += [*zip(first[0], second[0], strict=True), (first[1][:count], second[1][:count])]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(one.found.active, other.found.active)
    assert not one.left
    assert not other.left


@pytest.mark.parametrize("size", [(10, 5), (60, 35), (100, 20)])
def test_instances_that_share_their_matrices_are_solved_as_those_that_do_not(family, size):
    """Two blocks and a part of one, with binding rows of their own each."""
    n, count = size[0], 70
    _, (P, q, A, b, G, h) = stacked(family, "qp-active", size, [0])
    rng = np.random.default_rng(0)
    q, b, h = (
        part + noise * part.abs().mean() * torch.tensor(rng.standard_normal((count, part.shape[1])))
        for part, noise in ((q, 3.0), (b, 0.1), (h, 0.1))
    )
    together = [P[0], q, A[0], b, G[0], h]
    apart = [
        part if k % 2 else part.expand(count, *part.shape).contiguous()
        for k, part in enumerate(together)
    ]
    one, other = cpu.solve(*together), cpu.solve(*apart)
    assert len({tuple(row) for row in one.found.active.tolist()}) > 5
    torch.testing.assert_close(one.found.z, other.found.z, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.found.duals, other.found.duals, rtol=1e-9, atol=1e-9)
    assert torch.equal(one.found.active, other.found.active)
    assert torch.equal(one.found.weak, other.found.weak)
    assert one.left == other.left == []
    v = torch.tensor(rng.standard_normal((count, n)))
    first, second = (point.pullback(v, (True,) * 6, flat=False) for point in (one, other))
    for mine, theirs in zip(first[0], second[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert float(first[1][-count:].max()) < 1e-12  # residuals


def test_one_bad_instance_of_a_batch_that_shares_its_matrices_costs_no_other(family):
    _, (P, q, A, b, G, h) = stacked(family, "qp-active", (20, 8), [0])
    q, h = q.repeat(40, 1), h.repeat(40, 1)
    G[0, 1] = -G[0, 0]
    h[:, 1] = 5.0 - h[:, 0]
    h[33, 1] = -1.0 - h[33, 0]  # contradicts its first row
    layer = BPQP(on_failure="nan")
    z = layer(P[0], q.requires_grad_(), A[0], b[0], G[0], h)
    assert z.isnan().all(-1).nonzero().flatten().tolist() == [33]
    alone = BPQP()(P[0], q[0], A[0], b[0], G[0], h[0])
    np.testing.assert_allclose(z[34].detach(), alone.detach(), rtol=1e-11, atol=1e-11)
    z.nansum().backward()
    assert (q.grad[33] == 0.0).all()
    assert torch.equal(q.grad[0], q.grad[39])


# Of the kernels on the CPU, the proximal method takes most of these problems to fewer rows.
@pytest.mark.parametrize(("kernel", "least"), [(cpu, 50), (batched, 150)])
def test_more_binding_rows_than_variables_are_left(kernel, least):
    """The last pivot is rounding times the length of the combination, mostly over any threshold."""
    rng, n, count = np.random.default_rng(0), 5, 300
    G = rng.standard_normal((count, n + 1, n))
    lam = rng.uniform(1e-6, 1.0, (count, n + 1)) ** 4
    G[:, -1] *= 1e-4  # as a combination of the others it has large coefficients
    G[:, 0] += 1e3 * G[:, 1]
    P = np.broadcast_to(np.eye(n), (count, n, n))
    z = rng.standard_normal((count, n))
    q = -z - np.einsum("kij,ki->kj", G, lam)
    h = np.einsum("kij,kj->ki", G, z)
    data = [torch.tensor(part) for part in (P, q, np.zeros((count, 0, n)), np.zeros((count, 0)))]
    start = torch.ones(count, n + 1, dtype=torch.bool)
    point = kernel.solve(*data, torch.tensor(G), torch.tensor(h), start)
    bound = point.found.active.sum(-1)
    assert not ((bound > n) & ~torch.isin(torch.arange(count), torch.tensor(point.left))).any()
    assert (bound > n).sum() > least
