"""How long one training step takes, by method and number of assets: measured day by day, paired.

Every day is given to all methods, in a fresh random order, each with its own predictor from the
same weights; so drift of the machine hits all alike. A step is what `train` does in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpqp_bench.errors import BenchError, MethodError
from bpqp_bench.method.torch_module import Choice
from bpqp_bench.statistics import paired_ratio
from bpqp_bench.tasks.portfolio.config import LearningSettings
from bpqp_bench.tasks.portfolio.days import PreparedDay, prepare_days
from bpqp_bench.tasks.portfolio.step import Learner, decision_layer
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market

_WARMUP = 2


@dataclass
class _Times:
    """Seconds by day of the counted steps: ``step``, ``layer``, and both passes with solvers."""

    learner: Learner
    by_day: dict[str, dict[str, float]] = field(default_factory=dict)

    def step(self, day: PreparedDay, counted: bool) -> None:
        taken = self.learner.step(day)
        assert self.learner.layer is not None
        times = self.learner.layer.take_times()
        if counted:
            forward, backward = times.forward, times.backward
            self.by_day[str(day.day.date)] = {
                "step": taken.seconds,
                "layer": sum(p.call for p in (*forward, *backward)),
                "forward": sum(p.call for p in forward),
                "backward": sum(p.call for p in backward),
                "forward_solver": sum(p.solve for p in forward),
                "backward_solver": sum(p.solve for p in backward),
            }

    def of(self, part: str) -> dict[str, float]:
        return {day: seconds[part] for day, seconds in self.by_day.items()}


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

    Returns
    -------
    list of dict
        ``method``, ``name``, ``label``, ``assets``, ``days``; mean seconds ``step_s``,
        ``forward_s``, ``backward_s`` and of their solve phases ``forward_solver_s``,
        ``backward_solver_s``; ``step_ratio`` and ``layer_ratio``, the median paired ratio to the
        base method with its 95 % interval, or None; ``cause`` where it was not measured.
    """
    market = synthetic_market(
        SyntheticSettings(
            assets=assets, train=days + _WARMUP, valid=2, test=2, features=features, seed=seed
        )
    )
    running: dict[str, _Times] = {}
    causes: dict[str, str] = {}
    for name, _, choice in choices:
        try:
            layer = decision_layer(choice, assets, settings.gamma)
        except (BenchError, MethodError) as error:
            causes[name] = str(error)
        else:
            running[name] = _Times(Learner(settings, features, seed, layer))
    rng = np.random.default_rng(seed)
    for number, day in enumerate(prepare_days(market, market.splits.train, settings)):
        for name in rng.permutation(list(running)):
            try:
                running[name].step(day, counted=number >= _WARMUP)
            except (BenchError, MethodError) as error:
                causes[name] = str(error)
                del running[name]
    found: list[dict[str, Any]] = []
    for name, key, choice in choices:
        row: dict[str, Any] = {"method": key, "name": name, "label": choice.label}
        row |= {"assets": assets, "days": days, "cause": causes.get(name, "")}
        own, other = running.get(name), running.get(base)
        for part in ("step", "forward", "backward", "forward_solver", "backward_solver"):
            row[f"{part}_s"] = float(np.mean([*own.of(part).values()])) if own else np.nan
        for part in ("step", "layer"):
            row[f"{part}_ratio"] = _ratio(own.of(part), other.of(part)) if own and other else None
        found.append(row)
    return found


def _ratio(own: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float] | None:
    found = paired_ratio(own, base)
    return None if found is None else {"median": found.median, "low": found.low, "high": found.high}
