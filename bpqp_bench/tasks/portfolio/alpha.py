"""Features from closing prices, in the spirit of Qlib's Alpha158 without volumes and intraday.

For each window of 5, 10, 20, 30 and 60 days up to and including date t, relative to the close of t
so that the level of the price does not matter:

- trend: ``roc`` first price, ``ma`` mean, ``beta`` slope of the regression on time, ``rsqr`` its
  R², ``resi`` its last residual;
- risk: ``std`` of prices, ``vol`` of daily returns, ``down`` of negative ones;
- range: ``max``, ``min``, ``qtlu`` and ``qtld`` (80 and 20 % quantiles), ``rsv`` place of the close
  between minimum and maximum, ``imax``, ``imin`` how long ago these were;
- rank: ``rank`` of the close among the window's, ``cntp`` share of rising days, ``sump`` share of
  the rises in all movement, ``csr`` rank of the window's return among the assets.

And the returns of the last five days.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array

WINDOWS = (5, 10, 20, 30, 60)
_LAGS = 5


def alpha_features(close: pd.DataFrame) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Compute all features of all dates and assets.

    Parameters
    ----------
    close
        Dates × assets; a NaN makes every feature whose window holds it NaN.

    Returns
    -------
    features, names
        Shape (T, N, F) as float32, NaN where a window is not full; names of the F features.
    """
    prices = close.to_numpy(dtype=np.float64)
    columns: dict[str, Array] = {}
    returns = np.full(prices.shape, np.nan)
    returns[1:] = prices[1:] / prices[:-1] - 1.0
    for lag in range(_LAGS):
        shifted = np.full(prices.shape, np.nan)
        shifted[lag:] = returns[: len(returns) - lag]
        columns[f"ret{lag}"] = shifted
    for window in WINDOWS:
        for name, values in _of_window(prices, returns, window).items():
            columns[f"{name}{window}"] = values
    names = tuple(columns)
    return np.stack([columns[name] for name in names], axis=2).astype(np.float32), names


def _of_window(prices: Array, returns: Array, d: int) -> dict[str, Array]:
    T, N = prices.shape
    if d + 1 > T:
        return {name: np.full((T, N), np.nan) for name in _NAMES}
    # Windows of d prices ending at t and the d returns between d + 1 prices; shapes (T', N, d).
    p = sliding_window_view(prices, d, axis=0)[1:]
    r = sliding_window_view(returns, d, axis=0)[1:]
    last = p[..., -1]
    time = np.arange(d) - (d - 1) / 2
    mean = p.mean(axis=-1)
    slope = (p @ time) / (time @ time)
    total = ((p - mean[..., None]) ** 2).sum(axis=-1)
    explained = slope**2 * (time @ time)
    high, low = p.max(axis=-1), p.min(axis=-1)
    upper, lower = np.quantile(p, 0.8, axis=-1), np.quantile(p, 0.2, axis=-1)
    rises = np.where(r > 0, r, 0.0).sum(axis=-1)
    moves = np.abs(r).sum(axis=-1)
    whole = np.isfinite(r).all(axis=-1)
    period = prices[d:] / prices[:-d] - 1.0
    found = {
        "roc": prices[:-d] / last,
        "ma": mean / last,
        "beta": slope / last,
        "rsqr": _ratio(explained, total),
        "resi": (last - mean - slope * time[-1]) / last,
        "std": np.sqrt(total / d) / last,
        "vol": r.std(axis=-1),
        "down": np.sqrt((np.minimum(r, 0.0) ** 2).mean(axis=-1)),
        "max": high / last,
        "min": low / last,
        "qtlu": upper / last,
        "qtld": lower / last,
        "rsv": _ratio(last - low, high - low),
        "imax": np.argmax(p, axis=-1) / d,
        "imin": np.argmin(p, axis=-1) / d,
        "rank": (p <= last[..., None]).mean(axis=-1),
        "cntp": (r > 0).mean(axis=-1),
        "sump": _ratio(rises, moves),
        "csr": _cross_rank(period),
    }
    out: dict[str, Array] = {}
    for name in _NAMES:
        column = np.full((T, N), np.nan)
        # Comparisons and argmax would turn a NaN in the window into a number.
        column[d:] = np.where(whole, found[name], np.nan)
        out[name] = column
    return out


_NAMES = (
    *("roc", "ma", "beta", "rsqr", "resi", "std", "vol", "down", "max", "min", "qtlu", "qtld"),
    *("rsv", "imax", "imin", "rank", "cntp", "sump", "csr"),
)


def _ratio(a: Array, b: Array) -> Array:
    # A window in which nothing moves has no trend and no range: 0.
    return np.asarray(np.where(b > 0, a / np.where(b > 0, b, 1.0), 0.0))


def _cross_rank(values: Array) -> Array:
    """Rank among the assets of a date, 0 to 1; NaN stays out."""
    frame = pd.DataFrame(values)
    return np.asarray(frame.rank(axis=1, pct=True).to_numpy(dtype=np.float64))
