"""The check of the gradient that the predictor learns from.

The loss of one day as a function of the predictions μ̂ is ℓ(μ̂) = β·regret(w*(μ̂))² + MSE(μ̂). Its
gradient by autograd through a layer is compared with central differences through
`problem.exact_decision`, which is no layer under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bpqp_bench.errors import BenchError, MethodError
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.problem.instance import Array
from bpqp_bench.reference.accuracy import gradient_accuracy
from bpqp_bench.tasks.portfolio.days import PreparedDay
from bpqp_bench.tasks.portfolio.evaluate import exact
from bpqp_bench.tasks.portfolio.step import decision_layer, losses

_STEP = 1e-5  # percent; the solution is linear in μ̂ between changes of the active set


def difference_gradient(mu: Array, day: PreparedDay, beta: float, step: float = _STEP) -> Array:
    """Central differences of β·regret(w*(μ̂))² in every prediction, shape (n,)."""

    def loss(at: Array) -> float:
        return beta * (day.best - day.realized.value(exact(at, day))) ** 2

    shifts = step * np.eye(len(mu))
    return np.array([loss(mu + shift) - loss(mu - shift) for shift in shifts]) / (2 * step)


def layer_gradient(
    layer: MethodLayer, mu: Array, day: PreparedDay, beta: float
) -> tuple[Array, Array]:
    """Gradient with respect to μ̂ through a layer: of the whole loss, and of β·regret² alone."""
    at = torch.from_numpy(mu.copy()).requires_grad_()
    mse, regret = losses(at, day, layer)
    assert regret is not None  # there is a layer
    (through,) = torch.autograd.grad(beta * regret.square(), at)
    (direct,) = torch.autograd.grad(mse, at)
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
        Prepared days.
    beta
        Weight of regret².
    spread
        Standard deviation of the predictions, percent: about what a predictor makes.
    seed
        Of the predictions.

    Returns
    -------
    list of dict
        ``method``, ``label``, ``date``, ``holdings`` (assets that the day's decision holds: with
        one the decision does not move and the regret has no gradient), ``one_minus_cos`` and
        ``rel_l2`` of the gradient of the whole loss, ``regret_one_minus_cos`` and
        ``regret_rel_l2`` of β·regret² alone, which is what comes through the layer, and
        ``cause`` where there is no figure.
    """
    found: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    for day in days:
        mu = spread * rng.standard_normal(len(day.label))
        held = int((exact(mu, day) > 1e-9).sum())
        through = difference_gradient(mu, day, beta)
        truth = (through + 2.0 * (mu - day.label.numpy()) / len(mu), through)
        for key, choice in choices:
            row: dict[str, Any] = {"method": key, "label": choice.label, "holdings": held}
            row |= {"date": str(day.day.date), "cause": ""}
            own: tuple[Array, Array] | None = None
            try:
                own = layer_gradient(decision_layer(choice, len(mu), day.gamma), mu, day, beta)
            except (BenchError, MethodError) as error:
                row["cause"] = str(error)
            for part, prefix in enumerate(("", "regret_")):
                of = None if own is None else gradient_accuracy(own[part], truth[part])
                row[f"{prefix}one_minus_cos"] = np.nan if of is None else of.one_minus_cos
                row[f"{prefix}rel_l2"] = np.nan if of is None else of.rel_l2
            found.append(row)
    return found
