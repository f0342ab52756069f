"""Batches of dense QPs on CUDA, forward and backward: BPQP, its peers there, and BPQP on the CPU.

Layers take turns; a cell is the median of the rounds in milliseconds, the CUDA stream at rest
before and after. All six data want gradients, and every gradient with respect to q is held to the
certified reference: one that is wrong is left out and named. The CPU column takes all cores.

Run ``python -m benchmarks.gpu [--batch 64 …] [--size 100x20 …]``; without a CUDA device it says so
and ends with 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial

# JAX would take most of the memory for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import numpy as np
import torch

from benchmarks.peers import (
    Timed,
    data,
    drawn,
    leave_out_wrong,
    passes,
    qpax,
    qpth,
    references,
)
from bpqp_bench import Size
from bpqp_bench.layers import BPQP

_DIFFERENT = 16  # instances; a larger batch repeats them


def _at_rest() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def row(family: str, size: Size, batch: int, rounds: int) -> str:
    """Measure one row of the table."""
    instances = drawn(family, size, _DIFFERENT)
    which = torch.arange(batch) % _DIFFERENT
    host = [part[which] for part in data(instances)]
    there = [part.cuda() for part in host]
    v = torch.randn(_DIFFERENT, size.n, dtype=torch.float64)
    exact = references(instances, v)[which]
    v = v[which]
    layers: dict[str, Timed] = {
        "BPQP": partial(passes, BPQP(), clock=_at_rest),
        "qpth": partial(passes, qpth(), clock=_at_rest),
        "qpax": qpax(_at_rest),
    }
    cells = []
    left_out = leave_out_wrong(layers, there, v.cuda(), exact)
    times: dict[str, list[float]] = {name: [] for name in layers}
    on_cpu = []
    for _ in range(rounds):
        for name, layer in layers.items():
            times[name].append(layer(there, v.cuda())[0])
        on_cpu.append(passes(BPQP(), host, v, time.perf_counter)[0])
    for name in ("BPQP", "qpth", "qpax"):
        cells.append(f"{1e3 * np.median(times[name]):.2f}" if name in times else "wrong")
    cells.append(f"{1e3 * np.median(on_cpu):.2f}")
    peers = [times[name] for name in times if name != "BPQP"]
    if "BPQP" in times and peers:
        best = min(peers, key=np.median)
        cells.append(f"{np.median(np.array(times['BPQP']) / np.array(best)):.2f}")
    else:
        cells.append("")
    return " | ".join([f"| {family} {size}", str(batch), *cells, "; ".join(left_out)]) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="+", default=["qp-active"])
    parser.add_argument("--size", nargs="+", default=["10x5", "50x10", "100x20", "200x50"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(
        "| problems | batch | BPQP ms | qpth ms | qpax ms | BPQP on the CPU ms | ratio | left out |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for family in given.family:
        for size in given.size:
            for batch in given.batch:
                print(row(family, Size.parse(size), batch, given.rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
