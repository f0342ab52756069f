"""BPQP beside its peers through the public layers: one problem, and a batch.

Methods take turns within a process, on one thread; a turn is some calls in a row, as a training
loop makes them, and its time their median. What counts is the median of the rounds' ratios to the
best peer. All six data want gradients. Seconds are those of the CPU, so that other work on the
machine costs none. Peers that stop at a tolerance are there twice, as accurate as BPQP and at 1e-5,
which is faster. Every gradient with respect to q, BPQP's too, is held to the certified reference,
as in the suite's tables; a wrong one is left out and named. Over n = 100 cvxpylayers and over
n = 1000 qpax are not measured, since they take minutes.

Run ``python benchmarks/peers.py [--batch 64] [--rounds 9] [--size 100x20 …] [--family qp …]``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from bpqp_bench import Instance, Size
from bpqp_bench.layers import BPQP
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.reference import compute_reference
from bpqp_bench.reference.accuracy import COSINE_RIGHT, ERROR_RIGHT, ZERO_GRADIENT

Layer = Callable[..., Tensor]
#: Both passes for data and an upstream gradient: seconds, and the gradient with respect to q.
Timed = Callable[[list[Tensor], Tensor], tuple[float, Tensor]]
Clock = Callable[[], float]
#: The tolerance of a peer that is not asked to be as accurate as BPQP.
_LOOSE = 1e-5


def qplayer(eps: float = 1e-9) -> Layer:
    from proxsuite.torch.qplayer import QPFunction  # noqa: PLC0415

    solve = QPFunction(eps=eps, omp_parallel=False)

    def layer(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        lower = torch.full_like(h, -1.0e20)
        alone = P.ndim == 2
        if alone:
            P, q, A, b, G, lower, h = (x.unsqueeze(0) for x in (P, q, A, b, G, lower, h))
        z: Tensor = solve(P, q, A, b, G, lower, h)[0]
        return z[0] if alone else z

    return layer


def qpth(eps: float = 1e-12) -> Layer:
    from qpth.qp import QPFunction  # noqa: PLC0415

    solve = QPFunction(verbose=-1, check_Q_spd=False, eps=eps, maxIter=30)

    def layer(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        z: Tensor = solve(P, q, G, h, A, b)
        return z if P.ndim == 3 else z[0]

    return layer


def cvxpylayer(solver: str, n: int, neq: int, nineq: int) -> Layer:
    import cvxpy as cp  # noqa: PLC0415
    from cvxpylayers.torch import CvxpyLayer  # noqa: PLC0415

    z, root, q = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    A, b, G, h = (cp.Parameter(s) for s in ((neq, n), neq, (nineq, n), nineq))
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(root @ z) + q @ z), [A @ z == b, G @ z <= h]
    )
    layer = CvxpyLayer(problem, parameters=[root, q, A, b, G, h], variables=[z], solver=solver)

    def call(P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        z: Tensor = layer(torch.linalg.cholesky(P).mT, q, A, b, G, h)[0]
        return z

    return call


def qpax(clock: Clock = time.process_time, tol: float = 1e-12) -> Timed:
    """Compile once a shape; data are JAX arrays, made outside the clock."""
    import jax  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)
    from qpax import solve_qp_primal  # noqa: PLC0415

    solve = partial(solve_qp_primal, backend="i", solver_tol=tol, target_kappa=tol, max_iter=50)
    forward = jax.jit(
        lambda *given: jax.vjp(jax.vmap(solve) if given[1].ndim == 2 else solve, *given)
    )
    backward = jax.jit(lambda pull_back, v: pull_back(v))

    def both(given: list[Tensor], v: Tensor) -> tuple[float, Tensor]:
        arrays: list[Any] = [jax.numpy.asarray(part.cpu().numpy()) for part in (*given, v)]
        jax.block_until_ready(arrays)
        begin = clock()
        z, pull_back = forward(*arrays[:-1])
        found = backward(pull_back, arrays[-1])
        jax.block_until_ready((z, found))
        return clock() - begin, torch.tensor(np.asarray(found[1]))

    return both


def drawn(family: str, size: Size, count: int) -> list[Instance]:
    draw = Registry().family(family).draw
    return [draw(size, seed) for seed in range(count)]


def data(instances: list[Instance]) -> list[Tensor]:
    count = len(instances)
    parts = [np.stack([getattr(i, name) for i in instances]) for name in ("P", *"qAbGh")]
    return [torch.from_numpy(part if count > 1 else part[0]) for part in parts]


def passes(
    layer: Layer, given: list[Tensor], v: Tensor, clock: Clock = time.process_time
) -> tuple[float, Tensor]:
    leaves = [part.detach().clone().requires_grad_() for part in given]
    begin = clock()
    z = layer(*leaves)
    torch.autograd.backward(z, v)
    took = clock() - begin
    assert leaves[1].grad is not None
    return took, leaves[1].grad


def references(instances: list[Instance], v: Tensor) -> Tensor:
    """Return certified gradients with respect to q, which judge every layer, BPQP too."""
    found = [
        compute_reference(instance, row.numpy(), ("q",)).gradients["q"]
        for instance, row in zip(instances, v, strict=True)
    ]
    return torch.from_numpy(np.stack(found))


def leave_out_wrong(
    layers: dict[str, Timed], given: list[Tensor], v: Tensor, exact: Tensor
) -> list[str]:
    """Take out of ``layers`` those whose gradients are wrong, and say why."""
    left_out: list[str] = []
    for name, layer in list(layers.items()):
        try:
            found = layer(given, v)[1].cpu()
            known = exact.norm(dim=-1) >= ZERO_GRADIENT  # a gradient of zero has no direction
            cosine = torch.nn.functional.cosine_similarity(found, exact, dim=-1)
            worst = float((1.0 - cosine)[known].max())
            error = float(((found - exact).norm(dim=-1) / exact.norm(dim=-1))[known].max())
            if not (worst <= COSINE_RIGHT and error <= ERROR_RIGHT):
                raise ValueError(f"1 − cos = {worst:.0e}, relative error {error:.0e}")
        except Exception as why:
            del layers[name]
            left_out.append(f"{name} ({str(why)[:60]})")
    return left_out


def compare(family: str, size: Size, batch: int, rounds: int, calls: int) -> str:
    instances = drawn(family, size, batch)
    given = data(instances)
    v = torch.randn(given[1].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    n, neq, nineq = (given[k].shape[-1] for k in (1, 3, 5))
    layers: dict[str, Timed] = {
        name: partial(passes, layer)
        for name, layer in (
            *(("BPQP", BPQP()), ("QPLayer", qplayer()), ("qpth", qpth())),
            *((f"QPLayer {_LOOSE:g}", qplayer(_LOOSE)), (f"qpth {_LOOSE:g}", qpth(_LOOSE))),
        )
    }
    if n <= 1000:
        layers |= {"qpax": qpax(), f"qpax {_LOOSE:g}": qpax(tol=_LOOSE)}
    for solver in ("DIFFCP", "MOREAU"):
        if n <= 100:
            layers[f"cvxpylayers {solver}"] = partial(passes, cvxpylayer(solver, n, neq, nineq))
    exact = references(instances, v.reshape(batch, n)).reshape(v.shape)
    left_out = leave_out_wrong(layers, given, v, exact)
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, layer in layers.items():
            times[name].append(float(np.median([layer(given, v)[0] for _ in range(calls)])))
    medians = {name: float(np.median(t)) for name, t in times.items()}
    peers = [name for name in layers if name != "BPQP"]
    ratio = float("nan")
    if peers and "BPQP" in layers:
        best = min(peers, key=medians.__getitem__)
        ratio = float(np.median(np.array(times["BPQP"]) / np.array(times[best])))
    listed = ", ".join(f"{name} {1e3 * t:.2f}" for name, t in medians.items())
    return f"{family} {size} batch {batch}: ratio {ratio:.2f}; ms {listed}" + (
        f"; left out: {'; '.join(left_out)}" if left_out else ""
    )


def shared(rounds: int) -> str:
    """Time a batch of 256 at 100x20 with one P, A, G beside the same with its own copies."""
    single = data(drawn("qp-active", Size(100, 20), 1))
    noise = torch.randn(256, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    P, q, A, b, G, h = single
    together = [P, q + 0.01 * noise, A, b, G, h]
    apart = [x.expand(256, *x.shape).contiguous() if k != 1 else x for k, x in enumerate(together)]
    layer, v = BPQP(), torch.ones(256, 100, dtype=torch.float64)
    pairs = [
        [passes(layer, given, v)[0] for given in (together, apart)] for _ in range(rounds + 1)
    ][1:]
    ratio = np.median([one / other for one, other in pairs])
    return f"qp-active 100x20 batch 256, shared P, A, G over own copies: {ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="+", default=["qp", "lp", "qp-active"])
    parser.add_argument("--size", nargs="+", default=["10x5", "50x10", "100x20", "500x100"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--shared", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.shared:
        print(shared(given.rounds))
        return
    for family in given.family:
        for size in given.size:
            print(
                compare(family, Size.parse(size), given.batch, given.rounds, given.calls),
                flush=True,
            )


if __name__ == "__main__":
    main()
