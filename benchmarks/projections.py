"""Sparse projections with up to a million variables: seconds, memory, and whether they are right.

A projection on the simplex is compared with the one by sorting (Duchi et al., ICML 2008, Figure 1)
and its gradient with v minus its mean on the support; of a chain, feasibility and the residuals are
shown. Each problem runs in a process of its own, whose peak of memory is given.

Run ``python benchmarks/projections.py [n …]`` (100000 and 1000000 by default).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
import torch

from bpqp_bench.layers import BPQP
from bpqp_bench.plugins.registry import Registry


def measure(onto: str, n: int) -> str:
    family = Registry().family(f"projection[onto={onto},n={n}]")
    assert family.size is not None
    instance = family.draw(family.size, 0)
    q, b, h = (
        torch.tensor(part, requires_grad=True) for part in (instance.q, instance.b, instance.h)
    )
    layer, v = BPQP(), torch.from_numpy(np.random.default_rng(0).standard_normal(n))
    begin = time.perf_counter()
    z = layer(instance.P, q, instance.A, b, instance.G, h)
    between = time.perf_counter()
    z.backward(v)
    end = time.perf_counter()
    facts, found = layer.last_info[0], z.detach().numpy()
    said = f"gradient {facts['gradient']}, primal residual {facts['primal_residual']:.0e}"
    if onto == "simplex":
        y = -instance.q
        down = np.sort(y)[::-1]
        over = (np.cumsum(down) - 1.0) / np.arange(1, n + 1)
        right = np.maximum(y - over[np.flatnonzero(down > over)[-1]], 0.0)
        held, slope = right > 0.0, v.numpy()
        exact = np.where(held, slope - slope[held].mean(), 0.0)
        assert q.grad is not None
        said += f", off by {np.abs(found - right).max():.0e}"
        said += f" and {np.abs(-q.grad.numpy() - exact).max():.0e} in the gradient"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{onto}, n = {n}: forward {between - begin:.1f} s ({facts['forward']}), "
        f"backward {end - between:.1f} s, peak {peak:.1f} GiB; {said}"
    )


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(measure(sys.argv[2], int(sys.argv[3])), flush=True)
        return
    for n in sys.argv[1:] or ("100000", "1000000"):
        for onto in ("simplex", "chain"):
            subprocess.run([sys.executable, __file__, "--one", onto, n], check=True)


if __name__ == "__main__":
    main()
