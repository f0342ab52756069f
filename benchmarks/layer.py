"""The default layer as a training step calls it: alone, in batches, warm, sparse."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.cells import QUICK, registry
from bpqp_bench import Size
from bpqp_bench.layers import BPQP

# family, size (none for those that have one of their own), batch, and what is special
CASES = {
    "one 10x5": ("qp-active", "10x5", 1, ""),
    "one 100x20": ("qp-active", "100x20", 1, ""),
    "one 500x100": ("qp-active", "500x100", 1, ""),
    "batch of 64, 10x5": ("qp-active", "10x5", 64, ""),
    "batch of 64, 100x20": ("qp-active", "100x20", 64, ""),
    "batch of 256, 100x20, shared P, A, G": ("qp-active", "100x20", 256, "shared"),
    "one 100x20, warm": ("qp-active", "100x20", 1, "warm"),
    "one 100x20, after another solver": ("qp-active", "100x20", 1, "proxqp"),
    "simplex, n = 10000": ("projection[onto=simplex,n=10000]", "", 1, "sparse"),
    "chain, n = 10000": ("projection[onto=chain,n=10000]", "", 1, "sparse"),
}
_QUICK = [case for case in CASES if not case.startswith(("one 500", "chain"))]


class Layer:
    """Both passes with the gradients of all six data (of q alone where they are sparse)."""

    params = (_QUICK if QUICK else list(CASES),)
    param_names = ("case",)
    timeout = 120
    warmup_time = 0.5

    def setup(self, case: str) -> None:
        family, size, batch, special = CASES[case]
        choice = registry().family(family)
        own = choice.size or Size.parse(size)
        some = [choice.draw(own, seed) for seed in range(batch)]
        self.layer = BPQP("proxqp") if special == "proxqp" else BPQP()
        self.sparse = special == "sparse"
        if self.sparse:
            i = some[0]
            self.matrices = i.P, i.A, i.G
            self.data = [torch.tensor(part, requires_grad=True) for part in (i.q, i.b, i.h)]
        else:
            parts = [np.stack([getattr(i, name) for i in some]) for name in ("P", *"qAbGh")]
            shared = special == "shared"
            self.data = [
                torch.tensor(part[0] if batch == 1 or (shared and part.ndim == 3) else part)
                for part in parts
            ]
            for part in self.data:
                part.requires_grad_()
        self.start = None
        self.time_both_passes(case)  # kernels are loaded, memory is there
        if special == "warm":
            self.start = self.layer.state

    def time_both_passes(self, case: str) -> None:
        del case
        if self.sparse:
            (P, A, G), (q, b, h) = self.matrices, self.data
            z = self.layer(P, q, A, b, G, h)
        else:
            z = self.layer(*self.data, start=self.start)
        z.sum().backward()
