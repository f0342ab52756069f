"""Batches of dense QPs through BPQP on CUDA beside the CPU, forward and backward.

Run ``python benchmarks/gpu.py``; without a CUDA device it says so and ends with 1.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from bpqp_bench import Size
from bpqp_bench.layers import BPQP
from bpqp_bench.plugins.registry import Registry

_SIZES = ("10x5", "50x10", "100x20", "200x50")
_BATCHES = (64, 256, 1024)
_ROUNDS = 7


def seconds(layer: BPQP, given: list[torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Median time of both passes, and ∇q."""
    times, gradient = [], torch.zeros(0)
    for _ in range(_ROUNDS):
        q = given[1].detach().clone().requires_grad_()
        if q.is_cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        layer(given[0], q, *given[2:]).sum().backward()
        if q.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        assert q.grad is not None
        gradient = q.grad
    return float(np.median(times)), gradient.cpu()


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return 1
    print(torch.cuda.get_device_name())
    draw = Registry().family("qp-active").draw
    print("| size | batch | CUDA ms | CPU ms | 1 − cos |\n|---|---|---|---|---|")
    for size in _SIZES:
        some = [draw(Size.parse(size), seed) for seed in range(16)]
        for batch in _BATCHES:
            parts = [
                np.stack([getattr(some[i % 16], name) for i in range(batch)])
                for name in ("P", *"qAbGh")
            ]
            host = [torch.from_numpy(part) for part in parts]
            on_device, one = seconds(BPQP(), [part.cuda() for part in host])
            on_host, other = seconds(BPQP(), host)
            cosine = torch.nn.functional.cosine_similarity(one, other, dim=-1).min()
            print(
                f"| {size} | {batch} | {1e3 * on_device:.2f} | {1e3 * on_host:.2f} | "
                f"{float(1 - cosine):.0e} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
