"""What the experiment is judged by: prediction, portfolio, regret.

Definitions
-----------
With r the realized returns of a day, μ̂ the prediction, w the decision and ̄r the equal-weight mean:

- MSE: mean over days and assets of (label − μ̂)², percent².
- IC, rank IC: mean over days of the Pearson (Spearman) correlation of μ̂ and r over the assets;
  ICIR: mean over standard deviation of the daily IC.
- AnnRet_pct: mean daily excess return rᵀw − ̄r, times 240, in percent (no compounding, no costs).
- Sharpe: mean over standard deviation of the daily excess return, times √240.
- MaxDD_pct: largest fall of the cumulative (summed) excess return from its peak, percent.
- regret: mean over days of f(w*(r)) − f(w) with f(w) = rᵀw − γ/2 wᵀΣw evaluated with the realized
  returns, in percent; w*(r) is the best decision for the returns that then came. Never negative.
  It is regret_return, (w*(r) − w)ᵀr, plus regret_risk, γ/2 (wᵀΣw − w*(r)ᵀΣw*(r)).
- signal_regret: the same with the expected returns in place of the realized ones, where they are
  known: regret against the best that anyone could have decided beforehand.
- holdings: assets with more than 1e-4 of the portfolio; turnover: ½‖w_t − w_{t−1}‖₁ a day;
  violation: largest violation of 1ᵀw = 1 and w ≥ 0 by the method's answer; where it exceeds 1e-4
  all else is of the nearest portfolio. Means over days.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bpqp_bench.problem.instance import Array

DAYS_PER_YEAR = 240
SERIES = (
    *("date", "ic", "rank_ic", "mse", "ret", "market", "excess"),
    *("regret", "regret_return", "regret_risk", "signal_regret"),
    *("holdings", "turnover", "violation"),
)
_MEANS = {
    **{"MSE": "mse", "IC": "ic", "RankIC": "rank_ic"},
    **{name: name for name in SERIES[7:]},
}
METRICS = (*_MEANS, "ICIR", "AnnRet_pct", "Sharpe", "MaxDD_pct")


def correlation(a: Array, b: Array) -> float:
    """Pearson correlation of two samples; 0 where one of them is constant: it orders nothing."""
    x, y = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman correlation, ties by mean rank."""
    return correlation(_ranks(a), _ranks(b))


def _ranks(values: Array) -> Array:
    # Not scipy.stats, which takes a second to load, nor pandas, which takes a millisecond a call.
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - 0.5 * (counts - 1))[place])


def annual_return(excess: Array) -> Array:
    """Mean of daily excess returns (fractions, last axis) times 240, percent."""
    return np.asarray(excess.mean(axis=-1) * (DAYS_PER_YEAR * 100.0))


def sharpe(excess: Array) -> Array:
    """Annualized Sharpe ratio of daily excess returns (last axis); NaN where they do not vary."""
    std = excess.std(axis=-1, ddof=1) if excess.shape[-1] > 1 else np.zeros(excess.shape[:-1])
    return np.asarray(excess.mean(axis=-1) / np.where(std > 0, std, np.nan) * DAYS_PER_YEAR**0.5)


def max_drawdown(excess: Array) -> float:
    """Largest fall of the summed daily excess returns from their peak so far, percent, ≥ 0."""
    path = np.concatenate([[0.0], np.cumsum(excess)])
    return float((np.maximum.accumulate(path) - path).max()) * 100.0


def summarize_series(series: pd.DataFrame) -> dict[str, float]:
    """Reduce a daily series (columns `SERIES`) to the metrics of the tables."""
    excess = series["excess"].to_numpy(dtype=np.float64)
    ic = series["ic"].to_numpy(dtype=np.float64)
    spread = float(ic.std(ddof=1)) if len(ic) > 1 else 0.0
    return {metric: float(series[column].mean()) for metric, column in _MEANS.items()} | {
        "ICIR": float(ic.mean()) / spread if spread > 0 else float("nan"),
        "AnnRet_pct": float(annual_return(excess)),
        "Sharpe": float(sharpe(excess)),
        "MaxDD_pct": max_drawdown(excess),
    }
