"""The layer beside a busy process, on two cores, and its backward pass over its triangular solves.

- With a user's default thread settings and one other busy process, over one thread and a machine
  of its own: what waiting for a core costs small problems.
- A batch of 64 on two threads over the same on one: needs two free cores.
- The backward pass of the kernel, for ∇q, ∇b and ∇h, over two triangular solves with each of its
  factors by LAPACK: what the adjoint costs beyond them. And of the whole call, autograd included.

Every ratio is a median of interleaved pairs, with the middle half of the pairs. Do not set
OMP_NUM_THREADS, and run it on a machine with nothing else to do: ``python benchmarks/threads.py``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from bpqp_bench.layers import BPQP
from bpqp_bench.layers.primal_dual import cpu
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Size

_PAIRS = 15


def _data(size: str, batch: int) -> list[Tensor]:
    draw = Registry().family("qp-active").draw
    some = [draw(Size.parse(size), seed) for seed in range(batch)]
    parts = [np.stack([getattr(i, name) for i in some]) for name in ("P", *"qAbGh")]
    return [torch.tensor(part if batch > 1 else part[0], requires_grad=True) for part in parts]


def _seconds(run: Callable[[], object], calls: int) -> float:
    """Median of some calls in a row."""
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def _report(what: str, ratios: list[float]) -> None:
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(f"{what}: {middle:.2f} (middle half {low:.2f} to {high:.2f})", flush=True)


def _both(given: list[Tensor]) -> Callable[[], object]:
    layer, v = BPQP(), torch.ones_like(given[1])

    def run() -> object:
        return torch.autograd.grad(layer(*given), given, v)

    run()
    return run


def busy(threads: int) -> None:
    for size in ("10x5", "100x20"):
        run, ratios = _both(_data(size, 1)), []
        for _ in range(_PAIRS):
            torch.set_num_threads(1)
            alone = _seconds(run, 50)
            torch.set_num_threads(threads)
            loop = "while True: pass"
            with subprocess.Popen([sys.executable, "-c", loop]) as other:
                time.sleep(0.1)
                ratios.append(_seconds(run, 50) / alone)
                other.kill()
        _report(f"{size}, {threads} threads beside a busy process, over one thread alone", ratios)


def two(threads: int) -> None:
    run, ratios = _both(_data("100x20", 64)), []
    for _ in range(_PAIRS):
        torch.set_num_threads(1)
        one = _seconds(run, 7)
        torch.set_num_threads(threads)
        ratios.append(_seconds(run, 7) / one)
    _report(f"batch of 64, 100x20, {threads} threads over one", ratios)


def backward(size: str) -> None:
    """LAPACK solves with factors of the same sizes: n, and the number of binding rows."""
    torch.set_num_threads(1)
    given = _data(size, 1)
    with torch.no_grad():
        P, q, A, b, G, h = given
        point = cpu.solve(P, q, A, b, G, h)
    n, k = given[1].shape[0], int(point.found.active.sum()) + given[3].shape[0]
    rng = np.random.default_rng(0)
    factors = [np.linalg.cholesky(np.eye(o) * o + np.ones((o, o))).T.copy("F") for o in (n, k)]
    sides = [rng.standard_normal(o) for o in (n, k)]

    def triangular() -> None:
        for factor, side in zip(factors, sides, strict=True):
            lapack.dpotrs(factor, side, lower=0)

    v = torch.ones(1, n, dtype=torch.float64)
    wanted = (False, True, False, True, False, True)
    calls = 200 if n <= 100 else 30
    kernel, whole = [], []
    z, vectors = BPQP()(*given), [given[i] for i in (1, 3, 5)]
    for _ in range(_PAIRS):
        base = _seconds(triangular, calls)
        kernel.append(_seconds(lambda: point.pullback(v, wanted, flat=False), calls) / base)
        grad = _seconds(lambda: torch.autograd.grad(z, vectors, v[0], retain_graph=True), calls)
        whole.append(grad / base)
    _report(f"{size}, backward kernel over its triangular solves", kernel)
    _report(f"{size}, backward call over its triangular solves", whole)


def main() -> None:
    threads = torch.get_num_threads()
    for size in ("10x5", "100x20", "500x100", "1000x300", "2000x800"):
        backward(size)
    two(threads)
    busy(threads)


if __name__ == "__main__":
    main()
