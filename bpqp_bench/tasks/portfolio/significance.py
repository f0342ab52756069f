"""Is the difference between two methods more than chance? Paired block bootstrap over days.

Days are drawn in blocks, because decisions and volatility of neighbouring days are alike (Künsch,
"The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17,
1989; circular version of Politis and Romano, 1992). Both methods and all seeds see the same drawn
days: what is common to them cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array

__all__ = ["STATISTICS", "Difference", "block_length", "compare_series", "drawn_days"]

_RESAMPLES = 1999
_CONFIDENCE = 0.95
_SEED = 20241129
_DAYS_PER_YEAR = 240.0


@dataclass(frozen=True)
class Difference:
    """A metric of one method minus that of another, with its bootstrap interval.

    Attributes
    ----------
    metric, difference, low, high
        Name; estimate; percentile interval at ``confidence``.
    better
        "higher" or "lower": which sign of the difference is an improvement.
    verdict
        "better", "worse", or "no difference" where the interval contains 0.
    days, seeds, block, resamples
        What it rests on.
    """

    metric: str
    difference: float
    low: float
    high: float
    better: str
    verdict: str
    days: int
    seeds: int
    block: int
    resamples: int
    confidence: float = _CONFIDENCE


@dataclass(frozen=True)
class _Statistic:
    column: str
    compute: Callable[[Array], Array]  # along the last axis
    better: str


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


def _annual(values: Array) -> Array:
    return _mean(values) * (_DAYS_PER_YEAR * 100.0)


def _sharpe(values: Array) -> Array:
    std = values.std(axis=-1, ddof=1)
    ratio = values.mean(axis=-1) / np.where(std > 0, std, np.nan)
    return np.asarray(ratio * np.sqrt(_DAYS_PER_YEAR))


STATISTICS: Mapping[str, _Statistic] = {
    "regret": _Statistic("regret", _mean, "lower"),
    "signal_regret": _Statistic("signal_regret", _mean, "lower"),
    "Sharpe": _Statistic("excess", _sharpe, "higher"),
    "AnnRet_pct": _Statistic("excess", _annual, "higher"),
    "IC": _Statistic("ic", _mean, "higher"),
}


def block_length(days: int) -> int:
    """Rule-of-thumb length days^(1/3), rounded up: the optimal order for a variance (Künsch)."""
    return max(int(np.ceil(days ** (1 / 3))), 1)


def drawn_days(days: int, block: int, resamples: int, seed: int = _SEED) -> NDArray[np.intp]:
    """Day numbers of every resample, shape (resamples, days): circular blocks."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, days, (resamples, -(-days // block)))
    chosen = (starts[:, :, None] + np.arange(block)) % days
    return np.asarray(chosen.reshape(resamples, -1)[:, :days])


def compare_series(
    metric: str, own: Array, other: Array, resamples: int = _RESAMPLES, block: int | None = None
) -> Difference:
    """Bootstrap the difference of a metric between two methods.

    Parameters
    ----------
    metric
        A key of `STATISTICS`.
    own, other
        The metric's daily series, shape (seeds, days), same days and seeds; the metric is computed
        per seed and averaged over the seeds. The interval is about days; the seeds count as given.
    resamples, block
        Number of resamples, length of a block.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if own.shape != other.shape or own.ndim != 2:
        raise ValueError(f"series of shapes {own.shape} and {other.shape} are not paired")
    statistic = STATISTICS[metric]
    seeds, days = own.shape
    length = block or block_length(days)

    def difference(a: Array, b: Array) -> Array:
        return np.asarray((statistic.compute(a) - statistic.compute(b)).mean(axis=0))

    chosen = drawn_days(days, length, resamples)
    sample = difference(own[:, chosen], other[:, chosen])
    tail = 50.0 * (1.0 - _CONFIDENCE)
    low, high = np.nanpercentile(sample, [tail, 100.0 - tail])
    sign = 1.0 if statistic.better == "higher" else -1.0
    if sign * low > 0 and sign * high > 0:
        verdict = "better"
    elif sign * low < 0 and sign * high < 0:
        verdict = "worse"
    else:
        verdict = "no difference"
    return Difference(
        metric=metric,
        difference=float(difference(own[:, None], other[:, None])[0]),
        low=float(low),
        high=float(high),
        better=statistic.better,
        verdict=verdict,
        days=days,
        seeds=seeds,
        block=length,
        resamples=resamples,
    )
