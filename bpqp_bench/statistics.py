"""Statistics of the reports: summaries, paired ratios with bootstrap intervals, power-law fits.

Everything takes plain arrays, so that a figure in a table can be recomputed from the CSV export by
hand. Bootstraps use a fixed seed: the same run renders the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CONFIDENCE",
    "FEWEST_FOR_INTERVAL",
    "RESAMPLES",
    "SEED",
    "PowerFit",
    "Ratio",
    "Summary",
    "fit_power",
    "paired_ratio",
    "performance_profile",
    "shifted_geometric_mean",
    "summarize",
]

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 5
"""Below this many values an interval would claim more than they can say."""
RESAMPLES = 1999
SEED = 20241129
_FEWEST_SIZES_TO_TRUST = 3

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Description of one sample; ``std`` has n − 1 in the denominator and is NaN for n = 1."""

    n: int
    mean: float
    std: float
    median: float
    q25: float
    q75: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """Median of per-instance ratios with its bootstrap interval (NaN bounds below five pairs)."""

    n: int
    median: float
    low: float
    high: float

    @property
    def differs_from_one(self) -> bool:
        """Whether the whole interval lies on one side of 1; False where there is no interval."""
        return self.low > 1.0 or self.high < 1.0


@dataclass(frozen=True)
class PowerFit:
    """Exponent of time ∝ sizeᵏ.

    Attributes
    ----------
    exponent, low, high
        Least-squares slope of mean log time over log size, and its bootstrap interval. The
        interval knows the scatter of the runs, not the curvature of the law; see `local`.
    local
        Slope between each pair of neighbouring sizes: equal ones mean a true power law.
    sizes, points
        How many sizes and how many measurements.
    trusted
        Whether there were at least three sizes; two points always lie on a line.
    """

    exponent: float
    low: float
    high: float
    local: tuple[float, ...]
    sizes: int
    points: int

    @property
    def trusted(self) -> bool:
        """Whether at least three sizes carry the fit."""
        return self.sizes >= _FEWEST_SIZES_TO_TRUST


def summarize(values: ArrayLike) -> Summary:
    """Describe a sample of finite numbers.

    Parameters
    ----------
    values
        Shape (n,), n ≥ 1.

    Raises
    ------
    ValueError
        If the sample is empty or has entries that are not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError("a summary needs at least one value, all of them finite")
    q25, median, q75 = np.percentile(x, [25, 50, 75])
    std = float(x.std(ddof=1)) if x.size > 1 else float("nan")
    return Summary(
        n=int(x.size),
        mean=float(x.mean()),
        std=std,
        median=float(median),
        q25=float(q25),
        q75=float(q75),
        low=float(x.min()),
        high=float(x.max()),
    )


def median(values: Samples) -> float:
    """Return the median, NaN of no values."""
    return float(np.median(values)) if values.size else float("nan")


def largest(values: Samples) -> float:
    """Return the largest value, NaN of no values."""
    return float(values.max()) if values.size else float("nan")


def paired_ratio(
    numerator: Mapping[str, float] | pd.Series, denominator: Mapping[str, float] | pd.Series
) -> Ratio | None:
    """Median over instances of numerator/denominator, with its 95 % percentile bootstrap interval.

    Pairing by instance takes out what is common to both: the difficulty of the instance and the
    drift of the machine. The percentile interval is used because the bias-corrected one is
    undefined for medians of samples with ties.

    Parameters
    ----------
    numerator, denominator
        Positive values by instance; instances missing on either side are left out.

    Returns
    -------
    Ratio or None
        None if no instance is common to both.
    """
    a, b = pd.Series(numerator, dtype=float), pd.Series(denominator, dtype=float)
    common = a.index.intersection(b.index)
    if len(common) == 0:
        return None
    ratios = a.loc[common].to_numpy() / b.loc[common].to_numpy()
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size == 0:
        return None
    low, high = _interval((ratios,), _median)
    return Ratio(int(ratios.size), float(np.median(ratios)), low, high)


def fit_power(times_by_size: Mapping[float, Sequence[float]]) -> PowerFit | None:
    """Fit time ∝ sizeᵏ by least squares on the mean log time of each size.

    Instances are resampled within their size, so every replicate has all sizes.

    Parameters
    ----------
    times_by_size
        Positive times of each size.

    Returns
    -------
    PowerFit or None
        None with fewer than two sizes.
    """
    kept = {
        size: np.log(np.asarray(times, dtype=np.float64))
        for size, times in sorted(times_by_size.items())
        if len(times) > 0
    }
    if len(kept) < 2:
        return None
    x = np.log(np.array(list(kept), dtype=np.float64))
    centred = x - x.mean()
    weights = centred / (centred @ centred)

    def slope(*samples: Samples) -> Samples:
        means = [sample.mean(axis=-1) for sample in samples]
        return np.asarray(sum(w * mean for w, mean in zip(weights, means, strict=True)))

    logs = tuple(kept.values())
    means = np.array([log.mean() for log in logs])
    low, high = _interval(logs, slope)
    return PowerFit(
        exponent=float(slope(*logs)),
        low=low,
        high=high,
        local=tuple(float(s) for s in np.diff(means) / np.diff(x)),
        sizes=len(kept),
        points=int(sum(log.size for log in logs)),
    )


def performance_profile(times: pd.DataFrame) -> dict[str, tuple[Samples, Samples]]:
    """Compute performance profiles after Dolan and Moré (Math. Program. 91, 2002, eq. 1 and 2).

    Parameters
    ----------
    times
        One row per problem, one column per method, NaN where the method failed.

    Returns
    -------
    dict
        By method: factors τ ≥ 1 in ascending order and the share of all problems solved within τ
        times the fastest method's time. Problems that every method failed count in the
        denominator: nobody solved them.
    """
    best = times.min(axis=1)
    result: dict[str, tuple[Samples, Samples]] = {}
    for method in times.columns:
        factors = np.sort((times[method] / best).dropna().to_numpy(dtype=np.float64))
        share = np.arange(1, factors.size + 1) / max(len(times), 1)
        result[str(method)] = (factors, share)
    return result


def shifted_geometric_mean(values: ArrayLike, shift: float) -> float:
    """Return exp(mean(log(v + shift))) − shift; NaN of no values.

    The shift keeps tiny values from ruling the mean (Mittelmann's benchmarks of optimization
    software; Achterberg, "Constraint integer programming" (2007), A.3).
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return float("nan")
    return float(np.exp(np.mean(np.log(data + shift))) - shift)


def _median(values: Samples) -> Samples:
    return np.asarray(np.median(values, axis=-1))


def _interval(
    samples: tuple[Samples, ...], statistic: Callable[..., Samples]
) -> tuple[float, float]:
    """Percentile bootstrap; every sample is resampled by itself, always by the same draws."""
    sizes = [sample.size for sample in samples]
    if sum(sizes) < FEWEST_FOR_INTERVAL or min(sizes) < 2:
        return float("nan"), float("nan")
    draws = _draws(tuple(sizes))
    resampled = statistic(*(sample[draw] for sample, draw in zip(samples, draws, strict=True)))
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(resampled, (tail, 100.0 - tail))
    return float(low), float(high)


@lru_cache(maxsize=256)
def _draws(sizes: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    rng = np.random.default_rng(SEED)
    return tuple(rng.integers(0, size, (RESAMPLES, size)) for size in sizes)
