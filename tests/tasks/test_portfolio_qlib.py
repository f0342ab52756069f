"""Qlib's data as a market; needs pyqlib for all but the messages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bpqp_bench.tasks.portfolio import qlib_data
from bpqp_bench.tasks.portfolio.covariance import estimate_covariance
from bpqp_bench.tasks.portfolio.data import DataError
from bpqp_bench.tasks.portfolio.qlib_data import QlibSettings, qlib_market

SYMBOLS = ("SH600000", "SH600001", "SZ000001", "SZ000002", "SZ000003")
DAYS = pd.bdate_range("2019-01-01", periods=420)
FIELDS = ("open", "close", "high", "low", "volume", "vwap", "factor")


@pytest.fixture(scope="module")
def prices():
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((len(DAYS), len(SYMBOLS))) * 0.02
    return pd.DataFrame(10 * np.exp(steps.cumsum(axis=0)), DAYS, list(SYMBOLS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prices):
    """A directory in Qlib's binary layout: one little-endian float32 file a field and symbol."""
    root = tmp_path_factory.mktemp("qlib")
    for part in ("calendars", "instruments", "features"):
        (root / part).mkdir()
    (root / "calendars" / "day.txt").write_text("\n".join(DAYS.strftime("%Y-%m-%d")) + "\n")
    # One symbol leaves the index on a test day; one begins late.
    last, left = DAYS[-1].date(), DAYS[400].date()
    lines = [f"{s}\t{DAYS[0].date()}\t{last}" for s in SYMBOLS[:4]]
    members = [*lines[:3], f"{SYMBOLS[3]}\t{DAYS[0].date()}\t{left}"]
    late = f"{SYMBOLS[4]}\t{DAYS[100].date()}\t{last}"
    (root / "instruments" / "all.txt").write_text("\n".join([*lines, late]) + "\n")
    (root / "instruments" / "tiny.txt").write_text("\n".join([*members, late]) + "\n")
    rng = np.random.default_rng(1)
    for symbol in SYMBOLS:
        start = 100 if symbol == SYMBOLS[4] else 0
        close = prices[symbol].to_numpy()[start:]
        values = {
            "close": close,
            "open": close * rng.uniform(0.99, 1.01, len(close)),
            "high": close * 1.02,
            "low": close * 0.98,
            "volume": rng.uniform(1e5, 1e6, len(close)),
            "vwap": close,
            "factor": np.ones(len(close)),
        }
        (root / "features" / symbol.lower()).mkdir()
        for field in FIELDS:
            content = np.concatenate([[start], values[field]]).astype("<f4")
            content.tofile(root / "features" / symbol.lower() / f"{field}.day.bin")
    return root


@pytest.fixture(scope="module")
def settings(folder):
    return QlibSettings(
        directory=str(folder),
        market="tiny",
        train=(str(DAYS[320].date()), str(DAYS[369].date())),
        valid=(str(DAYS[370].date()), str(DAYS[389].date())),
        test=(str(DAYS[390].date()), str(DAYS[410].date())),
        window=60,
        factors=2,
        kernels=1,
    )


def test_a_folder_without_data_says_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"calendars/day.txt is missing.*qlib_data --target_dir"):
        qlib_market(QlibSettings(directory=str(tmp_path)))


def test_a_missing_set_of_instruments_is_named(folder):
    with pytest.raises(DataError, match=r"instruments/csi500\.txt is missing"):
        qlib_market(QlibSettings(directory=str(folder)))


def test_without_pyqlib_the_message_says_how_to_install_it(folder, settings, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "qlib", None)
    with pytest.raises(DataError, match=r"pip install 'bpqp_bench\[qlib\]'"):
        qlib_market(settings)


def test_the_market_is_made_of_what_qlib_returns(settings, prices, monkeypatch):
    members = [(day, name) for day in DAYS[300:] for name in SYMBOLS[:4]]
    index = pd.MultiIndex.from_tuples(members, names=["datetime", "instrument"])
    features = pd.DataFrame(np.random.default_rng(0).standard_normal((len(index), 3)), index)
    close = prices.copy()
    close.iloc[395, 2] = np.nan
    monkeypatch.setattr(qlib_data, "_read", lambda folder, s: (features, close))
    market = qlib_market(settings)
    assert [len(part) for part in market.splits] == [50, 20, 21]
    day = market.day(390)
    assert list(day.assets) == [0, 1, 2, 3]  # the fifth has no features
    np.testing.assert_allclose(day.features, features.loc[DAYS[390]].to_numpy(), rtol=1e-6)
    expected = prices.iloc[391, :4] / prices.iloc[390, :4] - 1
    np.testing.assert_allclose(day.returns, expected, rtol=1e-12)
    assert 2 not in market.day(395).assets  # without a price it cannot be bought
    with pytest.raises(DataError, match="the covariance needs 330"):
        qlib_market(replace(settings, window=330))


@pytest.fixture(scope="module")
def market(settings):
    pytest.importorskip("qlib")
    return qlib_market(settings)


def test_alpha158_of_the_papers_columns(market):
    assert market.n_features == 153
    day = market.day(market.splits.test.start)
    assert len(day.assets) == 5
    assert np.isfinite(day.features).all()
    assert np.abs(market.features[np.isfinite(market.features)]).max() <= 3.0


def test_returns_and_dates_are_those_of_the_files(market, prices):
    day = market.day(market.splits.valid.start)
    at = DAYS.get_loc(pd.Timestamp(day.date))
    expected = prices.iloc[at + 1] / prices.iloc[at] - 1
    np.testing.assert_allclose(day.returns, expected.to_numpy(), atol=1e-5)


def test_members_of_the_index_change_by_day(market):
    here = {str(d.date): d for d in map(market.day, market.splits.test)}
    assert 3 in here[str(DAYS[400].date())].assets
    assert 3 not in here[str(DAYS[401].date())].assets


def test_the_future_changes_nothing_before_it(market, settings, folder, tmp_path):
    import shutil

    from qlib.data.cache import H

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    cut = 395
    path = other / "features" / SYMBOLS[0].lower() / "close.day.bin"
    content = np.fromfile(path, dtype="<f4")
    content[1 + cut + 1 :] *= 1.5
    content.tofile(path)
    H.clear()  # Qlib remembers expressions by their text
    changed = qlib_market(replace(settings, directory=str(other)))
    for t in range(market.splits.train.start, market.splits.test.stop):
        before, after = market.day(t), changed.day(t)
        if before.date <= np.datetime64(DAYS[cut].date()):
            np.testing.assert_array_equal(before.features, after.features)
            np.testing.assert_array_equal(before.sigma, after.sigma)


def test_factor_covariance_is_qlibs():
    pytest.importorskip("qlib")
    from qlib.model.riskmodel import StructuredCovEstimator

    rng = np.random.default_rng(3)
    returns = rng.standard_normal((80, 12)) @ rng.standard_normal((12, 12)) * 0.01
    # Qlib scales to percent, in place; its specific variances divide by the days, ours by one less.
    F, cov_b, var_u = StructuredCovEstimator(num_factors=4).predict(
        returns.copy(), is_price=False, return_decomposed_components=True
    )
    B, d = estimate_covariance(returns * 100, factors=4)
    np.testing.assert_allclose(B @ B.T, F @ cov_b @ F.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(d, var_u * 80 / 79, rtol=1e-8)
