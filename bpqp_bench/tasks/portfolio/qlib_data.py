"""The paper's own data: Alpha158 on CSI 500, 2008 to 2020, through Qlib from a local directory.

Features, their processing, label, calendar and risk model are those of the authors' preparation:
Alpha158 without five columns, RobustZScoreNorm fitted on the training years with clipping,
CSZFillna, next-day return of the close, principal components of 240 days of clipped returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bpqp_bench.tasks.portfolio.data import DataError, Market, check_prices
from bpqp_bench.tasks.portfolio.prices import PriceSettings, assemble_market, calendar_splits

# Dropped by the authors; VWAP is missing in the public data.
_DROPPED = ("VWAP0", "KUP", "KUP2", "HIGH0", "IMIN5")
_HOW = (
    "Qlib's daily data of Chinese stocks are needed: with pyqlib installed, "
    "`python -m qlib.cli.data qlib_data --target_dir DIR --region cn` downloads them, or unpack "
    "qlib_bin.tar.gz of the releases of github.com/chenditc/investment_data into DIR; then pass "
    "--qlib-dir DIR"
)


@dataclass(frozen=True, kw_only=True)
class QlibSettings(PriceSettings):
    """Where the data are, and the paper's calendar.

    Attributes
    ----------
    directory
        Holds ``calendars/day.txt``, ``instruments/<market>.txt`` and ``features/``.
    market
        Set of instruments.
    kernels
        Processes that Qlib computes features with; 0 leaves it to Qlib.
    """

    directory: str = "~/.qlib/qlib_data/cn_data"
    market: str = "csi500"
    test: tuple[str, str] = ("2017-01-01", "2020-08-01")
    clip: float = 0.025
    kernels: int = 0


def qlib_market(settings: QlibSettings | None = None) -> Market:
    """Read features and prices through Qlib and make the market.

    Qlib keeps its configuration in the process: one directory a process.

    Raises
    ------
    DataError
        If pyqlib or the data are missing, or the data do not reach over the calendar.
    """
    s = settings or QlibSettings()
    folder = Path(s.directory or QlibSettings.directory).expanduser()
    _check_folder(folder, s.market)
    features, close = _read(folder, s)
    check_prices("qlib", close)
    dates = pd.DatetimeIndex(close.index)
    panel = _panel(features, dates, close.columns)
    # A member without a price today cannot be bought today.
    panel[~close.notna().to_numpy()] = np.nan
    return assemble_market("qlib", close, panel, calendar_splits("qlib", dates, s), s)


def _check_folder(folder: Path, market: str) -> None:
    for part in ("calendars/day.txt", f"instruments/{market}.txt", "features"):
        if not (folder / part).exists():
            raise DataError(f"{folder} is no Qlib data directory: {part} is missing. {_HOW}")


def _read(folder: Path, s: QlibSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        import qlib  # noqa: PLC0415 - an extra, and slow
        from qlib.contrib.data.handler import Alpha158  # noqa: PLC0415
        from qlib.data import D  # noqa: PLC0415
        from qlib.data.dataset.handler import DataHandlerLP  # noqa: PLC0415
    except ImportError as error:
        raise DataError(
            f"--data qlib needs the package pyqlib ({error}); install it with "
            f"pip install 'bpqp_bench[qlib]'. {_HOW}"
        ) from None
    options: dict[str, Any] = {"kernels": s.kernels} if s.kernels else {}
    qlib.init(provider_uri=str(folder), region="cn", **options)
    handler = Alpha158(
        instruments=s.market,
        start_time=s.train[0],
        end_time=s.test[1],
        fit_start_time=s.train[0],
        fit_end_time=s.train[1],
        infer_processors=[
            {"class": "DropCol", "kwargs": {"col_list": list(_DROPPED)}},
            {
                "class": "RobustZScoreNorm",
                "kwargs": {"fields_group": "feature", "clip_outlier": True},
            },
            {"class": "CSZFillna", "kwargs": {"fields_group": "feature"}},
        ],
        learn_processors=[],
        label=(["Ref($close, -1) / $close - 1"], ["LABEL0"]),
    )
    features: pd.DataFrame = handler.fetch(
        col_set="feature", data_key=DataHandlerLP.DK_I
    ).sort_index()
    if features.empty:
        raise DataError(
            f"{folder} holds no data of {s.market} between {s.train[0]} and {s.test[1]}"
        )
    names = sorted(features.index.get_level_values("instrument").unique())[: s.assets or None]
    # 400 calendar days hold the 240 trading days of the first window, ten more days the last label.
    begin = pd.Timestamp(s.train[0]) - pd.Timedelta(days=400)
    end = pd.Timestamp(s.test[1]) + pd.Timedelta(days=15)
    prices = D.features(names, ["$close"], start_time=begin, end_time=end)["$close"]
    close: pd.DataFrame = prices.unstack(level="instrument").sort_index()
    # Days on which nothing at all is traded do not exist in the calendar; Qlib's own is complete.
    days = pd.DatetimeIndex(D.calendar(start_time=begin, end_time=end))
    return features, close.reindex(index=days, columns=names).astype(np.float64)


def _panel(
    features: pd.DataFrame, dates: pd.DatetimeIndex, assets: pd.Index[str]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    panel = np.full((len(dates), len(assets), features.shape[1]), np.nan, dtype=np.float32)
    row = dates.get_indexer(features.index.get_level_values("datetime"))
    column = assets.get_indexer(features.index.get_level_values("instrument"))
    inside = (row >= 0) & (column >= 0)
    values = features.to_numpy(dtype=np.float32)
    panel[row[inside], column[inside]] = values[inside]
    panel[np.isinf(panel)] = np.nan
    return panel
