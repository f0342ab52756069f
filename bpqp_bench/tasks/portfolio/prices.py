"""Markets made of closing prices, and prices that anyone can have.

Those of 20 S&P 500 companies, 1990 to 2022, ship inside of the package skfolio; nothing is
downloaded. All 20 existed throughout, which real investors could not know in 1990: returns of this
set flatter every method (survivorship).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpqp_bench.tasks.portfolio.alpha import WINDOWS, alpha_features
from bpqp_bench.tasks.portfolio.covariance import rolling_covariance
from bpqp_bench.tasks.portfolio.data import (
    DataError,
    Market,
    Splits,
    check_prices,
    fill_gaps,
    next_returns,
    robust_zscore,
    shorten,
)

_COVERAGE = 0.5  # share of an asset's features that must be known for it to be tradable


@dataclass(frozen=True, kw_only=True)
class PriceSettings:
    """Calendar and risk model; the paper's calendar for training and validation.

    Attributes
    ----------
    train, valid, test
        First and last date of each part, ISO 8601, inclusive.
    window, factors, clip
        Days and components of the covariance, and quantile at which its returns are clipped.
    assets
        At most so many assets, the first in alphabetical order; 0 means all.
    train_days, valid_days, test_days
        Only the last so many training days, the first of validation and of test; 0 means all.
    """

    train: tuple[str, str] = ("2008-01-01", "2014-12-31")
    valid: tuple[str, str] = ("2015-01-01", "2016-12-31")
    test: tuple[str, str] = ("2017-01-01", "2022-12-27")
    window: int = 240
    factors: int = 10
    clip: float = 0.0
    assets: int = 0
    train_days: int = 0
    valid_days: int = 0
    test_days: int = 0


def sp500_prices() -> pd.DataFrame:
    """Read the closing prices, dates × 20 companies.

    Raises
    ------
    DataError
        If skfolio is not installed.
    """
    try:
        from skfolio.datasets import load_sp500_dataset  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise DataError(
            f"--data sp500 needs the package skfolio ({error}); install it with "
            "pip install 'bpqp_bench[sp500]'"
        ) from None
    frame: pd.DataFrame = load_sp500_dataset()
    return frame


def price_market(name: str, close: pd.DataFrame, settings: PriceSettings) -> Market:
    """Make a market of any closing prices: check, fill short gaps, features, covariance, splits.

    Parameters
    ----------
    name
        For messages and results.
    close
        Dates × assets, NaN where an asset has no price.
    settings
        Calendar and risk model.

    Raises
    ------
    DataError
        If the prices are unusable (see `data.check_prices`) or the calendar does not fit them.
    """
    check_prices(name, close)
    if settings.assets:
        close = close[sorted(close.columns)[: settings.assets]]
    splits = calendar_splits(name, pd.DatetimeIndex(close.index), settings)
    # Earlier prices than the first window needs change nothing.
    spare = max(splits.train.start - settings.window - max(WINDOWS) - 1, 0)
    close = close.iloc[spare : splits.test.stop + 1]
    splits = Splits(*(range(part.start - spare, part.stop - spare) for part in splits))
    features, _ = alpha_features(fill_gaps(close))
    known = np.isfinite(features).mean(axis=2) >= _COVERAGE
    features = robust_zscore(features, splits.train)
    features[~known] = np.nan
    return assemble_market(name, close, features, splits, settings)


def assemble_market(
    name: str,
    close: pd.DataFrame,
    features: NDArray[np.float32],
    splits: Splits,
    settings: PriceSettings,
) -> Market:
    """Add returns and covariances of the prices to their features."""
    following = next_returns(fill_gaps(close))
    past = np.vstack([np.full((1, following.shape[1]), np.nan), following[:-1]])
    days = range(splits.train.start, splits.test.stop)
    return Market(
        name,
        close.index.to_numpy().astype("datetime64[D]"),
        tuple(str(asset) for asset in close.columns),
        features,
        following,
        rolling_covariance(past, days, settings.window, settings.factors, clip=settings.clip),
        splits,
    )


def calendar_splits(name: str, dates: pd.DatetimeIndex, settings: PriceSettings) -> Splits:
    """Turn dates into ranges of day numbers.

    Raises
    ------
    DataError
        If a part holds no trading day, the parts are not in order, or the prices do not reach over
        the covariance's first window and the last decision's next day.
    """
    ranges: list[range] = []
    for part in ("train", "valid", "test"):
        begin, end = (pd.Timestamp(text) for text in getattr(settings, part))
        start, stop = int(dates.searchsorted(begin)), int(dates.searchsorted(end, side="right"))
        if start >= stop:
            raise DataError(
                f"{name}: no trading day between {begin.date()} and {end.date()} ({part}); the "
                f"data reach from {dates[0].date()} to {dates[-1].date()}"
            )
        if ranges and start < ranges[-1].stop:
            raise DataError(f"{name}: {part} begins before the part in front of it ends")
        ranges.append(range(start, stop))
    splits = shorten(Splits(*ranges), settings.train_days, settings.valid_days, settings.test_days)
    first, last = splits.train.start, splits.test.stop
    if first < settings.window:
        raise DataError(
            f"{name}: training begins on {dates[first].date()}, {first} days after the first "
            f"price; the covariance needs {settings.window}"
        )
    if last == len(dates):
        raise DataError(
            f"{name}: the test ends on the last date, {dates[-1].date()}, whose next return is not "
            "known; end it a day earlier"
        )
    return splits
