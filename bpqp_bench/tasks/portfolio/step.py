"""One step of learning. Training, the timing of steps and the check of gradients take it from here.

Loss of a date: MSE(μ̂, label) + β · regret², with regret = f(w*(r)) − f(w(μ̂)), where r are the
returns that then came and w(μ̂) is the layer's decision. Two-stage learning has no layer and the
first term only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import MethodError
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.tasks.portfolio.config import LearningSettings
from bpqp_bench.tasks.portfolio.days import PreparedDay
from bpqp_bench.tasks.portfolio.model import initial_predictor
from bpqp_bench.tasks.portfolio.problem import portfolio_instance


@dataclass(frozen=True)
class Step:
    """What a step was: MSE, regret (NaN for two-stage), seconds of all and of the predictor.

    The predictor's seconds are those of both its passes, of the optimizer, and of the layer's own
    backward pass, which runs inside.
    """

    mse: float
    regret: float
    seconds: float
    predictor_s: float


class Learner:
    """A predictor that learns, alone or through a layer.

    Parameters
    ----------
    settings
        Of the learning.
    features
        Number of features of an asset.
    seed
        Of the initial weights: all methods of a seed begin with the same ones.
    layer
        Decision layer to learn through; None for two-stage.
    """

    def __init__(
        self, settings: LearningSettings, features: int, seed: int, layer: MethodLayer | None
    ) -> None:
        self.settings = settings
        self.layer = layer
        self.predictor = initial_predictor(features, settings.hidden, settings.layers, seed)
        self.optimizer = torch.optim.Adam(self.predictor.parameters(), lr=settings.lr, fused=True)

    def step(self, day: PreparedDay) -> Step:
        """Learn from one day.

        Raises
        ------
        MethodError
            If the layer fails or the loss is not finite.
        """
        self.predictor.train()
        start = time.perf_counter()
        mu = self.predictor(day.features)
        spent = time.perf_counter() - start
        mse, regret = losses(mu, day, self.layer)
        loss = mse if regret is None else mse + self.settings.beta * regret.square()
        if not torch.isfinite(loss):
            raise MethodError(f"the loss of {day.day.date} is not finite")
        at = time.perf_counter()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        end = time.perf_counter()
        return Step(
            mse=float(mse.detach()),
            regret=float("nan") if regret is None else float(regret.detach()),
            seconds=end - start,
            predictor_s=spent + end - at,
        )


def losses(mu: Tensor, day: PreparedDay, layer: MethodLayer | None) -> tuple[Tensor, Tensor | None]:
    """Return the mean squared error, and the regret of the layer's decision if there is a layer."""
    mse = (mu - day.label).square().mean()
    if layer is None:
        return mse, None
    realized = day.realized
    sigma, r = torch.from_numpy(realized.sigma), torch.from_numpy(realized.mu)
    w = layer(q=-mu, P=day.gamma * realized.sigma)
    return mse, day.best - (r @ w - 0.5 * day.gamma * (w @ (sigma @ w)))


def decision_layer(choice: Choice, assets: int, gamma: float) -> MethodLayer:
    """Return the layer of a method for markets with so many assets."""
    return MethodLayer(choice, portfolio_instance(np.zeros(assets), np.eye(assets), gamma))
