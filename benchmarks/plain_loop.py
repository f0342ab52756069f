"""Do the suite's ratios hold without the suite? Public layers in one plain interleaved loop."""

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
family, rng = Registry().family("qp-active"), np.random.default_rng(0)
for size, batch, rounds in ((s, b, 30 if "500" not in s else 7) for s in ("10x5", "100x20", "500x100") for b in (1, 64)):  # fmt: skip  # noqa: E501
    seconds: dict[str, list[float]] = {name: [] for name in LAYERS}
    for i in range(rounds + 2):
        problems = [family.draw(Size.parse(size), i * batch + k) for k in range(batch)]
        stacks = [np.stack([getattr(p, name) for p in problems]) for name in "PqAbGh"]
        for name in rng.permutation(list(LAYERS)):
            data = [torch.tensor(s if batch > 1 else s[0]) for s in stacks]
            data[1].requires_grad_()
            start = time.perf_counter()
            z = LAYERS[name](*data)
            torch.autograd.grad(z, data[1], torch.ones_like(z))
            seconds[name].append(time.perf_counter() - start)
    ms = {name: 1e3 * np.array(times[2:]) for name, times in seconds.items()}
    ratios = ", ".join(f"{n} {np.median(ms[n] / ms['bpqp']):.2f}" for n in ("qpth", "qplayer"))
    print(f"{size} batch {batch}: bpqp {np.median(ms['bpqp']):.2f} ms; times as long: {ratios}")
