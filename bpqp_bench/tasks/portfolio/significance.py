"""Is the difference between two methods more than chance? Paired bootstrap over seeds and days.

Days are drawn in blocks, because decisions and volatility of neighbouring days are alike (Künsch,
"The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17,
1989; circular version of Politis and Romano, 1992); seeds are drawn with them. Both methods see the
same drawn days and seeds: what is common to them cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array
from bpqp_bench.statistics import CONFIDENCE, FEWEST_FOR_INTERVAL, RESAMPLES, SEED
from bpqp_bench.tasks.portfolio.metrics import annual_return, sharpe

_AT_ONCE = 50  # resamples: 1500 days and 5 seeds then take some ten megabytes


@dataclass(frozen=True)
class Difference:
    """A metric of one method minus that of another, with its bootstrap interval.

    Attributes
    ----------
    metric, difference, low, high
        Name; estimate; percentile interval at ``confidence``, NaN below five days.
    better
        "higher" or "lower": which sign of the difference is an improvement.
    verdict
        "better", "worse", or "no difference" where the interval contains 0 or there is none.
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
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class _Statistic:
    column: str
    compute: Callable[[Array], Array]  # along the last axis
    better: str


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


STATISTICS: Mapping[str, _Statistic] = {
    "regret": _Statistic("regret", _mean, "lower"),
    "regret_return": _Statistic("regret_return", _mean, "lower"),
    "regret_risk": _Statistic("regret_risk", _mean, "lower"),
    "signal_regret": _Statistic("signal_regret", _mean, "lower"),
    "Sharpe": _Statistic("excess", sharpe, "higher"),
    "AnnRet_pct": _Statistic("excess", annual_return, "higher"),
    "IC": _Statistic("ic", _mean, "higher"),
}


def block_length(days: int) -> int:
    """Rule-of-thumb length days^(1/3), rounded up: the optimal order for a variance (Künsch)."""
    return max(int(np.ceil(days ** (1 / 3))), 1)


def drawn_days(days: int, block: int, resamples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Day numbers of every resample, shape (resamples, days): circular blocks."""
    starts = rng.integers(0, days, (resamples, -(-days // block)))
    chosen = (starts[:, :, None] + np.arange(block)) % days
    return np.asarray(chosen.reshape(resamples, -1)[:, :days])


def compare_series(
    metric: str, own: Array, other: Array, resamples: int = RESAMPLES, block: int | None = None
) -> Difference:
    """Bootstrap the difference of a metric between two methods.

    Parameters
    ----------
    metric
        A key of `STATISTICS`.
    own, other
        The metric's daily series, shape (seeds, days), same days and seeds; the metric is computed
        per seed and averaged over the seeds.
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
        return np.asarray((statistic.compute(a) - statistic.compute(b)).mean(axis=-1))

    low = high = float("nan")
    if days >= FEWEST_FOR_INTERVAL:
        rng = np.random.default_rng(SEED)
        sample: list[Array] = []
        for begin in range(0, resamples, _AT_ONCE):
            count = min(_AT_ONCE, resamples - begin)
            which = (
                rng.integers(0, seeds, (count, seeds))[:, :, None],
                drawn_days(days, length, count, rng)[:, None, :],
            )
            sample.append(difference(own[which], other[which]))
        tail = 50.0 * (1.0 - CONFIDENCE)
        low, high = np.nanpercentile(np.concatenate(sample), [tail, 100.0 - tail])
    sign = 1.0 if statistic.better == "higher" else -1.0
    verdict = "no difference"
    if low > 0 or high < 0:
        verdict = "better" if sign * low > 0 else "worse"
    return Difference(
        metric=metric,
        difference=float(difference(own, other)),
        low=float(low),
        high=float(high),
        better=statistic.better,
        verdict=verdict,
        days=days,
        seeds=seeds,
        block=length,
        resamples=resamples,
    )


def differences(series: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Compare methods of one market, on the seeds that both have.

    Parameters
    ----------
    series
        Daily series with ``name``, ``seed`` and ``chosen_by``, as `results.load_series` reads them.
        What has no seeds (`evaluate.BASELINES`) stands beside every seed of the other.
    pairs
        Names: a method, and the one that it is compared with.

    Yields
    ------
    dict
        ``method``, ``name``, ``chosen_by``, ``baseline`` and the fields of a `Difference`, for
        every statistic that both have on all days.
    """
    for chosen_by in [choice for choice in series["chosen_by"].unique() if choice]:
        part = series[series["chosen_by"].isin([chosen_by, ""])]
        by_name = {str(name): frame for name, frame in part.groupby("name", sort=False)}
        for name, base in pairs:
            if name not in by_name or base not in by_name:
                continue
            both = by_name[name], by_name[base]
            named = {"method": both[0]["method"].iloc[0], "name": name}
            named |= {"chosen_by": chosen_by, "baseline": base}
            for metric, statistic in STATISTICS.items():
                mine, other = (
                    frame.pivot(index="seed", columns="date", values=statistic.column)
                    for frame in both
                )
                if all((frame["chosen_by"] != "").all() for frame in both):
                    seeds = mine.index.intersection(other.index)
                    mine, other = mine.loc[seeds], other.loc[seeds]
                a, b = np.broadcast_arrays(mine.to_numpy(float), other.to_numpy(float))
                if a.size and np.isfinite(a).all() and np.isfinite(b).all():
                    yield named | asdict(compare_series(metric, a, b))
