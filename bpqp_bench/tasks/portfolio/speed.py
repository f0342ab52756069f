"""How long one training step takes, by method and number of assets: measured day by day, paired.

Every day is given to all methods, in a fresh random order, from the same predictions; so drift of
the machine hits all alike. A step is what `train` does in one: predictor forward, layer forward,
loss, backward through both, optimizer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import BenchError, MethodError
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.statistics import paired_ratio
from bpqp_bench.tasks.portfolio.model import initial_predictor
from bpqp_bench.tasks.portfolio.problem import portfolio_instance
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market
from bpqp_bench.tasks.portfolio.train import LearningSettings, PreparedDay, prepare_days

__all__ = ["StepTime", "measure_steps"]

_WARMUP = 2


@dataclass(frozen=True)
class StepTime:
    """Mean seconds of a training step of one method, over the days after the warm-up.

    Attributes
    ----------
    method, name, label, assets, days
        What was measured; ``days`` is the number of counted steps.
    step_s, forward_s, backward_s, forward_solver_s, backward_solver_s
        Whole step; calls of the layer; their solve phases.
    step_ratio, layer_ratio
        Median paired ratio to the base method with its 95 % interval, or None.
    cause
        Why it was not measured, else empty.
    """

    method: str
    name: str
    label: str
    assets: int
    days: int
    step_s: float = float("nan")
    forward_s: float = float("nan")
    backward_s: float = float("nan")
    forward_solver_s: float = float("nan")
    backward_solver_s: float = float("nan")
    step_ratio: dict[str, float] | None = None
    layer_ratio: dict[str, float] | None = None
    cause: str = ""


@dataclass
class _Runner:
    layer: MethodLayer
    predictor: torch.nn.Module
    optimizer: torch.optim.Optimizer
    steps: dict[str, float]
    layers: dict[str, float]
    sums: dict[str, float]


def measure_steps(
    choices: Sequence[tuple[str, str, Choice]],
    assets: int,
    days: int,
    settings: LearningSettings,
    *,
    base: str = "bpqp",
    features: int = 158,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time training steps on a synthetic market.

    Parameters
    ----------
    choices
        Name, key and method of each.
    assets, days
        Size of the market; number of counted steps.
    settings
        Of the learning.
    base
        Name of the method that ratios are taken to.
    """
    market = synthetic_market(
        SyntheticSettings(
            assets=assets, train=days + _WARMUP, valid=2, test=2, features=features, seed=seed
        )
    )
    prepared = prepare_days(market, market.splits.train, settings)
    template = portfolio_instance(np.zeros(assets), np.eye(assets), settings.gamma)
    runners: dict[str, _Runner] = {}
    causes: dict[str, str] = {}
    for name, _, choice in choices:
        try:
            layer = MethodLayer(choice, template)
        except (BenchError, MethodError) as error:
            causes[name] = str(error)
            continue
        predictor = initial_predictor(features, settings.hidden, settings.layers, seed)
        optimizer = torch.optim.Adam(predictor.parameters(), lr=settings.lr, fused=True)
        runners[name] = _Runner(layer, predictor, optimizer, {}, {}, {})
    rng = np.random.default_rng(seed)
    for number, day in enumerate(prepared):
        for name in rng.permutation(list(runners)):
            try:
                _step(runners[name], day, settings, number)
            except (BenchError, MethodError) as error:
                causes[name] = str(error)
                del runners[name]
    reference = runners.get(base)
    found: list[dict[str, Any]] = []
    for name, key, choice in choices:
        record = StepTime(key, name, choice.label, assets, days, cause=causes.get(name, ""))
        if name in runners:
            r = runners[name]
            record = replace(
                record,
                step_s=float(np.mean(list(r.steps.values()))),
                step_ratio=_ratio(r.steps, reference.steps) if reference else None,
                layer_ratio=_ratio(r.layers, reference.layers) if reference else None,
                forward_s=r.sums["forward_s"] / days,
                backward_s=r.sums["backward_s"] / days,
                forward_solver_s=r.sums["forward_solver_s"] / days,
                backward_solver_s=r.sums["backward_solver_s"] / days,
            )
        found.append(asdict(record))
    return found


def _step(r: _Runner, day: PreparedDay, settings: LearningSettings, number: int) -> None:
    sigma = day.sigma
    P, risk = settings.gamma * sigma, torch.from_numpy(sigma)
    realized = torch.from_numpy(day.realized.mu)
    start = time.perf_counter()
    r.predictor.train()
    mu = r.predictor(day.features)
    w = r.layer(q=-mu, P=P)
    regret = day.best - (realized @ w - 0.5 * settings.gamma * (w @ (risk @ w)))
    loss = (mu - day.label).square().mean() + settings.beta * regret.square()
    r.optimizer.zero_grad()
    loss.backward()
    r.optimizer.step()
    spent = time.perf_counter() - start
    times = r.layer.take_times()
    if number < _WARMUP:
        return
    key = str(day.day.date)
    r.steps[key] = spent
    r.layers[key] = sum(p.call for p in (*times.forward, *times.backward))
    for side, passes in (("forward", times.forward), ("backward", times.backward)):
        r.sums[f"{side}_s"] = r.sums.get(f"{side}_s", 0.0) + sum(p.call for p in passes)
        name = f"{side}_solver_s"
        r.sums[name] = r.sums.get(name, 0.0) + sum(p.solve for p in passes)


def _ratio(own: dict[str, float], base: dict[str, float]) -> dict[str, float] | None:
    found = paired_ratio(own, base)
    return None if found is None else {"median": found.median, "low": found.low, "high": found.high}
