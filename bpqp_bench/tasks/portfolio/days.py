"""The days as learning needs them: labels, realized problems, decisions of hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.problem.instance import Array
from bpqp_bench.tasks.portfolio.config import LearningSettings
from bpqp_bench.tasks.portfolio.data import CLIP, NORMAL, Day, Market
from bpqp_bench.tasks.portfolio.problem import PERCENT, MeanVariance, optimum


@dataclass(frozen=True, eq=False)
class PreparedDay:
    """A day as the loop needs it.

    Attributes
    ----------
    features, label
        Shapes (n, F), float32, and (n,), float64.
    hindsight
        The best decision for the returns that then came, w*(r).
    best
        Its value f(w*(r)), percent.
    day
        The day itself, without its features and covariance.
    """

    features: Tensor
    label: Tensor
    hindsight: Array
    best: float
    gamma: float
    market: Market = field(repr=False)
    day: Day = field(repr=False)

    @property
    def realized(self) -> MeanVariance:
        """Problem with the returns that then came."""
        return MeanVariance(self.day.returns * PERCENT, self.sigma, self.gamma)

    @property
    def expected(self) -> MeanVariance | None:
        """Problem with the expected returns, where the market reveals them."""
        if self.day.signal is None:
            return None
        return MeanVariance(self.day.signal * PERCENT, self.sigma, self.gamma)

    @cached_property
    def foreseen(self) -> Array | None:
        """The best decision that anyone could have taken beforehand."""
        return None if self.expected is None else optimum(self.expected)

    @property
    def sigma(self) -> Array:
        """Covariance, percent²; built from the factors each time, so that days stay small."""
        return self.market.covariance.sigma(self.day.index, self.day.assets)


def prepare_days(
    market: Market, days: Sequence[int], settings: LearningSettings
) -> list[PreparedDay]:
    """Make labels and hindsight decisions of some days."""
    prepared: list[PreparedDay] = []
    for t in days:
        day = market.day(t)
        realized = MeanVariance(day.returns * PERCENT, day.sigma, settings.gamma)
        hindsight = optimum(realized)
        prepared.append(
            PreparedDay(
                features=torch.from_numpy(np.ascontiguousarray(day.features)),
                label=torch.from_numpy(_label(realized.mu, settings.label)),
                hindsight=hindsight,
                best=realized.value(hindsight),
                gamma=settings.gamma,
                market=market,
                day=replace(day, features=day.features[:0], sigma=np.zeros((0, 0))),
            )
        )
    return prepared


def _label(percent: Array, kind: str) -> Array:
    centred = percent - np.median(percent)
    scale = float(np.median(np.abs(centred))) * NORMAL
    if scale > 0:
        centred = np.clip(centred, -CLIP * scale, CLIP * scale)
        if kind == "zscore":
            centred = centred / scale
    return np.asarray(centred - centred.mean())
