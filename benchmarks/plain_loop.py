"""Do the suite's ratios hold without the suite? Three public layers in one plain loop."""

import time

import numpy as np
import torch
from proxsuite.torch.qplayer import QPFunction as QPLayer
from qpth.qp import QPFunction as OptNet

from bpqp_bench import Registry, Size
from bpqp_bench.layers import BPQP

torch.set_num_threads(1)
bpqp, optnet = BPQP(), OptNet(verbose=-1, maxIter=50, check_Q_spd=False)
qplayer = QPLayer(eps_backward=1e-10, rho_backward=1e-12, mu_backward=1e-12, omp_parallel=False)
LAYERS = {
    "bpqp": bpqp,
    "qpth": lambda P, q, A, b, G, h: optnet(P, q, G, h, A, b),
    "qplayer": lambda P, q, A, b, G, h: qplayer(P, q, A, b, G, torch.full_like(h, -1e20), h)[0],
}


def measure(size: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a forward and a backward pass of each layer, in random order on every problem."""
    family, rng = Registry().family("qp-active"), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in LAYERS}
    for i in range(rounds + 2):  # the first two warm up
        problems = [family.draw(Size.parse(size), i * batch + k) for k in range(batch)]
        stacks = [np.stack([getattr(p, name) for p in problems]) for name in "PqAbGh"]
        for name in rng.permutation(list(LAYERS)):
            layer = LAYERS[name]
            data = [torch.tensor(s if batch > 1 else s[0]) for s in stacks]
            data[1].requires_grad_()
            start = time.perf_counter()
            z = layer(*data)
            torch.autograd.grad(z, data[1], torch.ones_like(z))
            seconds[name].append(time.perf_counter() - start)
    return {name: times[2:] for name, times in seconds.items()}
