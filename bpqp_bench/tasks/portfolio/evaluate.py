"""Daily series of a way to decide, and the ways that learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from bpqp_bench.errors import MethodError
from bpqp_bench.method.torch_module import MethodLayer
from bpqp_bench.problem.instance import Array
from bpqp_bench.tasks.portfolio.days import PreparedDay
from bpqp_bench.tasks.portfolio.metrics import correlation, rank_correlation
from bpqp_bench.tasks.portfolio.model import Predictor
from bpqp_bench.tasks.portfolio.problem import MeanVariance, exact_decision, simplex_projection

Decide = Callable[[Array, PreparedDay], Array]  # predictions in percent, day -> weights
_TOLERATED = 1e-4  # violation up to which a decision is valued as it is


def exact(mu: Array, day: PreparedDay) -> Array:
    """Best decision for the predictions, by no method under test: two-stage's, and the curves'."""
    return exact_decision(MeanVariance(mu, day.sigma, day.gamma))


def through(layer: MethodLayer) -> Decide:
    """Return a layer's own decisions."""

    def decide(mu: Array, day: PreparedDay) -> Array:
        with torch.no_grad():
            return np.asarray(layer(q=-mu, P=day.gamma * day.sigma).numpy())

    return decide


def _oracle(mu: Array, day: PreparedDay) -> Array:
    if day.foreseen is None:
        raise MethodError("the market does not reveal its expected returns")
    return day.foreseen


# What any prediction must beat, and what none can: keys, labels and decisions.
BASELINES: Mapping[str, tuple[str, Decide]] = {
    "equal-weight": ("Equal weight", lambda mu, day: np.full(len(mu), 1.0 / len(mu))),
    "minimum-variance": ("Minimum variance (μ = 0)", lambda mu, day: exact(np.zeros(len(mu)), day)),
    "oracle": ("Oracle (expected returns known)", _oracle),
}


def evaluate(predictor: Predictor, days: Sequence[PreparedDay], decide: Decide) -> pd.DataFrame:
    """Predict and decide on every day; one row a day with the columns of `metrics.SERIES`.

    A decision that is no portfolio, by more than a solver's tolerance, cannot be held: what is
    valued is the nearest portfolio, and ``violation`` says how far off the answer was.
    """
    predictor.eval()
    with torch.no_grad():
        return _series([predictor(day.features).numpy() for day in days], days, decide)


def validate(
    predictor: Predictor, days: Sequence[PreparedDay], decide: Decide
) -> tuple[float, float, float]:
    """Return the means of squared error, IC and regret: what an epoch is chosen by."""
    predictor.eval()
    rows = []
    for day in days:
        with torch.no_grad():
            mu = predictor(day.features).numpy()
        w, _ = _portfolio(decide(mu, day), day)
        mse = ((mu - day.label.numpy()) ** 2).mean()
        rows.append((mse, correlation(mu, day.day.returns), day.best - day.realized.value(w)))
    mse, ic, regret = np.mean(rows, axis=0)
    return float(mse), float(ic), float(regret)


def evaluate_baseline(name: str, days: Sequence[PreparedDay]) -> pd.DataFrame:
    """Return the series of one of the `BASELINES`; it has no prediction to judge.

    Raises
    ------
    MethodError
        If the market does not tell what it needs to know.
    """
    nothing = [np.full(len(day.label), np.nan) for day in days]
    return _series(nothing, days, BASELINES[name][1])


def _series(
    predictions: Sequence[Array], days: Sequence[PreparedDay], decide: Decide
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    before: dict[int, float] = {}
    for mu, day in zip(predictions, days, strict=True):
        w, violation = _portfolio(decide(mu, day), day)
        now = dict(zip(day.day.assets.tolist(), w.tolist(), strict=True))
        moved = sum(abs(now.get(i, 0.0) - before.get(i, 0.0)) for i in {*now, *before})
        turnover = 0.5 * moved if before else np.nan
        rows.append(_judge(mu, w, day) | {"violation": violation, "turnover": turnover})
        before = now
    return pd.DataFrame(rows)


def _portfolio(w: Array, day: PreparedDay) -> tuple[Array, float]:
    """Return what can be held of a decision, and how far off it was."""
    if not np.isfinite(w).all():
        raise MethodError(f"the decision of {day.day.date} is not finite")
    violation = float(max(-w.min(), abs(w.sum() - 1.0), 0.0))
    return simplex_projection(w) if violation > _TOLERATED else w, violation


def _judge(mu: Array, w: Array, day: PreparedDay) -> dict[str, Any]:
    returns, realized, expected = day.day.returns, day.realized, day.expected
    earned, market = float(returns @ w), float(returns.mean())
    missed = float(realized.mu @ (day.hindsight - w))
    too_risky = realized.risk(w) - realized.risk(day.hindsight)
    predicted = bool(np.isfinite(mu).all())
    return {
        "date": day.day.date,
        "ic": correlation(mu, returns) if predicted else np.nan,
        "rank_ic": rank_correlation(mu, returns) if predicted else np.nan,
        "mse": float(((mu - day.label.numpy()) ** 2).mean()),
        "ret": earned,
        "market": market,
        # Without the rounding of two sums, which would give equal weight a Sharpe ratio.
        "excess": float(returns @ (w - 1.0 / len(w))),
        "regret": missed + too_risky,
        "regret_return": missed,
        "regret_risk": too_risky,
        "signal_regret": (
            np.nan
            if expected is None or day.foreseen is None
            else expected.value(day.foreseen) - expected.value(w)
        ),
        "holdings": int((w > 1e-4).sum()),
    }
