"""Warm starts along training: a predictor of returns, 200 Adam steps, 32 days of 100 assets.

Every day is a portfolio QP, minimize ½wᵀΣw − μᵀw subject to 1ᵀw = 1, w ≥ 0, Σ a factor model; the
predictor of μ learns by the realized returns of the decisions. A cold and a warm forward pass take
turns; the warm one begins at the binding rows of the step before. Seconds are those of the CPU.

Run ``python benchmarks/warm.py``.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from bpqp_bench.layers import BPQP

_ASSETS, _DAYS, _FEATURES, _STEPS = 100, 32, 20, 200


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    exposure = 0.1 * rng.standard_normal((_ASSETS, 10))
    risk = exposure @ exposure.T + np.diag(rng.uniform(0.01, 0.05, _ASSETS))
    X = torch.from_numpy(rng.standard_normal((_DAYS, _ASSETS, _FEATURES)))
    noise = torch.from_numpy(rng.standard_normal((_DAYS, _ASSETS)))
    realized = 0.02 * X @ torch.from_numpy(rng.standard_normal(_FEATURES)) + 0.05 * noise
    P, eye = torch.from_numpy(risk), torch.eye(_ASSETS, dtype=torch.float64)
    A, b = torch.ones(1, _ASSETS, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    h = torch.zeros(_ASSETS, dtype=torch.float64)
    theta = torch.zeros(_FEATURES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=1e-3)
    cold, warm, start = BPQP(), BPQP(), None
    times, steps = [], []
    for _ in range(_STEPS):
        q = -(X @ theta)
        begin = time.process_time()
        cold(P, q, A, b, -eye, h)
        between = time.process_time()
        z = warm(P, q, A, b, -eye, h, start=start)
        times.append((between - begin, time.process_time() - between))
        steps.append(
            [np.mean([f["iterations"] for f in layer.last_info]) for layer in (cold, warm)]
        )
        start = warm.state
        optimizer.zero_grad()
        (-(z * realized).sum() / _DAYS).backward()
        optimizer.step()
    measured, counted = np.array(times[1:]), np.mean(steps[1:], axis=0)
    ratios = measured[:, 1] / measured[:, 0]
    low, high = np.percentile(ratios, [25, 75])
    print(
        f"forward, {_DAYS} QPs of {_ASSETS} assets: cold {1e3 * np.median(measured[:, 0]):.2f} ms "
        f"({counted[0]:.1f} factorizations), warm {1e3 * np.median(measured[:, 1]):.2f} ms "
        f"({counted[1]:.1f}); ratio {np.median(ratios):.2f} (middle half {low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
