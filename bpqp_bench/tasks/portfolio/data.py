"""One interface to market data: features, next-day returns and covariance by date.

The order of time: a decision is taken at the close of date t. Features and covariance of date t
know prices up to and including that close; ``returns[t]`` is what the decision earns afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpqp_bench.errors import BenchError
from bpqp_bench.problem.instance import Array
from bpqp_bench.tasks.portfolio.covariance import FactorCovariance

Dates = NDArray[np.datetime64]

_MAX_CALENDAR_GAP = 15  # the longest holiday, China's spring festival, closes for eleven days
CLIP = 3.0  # robust standard deviations
NORMAL = 1.4826  # makes the median absolute deviation of a normal sample its standard deviation


class DataError(BenchError, ValueError):
    """Market data are missing or cannot be used."""


@dataclass(frozen=True)
class Splits:
    """Ranges of day numbers for training, validation and test, in this order and disjoint."""

    train: range
    valid: range
    test: range

    def __iter__(self) -> Iterator[range]:
        return iter((self.train, self.valid, self.test))


@dataclass(frozen=True, eq=False)
class Day:
    """What the experiment sees of one date: the assets that can be traded on it.

    Attributes
    ----------
    index, date
        Number of the day in its market, and its date.
    assets
        Which of the market's assets these are, shape (n,).
    features
        Shape (n, F), float32, finite.
    returns
        Return earned by a decision of this date, fraction, shape (n,).
    sigma
        Covariance of daily returns in percent², shape (n, n), positive definite.
    signal
        Expected return where it is known (synthetic data), fraction, shape (n,).
    """

    index: int
    date: np.datetime64
    assets: NDArray[np.intp]
    features: NDArray[np.float32]
    returns: Array
    sigma: Array
    signal: Array | None


@dataclass(frozen=True, eq=False)
class Market:
    """A panel of T days, N assets and F features, checked on construction.

    Attributes
    ----------
    name
        "synthetic", "sp500", "qlib" or a user's own.
    dates
        Strictly increasing, shape (T,).
    assets
        Names, N of them.
    features
        Shape (T, N, F), float32; an asset whose features are all NaN on a date is not there on
        that date, a single NaN is replaced by the date's mean over the assets.
    returns
        Shape (T, N), fractions. NaN where an asset that is there has no next price: it vanished,
        its position is closed at the last price and earns 0.
    covariance
        By date, in percent².
    splits
        Days of training, validation and test.
    signal
        E[returns] where it is known, shape (T, N), else None.

    Raises
    ------
    DataError
        If shapes disagree, dates are not strictly increasing, splits overlap or leave the panel, or
        a day of a split has fewer than two assets.
    """

    name: str
    dates: Dates
    assets: tuple[str, ...]
    features: NDArray[np.float32]
    returns: Array
    covariance: FactorCovariance
    splits: Splits
    signal: Array | None = None

    def __post_init__(self) -> None:
        T, N = len(self.dates), len(self.assets)
        if self.features.ndim != 3 or self.features.shape[:2] != (T, N):
            raise DataError(
                f"{self.name}: features have shape {self.features.shape}, expected ({T}, {N}, F)"
            )
        for what, values in (("returns", self.returns), ("signal", self.signal)):
            if values is not None and values.shape != (T, N):
                raise DataError(f"{self.name}: {what} have shape {values.shape}, not ({T}, {N})")
        _check_dates(self.name, self.dates)
        last = 0
        for part in self.splits:
            if part.step != 1 or part.start < last or part.stop > T or len(part) == 0:
                raise DataError(
                    f"{self.name}: the split {part} is empty, overlaps another or leaves the "
                    f"{T} days"
                )
            last = part.stop
        present = self.present
        for part in self.splits:
            counts = present[part.start : part.stop].sum(axis=1)
            if counts.min() < 2:
                bad = part.start + int(counts.argmin())
                raise DataError(
                    f"{self.name}: {counts.min()} assets on {self.dates[bad]}, a portfolio needs "
                    "two; choose other dates"
                )

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which assets are there on which date, shape (T, N): known at that date's close."""
        return ~np.isnan(self.features).all(axis=2) & self.covariance.known

    @property
    def n_features(self) -> int:
        """Number F of features."""
        return int(self.features.shape[2])

    def day(self, t: int) -> Day:
        """Return the tradable part of day t with its missing values treated."""
        x = self.features[t]
        here = np.flatnonzero(~np.isnan(x).all(axis=1) & self.covariance.known[t])
        earned = self.returns[t, here]
        return Day(
            index=t,
            date=self.dates[t],
            assets=here,
            features=_fill(x[here]),
            returns=np.where(np.isnan(earned), 0.0, earned),
            sigma=self.covariance.sigma(t, here),
            signal=None if self.signal is None else self.signal[t, here],
        )

    def describe(self) -> dict[str, object]:
        """Plain facts about the data, for the results."""
        present = self.present
        counts = present[self.splits.train.start : self.splits.test.stop].sum(axis=1)
        vanished = present & np.isnan(self.returns)
        return {
            "name": self.name,
            "assets": len(self.assets),
            "assets_per_day": [int(counts.min()), int(counts.max())],
            "features": self.n_features,
            "missing_returns": int(vanished[self.splits.train.start : self.splits.test.stop].sum()),
            **{
                name: [str(self.dates[part.start]), str(self.dates[part.stop - 1]), len(part)]
                for name, part in zip(("train", "valid", "test"), self.splits, strict=True)
            },
        }


def check_prices(name: str, close: pd.DataFrame) -> None:
    """Refuse closing prices that no treatment can save.

    Parameters
    ----------
    name
        For the message.
    close
        Dates × assets; NaN where an asset has no price.

    Raises
    ------
    DataError
        If a date or an asset occurs twice, dates are not sorted, the calendar has a hole of more
        than 15 days, a price is not positive and finite, or an asset has no price at all.
    """
    _check_dates(name, close.index.to_numpy().astype("datetime64[D]"))
    twice = close.columns[close.columns.duplicated()]
    if len(twice):
        raise DataError(f"{name}: asset {twice[0]} occurs twice")
    gaps = np.diff(close.index.to_numpy().astype("datetime64[D]")).astype(int)
    if len(gaps) and gaps.max() > _MAX_CALENDAR_GAP:
        at = int(gaps.argmax())
        raise DataError(
            f"{name}: no prices between {close.index[at].date()} and {close.index[at + 1].date()} "
            f"({gaps[at]} days); add the missing days or cut the data there"
        )
    values = close.to_numpy(dtype=np.float64)
    bad = np.argwhere(np.isinf(values) | (values <= 0))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{name}: price {values[row, column]} of {close.columns[column]} on "
            f"{close.index[row].date()} is not positive and finite"
        )
    empty = np.isnan(values).all(axis=0)
    if empty.any():
        raise DataError(f"{name}: asset {close.columns[int(empty.argmax())]} has no price at all")


def fill_gaps(close: pd.DataFrame, longest: int = 5) -> pd.DataFrame:
    """Carry a price over gaps of up to ``longest`` days; it never looks ahead.

    A longer gap takes the asset out of the market from its sixth day until its windows are full
    again. Nothing is filled before the first price.
    """
    return close.ffill(limit=longest)


def next_returns(close: pd.DataFrame) -> Array:
    """close[t + 1]/close[t] − 1, shape (T, N); NaN on the last day and where a price is missing."""
    values = close.to_numpy(dtype=np.float64)
    out = np.full(values.shape, np.nan)
    out[:-1] = values[1:] / values[:-1] - 1.0
    return out


def robust_zscore(features: NDArray[np.float32], train: range) -> NDArray[np.float32]:
    """Standardize features by median and absolute deviation of the training days, clip at ±3.

    What Qlib calls RobustZScoreNorm. A feature that is constant in training becomes 0.

    Parameters
    ----------
    features
        Shape (T, N, F); infinite entries count as missing.
    train
        Days of training; no other day enters the statistics.
    """
    known = np.where(np.isfinite(features), features, np.float32(np.nan))
    fitted = known[train.start : train.stop].reshape(-1, features.shape[2])
    if np.isnan(fitted).all(axis=0).any():
        column = int(np.isnan(fitted).all(axis=0).argmax())
        raise DataError(f"feature {column} has no value on any training day")
    centre = np.nanmedian(fitted, axis=0)
    spread = np.nanmedian(np.abs(fitted - centre), axis=0) * NORMAL
    scale = np.where(spread > 0, 1.0 / np.where(spread > 0, spread, 1.0), 0.0)
    clipped: NDArray[np.float32] = np.clip((known - centre) * scale, -CLIP, CLIP)
    return clipped.astype(np.float32)


def split_days(first: int, train: int, valid: int, test: int) -> Splits:
    """Cut consecutive days, beginning with day ``first``, into parts of so many days."""
    a, b = first + train, first + train + valid
    return Splits(range(first, a), range(a, b), range(b, b + test))


def invented_dates(days: int) -> Dates:
    """Return consecutive working days for a market that is drawn."""
    start = np.datetime64("2008-01-01")
    return np.busday_offset(start, np.arange(days), roll="forward").astype("datetime64[D]")


def shorten(splits: Splits, train: int, valid: int, test: int) -> Splits:
    """Keep the last days of training and the first of validation and test; 0 keeps all."""
    parts = (
        splits.train[-train:] if train else splits.train,
        splits.valid[:valid] if valid else splits.valid,
        splits.test[:test] if test else splits.test,
    )
    return Splits(*parts)


def _check_dates(name: str, dates: Dates) -> None:
    steps = np.diff(dates.astype("datetime64[D]")).astype(int)
    if (steps == 0).any():
        raise DataError(f"{name}: date {dates[int((steps == 0).argmax())]} occurs twice")
    if (steps < 0).any():
        raise DataError(f"{name}: dates are not sorted at {dates[int((steps < 0).argmax()) + 1]}")


def _fill(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # The date's mean over assets for a missing value (Qlib's CSZFillna); 0, the centre after
    # standardization, where the date has none.
    missing = np.isnan(x)
    if not missing.any():
        return x
    counts = (~missing).sum(axis=0)
    mean = np.where(missing, 0.0, x).sum(axis=0) / np.maximum(counts, 1)
    return np.asarray(np.where(missing, mean[None, :], x), dtype=np.float32)
