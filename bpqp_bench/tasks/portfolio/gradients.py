"""The check of the gradient that the predictor learns from.

The loss of one day as a function of the predictions μ̂ is ℓ(μ̂) = β·regret(w*(μ̂))² + MSE(μ̂). Its
gradient by autograd through a layer is compared with central differences through
`problem.exact_decision`, which is no layer under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import BenchError, MethodError
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.accuracy import gradient_accuracy
from bpqp_bench.tasks.portfolio.problem import (
    PERCENT,
    MeanVariance,
    exact_decision,
    portfolio_instance,
)
from bpqp_bench.tasks.portfolio.train import PreparedDay

__all__ = ["GradientCheck", "check_gradient", "difference_gradient", "gradient_table"]

_STEP = 1e-5  # percent; the solution is linear in μ̂ between changes of the active set


@dataclass(frozen=True)
class GradientCheck:
    """One layer on one day.

    Attributes
    ----------
    method, label
        The layer.
    date, holdings
        The day, and how many assets its decision holds: with one the decision does not move and
        the regret has no gradient.
    one_minus_cos, rel_l2
        Of the gradient of the whole loss.
    regret_one_minus_cos, regret_rel_l2
        Of β·regret² alone, which is what comes through the layer.
    cause
        Why there is no figure, else empty.
    """

    method: str
    label: str
    date: str
    holdings: int
    one_minus_cos: float = float("nan")
    rel_l2: float = float("nan")
    regret_one_minus_cos: float = float("nan")
    regret_rel_l2: float = float("nan")
    cause: str = ""


def difference_gradient(mu: Array, day: PreparedDay, beta: float, step: float = _STEP) -> Array:
    """Central differences of β·regret(w*(μ̂))² in every prediction, shape (n,)."""
    sigma, realized = day.sigma, day.realized

    def loss(at: Array) -> float:
        w = exact_decision(MeanVariance(at, sigma, day.gamma))
        return beta * (day.best - realized.value(w)) ** 2

    out = np.zeros(len(mu))
    for i in range(len(mu)):
        shift = np.zeros(len(mu))
        shift[i] = step
        out[i] = (loss(mu + shift) - loss(mu - shift)) / (2 * step)
    return out


def check_gradient(
    layer: MethodLayer, mu: Array, day: PreparedDay, beta: float
) -> tuple[Array, Array]:
    """Gradient with respect to μ̂ through a layer: of the whole loss, and of β·regret² alone."""
    sigma, r = torch.from_numpy(day.sigma), torch.from_numpy(day.day.returns * PERCENT)
    at = torch.from_numpy(mu.copy()).requires_grad_()
    w = layer(q=-at, P=day.gamma * day.sigma)
    regret = day.best - (r @ w - 0.5 * day.gamma * (w @ (sigma @ w)))
    (through,) = torch.autograd.grad(beta * regret.square(), at)
    (direct,) = torch.autograd.grad((at - day.label).square().mean(), at)
    return (through + direct).numpy(), through.numpy()


def gradient_table(
    choices: Sequence[tuple[str, Choice]],
    days: Sequence[PreparedDay],
    *,
    beta: float = 0.1,
    spread: float = 0.15,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Check every layer on every day, at random predictions.

    Parameters
    ----------
    choices
        Keys and methods.
    days
        Prepared days; those with the same number of assets share a layer.
    beta
        Weight of regret².
    spread
        Standard deviation of the predictions, percent: about what a predictor makes.
    seed
        Of the predictions.
    """
    found: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    for day in days:
        mu = spread * rng.standard_normal(len(day.label))
        sigma = day.sigma
        held = int((exact_decision(MeanVariance(mu, sigma, day.gamma)) > 1e-9).sum())
        through = difference_gradient(mu, day, beta)
        whole = through + 2.0 * (mu - day.label.numpy()) / len(mu)
        for key, choice in choices:
            base = GradientCheck(key, choice.label, str(day.day.date), held)
            try:
                layer = MethodLayer(choice, portfolio_instance(-mu, sigma, day.gamma))
                own_whole, own_through = check_gradient(layer, mu, day, beta)
            except (BenchError, MethodError) as error:
                found.append(asdict(base) | {"cause": str(error)})
                continue
            of_whole = gradient_accuracy(own_whole, whole)
            of_through = gradient_accuracy(own_through, through)
            found.append(
                asdict(base)
                | {
                    "one_minus_cos": of_whole.one_minus_cos,
                    "rel_l2": of_whole.rel_l2,
                    "regret_one_minus_cos": of_through.one_minus_cos,
                    "regret_rel_l2": of_through.rel_l2,
                }
            )
    return found
