"""Markets of the portfolio experiment: statistics, order of time, bad data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kurtosis

from bpqp_bench.tasks.portfolio.alpha import WINDOWS, alpha_features
from bpqp_bench.tasks.portfolio.control import control_market
from bpqp_bench.tasks.portfolio.covariance import (
    CovarianceError,
    estimate_covariance,
    rolling_covariance,
)
from bpqp_bench.tasks.portfolio.data import DataError, Splits, robust_zscore, shorten, split_days
from bpqp_bench.tasks.portfolio.metrics import correlation
from bpqp_bench.tasks.portfolio.prices import PriceSettings, price_market, sp500_prices
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market

# Few features: they do not enter what is tested, and most of the time goes into them.
LONG = SyntheticSettings(assets=120, features=24, train=1000, valid=100, test=100, window=30)
SMALL = SyntheticSettings(assets=8, features=24, train=12, valid=4, test=5, window=30)


@pytest.fixture(scope="module")
def long_market():
    return synthetic_market(LONG)


def autocorrelation(values, lag):
    return correlation(values[:-lag], values[lag:])


def test_planted_information_coefficient(long_market):
    daily = [
        correlation(s, r) for s, r in zip(long_market.signal, long_market.returns, strict=True)
    ]
    assert 0.03 < np.mean(daily) < 0.05
    # The signal is the expected return: regressing on it gives a slope of one.
    s = long_market.signal - long_market.signal.mean(axis=1, keepdims=True)
    r = long_market.returns - long_market.returns.mean(axis=1, keepdims=True)
    slope = (s * r).sum(axis=1)
    error = slope.std() / np.sqrt(len(slope)) / (s * s).sum(axis=1).mean()
    assert abs(slope.mean() / (s * s).sum(axis=1).mean() - 1.0) < 3 * error


def test_returns_have_fat_tails_and_clustered_volatility(long_market):
    r = long_market.returns
    assert np.mean(kurtosis(r)) > 2.0  # excess; 0 for a normal law
    dispersion = np.abs(r).mean(axis=1)
    assert autocorrelation(dispersion, 1) > 0.3
    assert autocorrelation(dispersion, 5) > 0.15
    assert abs(autocorrelation(r.mean(axis=1), 1)) < 0.1  # returns themselves are not
    yearly = r.std(axis=0).mean() * np.sqrt(240)
    assert 0.2 < yearly < 0.5


def test_synthetic_features_are_standard_and_persist(long_market):
    x = long_market.features
    assert x.mean() == pytest.approx(0.0, abs=0.02)
    assert x.std() == pytest.approx(1.0, abs=0.02)
    assert correlation(x[:-1, :, 0].ravel(), x[1:, :, 0].ravel()) > 0.4


def test_synthetic_market_is_reproducible_and_seeded():
    one, same, other = (synthetic_market(replace(SMALL, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.features, same.features)
    np.testing.assert_array_equal(one.returns, same.returns)
    assert not np.array_equal(one.returns, other.returns)


@pytest.mark.parametrize(
    "wrong", [{"assets": 501}, {"assets": 1}, {"features": 3}, {"test": 1}, {"ic": 1.0}]
)
def test_impossible_synthetic_settings(wrong):
    with pytest.raises(DataError):
        replace(SMALL, **wrong)


def test_controls_differ_in_what_the_predictor_sees_alone():
    positive, negative = (control_market(well, 20, 40, 5, 5) for well in (False, True))
    np.testing.assert_array_equal(positive.returns, negative.returns)
    x = positive.features[:, :, 0]
    np.testing.assert_array_equal(negative.features.sum(axis=2), x)
    assert not negative.features[:, :10, 1].any()
    assert not negative.features[:, 10:, 0].any()
    slopes = 100 * (positive.signal / x)
    np.testing.assert_allclose(slopes[:, :10], 0.3, rtol=1e-5)
    np.testing.assert_allclose(slopes[:, 10:], -0.6, rtol=1e-5)
    noise = 100 * (positive.returns - positive.signal)
    assert noise[:, :10].std() == pytest.approx(1.0, rel=0.1)
    assert noise[:, 10:].std() == pytest.approx(4.0, rel=0.1)
    sigma = positive.day(0).sigma
    np.testing.assert_array_equal(sigma, np.diag([1.0] * 10 + [16.0] * 10))
    with pytest.raises(DataError, match="even number"):
        control_market(True, 5, 2, 2, 2)


def prices(days=200, assets=4, seed=0):
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2020-01-01", periods=days)
    steps = rng.standard_normal((days, assets)) * 0.02
    return pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), index, list("ABCD")[:assets])


CALENDAR = PriceSettings(
    train=("2020-05-15", "2020-07-31"),
    valid=("2020-08-03", "2020-08-14"),
    test=("2020-08-17", "2020-09-30"),
    window=30,
    factors=2,
)


def test_the_future_changes_nothing_before_it():
    close = prices()
    market = price_market("test", close, CALENDAR)
    changed = close.copy()
    cut = pd.Timestamp("2020-08-20")  # inside of the test days
    changed.loc[changed.index > cut] *= np.random.default_rng(1).uniform(0.5, 2.0, (1, 4))
    other = price_market("test", changed, CALENDAR)
    for t in range(market.splits.train.start, market.splits.test.stop):
        before, after = market.day(t), other.day(t)
        if before.date <= np.datetime64(cut):
            np.testing.assert_array_equal(before.features, after.features)
            np.testing.assert_array_equal(before.sigma, after.sigma)
        if before.date < np.datetime64(cut):
            np.testing.assert_array_equal(before.returns, after.returns)
    last = market.day(market.splits.test.stop - 1)
    assert not np.array_equal(last.features, other.day(last.index).features)
    assert not np.array_equal(last.sigma, other.day(last.index).sigma)


def test_standardization_knows_the_training_days_only():
    x = np.random.default_rng(0).standard_normal((50, 5, 3)).astype(np.float32)
    first = robust_zscore(x, range(5, 20))
    x[20:] *= 100
    np.testing.assert_array_equal(first[:20], robust_zscore(x, range(5, 20))[:20])
    fitted = first[5:20].reshape(-1, 3)
    np.testing.assert_allclose(np.median(fitted, axis=0), 0.0, atol=1e-6)
    assert np.abs(first).max() <= 3.0


def test_returns_are_those_after_the_decision():
    close = prices()
    market = price_market("test", close, CALENDAR)
    day = market.day(market.splits.train.start)
    at = close.index.get_loc(pd.Timestamp(day.date))
    expected = close.iloc[at + 1] / close.iloc[at] - 1
    np.testing.assert_allclose(day.returns, expected.to_numpy(), rtol=1e-12)


def test_features_against_their_definition():
    close = prices(days=80)
    features, names = alpha_features(close)
    assert features.shape == (80, 4, 5 + 19 * len(WINDOWS))
    assert len(set(names)) == len(names)
    at, d = 70, 10
    window = close["B"].to_numpy()[at - d + 1 : at + 1]
    got = dict(zip(names, features[at, 1], strict=True))
    fit = np.polyfit(np.arange(d), window, 1)
    residual = window - np.polyval(fit, np.arange(d))
    moves = np.diff(close["B"].to_numpy()[at - d : at + 1])
    rises = moves / close["B"].to_numpy()[at - d : at]
    expected = {
        "roc10": close["B"].iloc[at - d] / window[-1],
        "ma10": window.mean() / window[-1],
        "beta10": fit[0] / window[-1],
        "rsqr10": 1 - (residual**2).sum() / ((window - window.mean()) ** 2).sum(),
        "resi10": residual[-1] / window[-1],
        "std10": window.std() / window[-1],
        "vol10": rises.std(),
        "max10": window.max() / window[-1],
        "rsv10": (window[-1] - window.min()) / (window.max() - window.min()),
        "imin10": window.argmin() / d,
        "cntp10": (moves > 0).mean(),
        "sump10": rises[rises > 0].sum() / np.abs(rises).sum(),
        "ret0": rises[-1],
        "ret4": rises[-5],
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=2e-5), name


# Bad data


def test_duplicate_dates_are_refused():
    close = prices()
    with pytest.raises(DataError, match="date 2020-01-15 occurs twice"):
        price_market("test", pd.concat([close[:11], close[10:]]), CALENDAR)


def test_unsorted_dates_duplicate_assets_and_bad_prices_are_refused():
    close = prices()
    with pytest.raises(DataError, match="not sorted"):
        price_market("test", close[::-1], CALENDAR)
    with pytest.raises(DataError, match="asset A occurs twice"):
        price_market("test", close[["A", "B", "A"]], CALENDAR)
    close.iloc[5, 2] = -1.0
    with pytest.raises(DataError, match=r"price -1.0 of C on 2020-01-08 is not positive"):
        price_market("test", close, CALENDAR)
    close.iloc[5, 2] = 1.0
    close["D"] = np.nan
    with pytest.raises(DataError, match="asset D has no price at all"):
        price_market("test", close, CALENDAR)


def test_a_hole_in_the_calendar_is_refused():
    close = prices()
    with pytest.raises(DataError, match=r"no prices between 2020-05-08 and 2020-06-08 \(31 days\)"):
        price_market("test", close.drop(close.index[93:113]), CALENDAR)


def test_a_short_gap_of_one_asset_is_bridged_by_its_last_price():
    close = prices()
    at = close.index.get_loc(pd.Timestamp("2020-08-04"))
    close.iloc[at : at + 3, 0] = np.nan
    market = price_market("test", close, CALENDAR)
    t = market.splits.valid.start + 1
    assert market.dates[t] == np.datetime64("2020-08-04")
    day = market.day(t)
    assert 0 in day.assets
    assert day.returns[0] == 0.0


def test_a_vanished_asset_is_closed_at_its_last_price_and_then_gone():
    close = prices()
    gone = close.index.get_loc(pd.Timestamp("2020-08-18"))
    close.iloc[gone:, 3] = np.nan
    market = price_market("test", close, CALENDAR)
    here = {str(d.date): d for d in map(market.day, market.splits.test)}
    # Five days are bridged, on the last of which its next return is not known any more.
    last = here["2020-08-24"]
    assert 3 in last.assets
    assert last.returns[3] == 0.0
    assert 3 not in here["2020-08-25"].assets
    assert market.describe()["missing_returns"] == 1


def test_missing_features_get_the_mean_of_the_date():
    market = synthetic_market(SMALL)
    t = market.splits.train.start
    broken = market.features.copy()
    broken[t, 2, 5] = np.nan
    broken[t, :, 6] = np.nan
    broken[t, 4, :] = np.nan
    day = replace(market, features=broken).day(t)
    assert 4 not in day.assets
    assert len(day.assets) == SMALL.assets - 1
    assert np.isfinite(day.features).all()
    others = [0, 1, 3, 5, 6, 7]
    assert day.features[2, 5] == pytest.approx(broken[t, others, 5].mean(), rel=1e-5)
    assert (day.features[:, 6] == 0).all()


def test_markets_that_do_not_fit_together_are_refused():
    market = synthetic_market(SMALL)
    with pytest.raises(DataError, match="returns have shape"):
        replace(market, returns=market.returns[:-1])
    with pytest.raises(DataError, match="features have shape"):
        replace(market, features=market.features[:, :-1])
    twice = market.dates.copy()
    twice[3] = twice[2]
    with pytest.raises(DataError, match="occurs twice"):
        replace(market, dates=twice)
    with pytest.raises(DataError, match="overlaps"):
        replace(market, splits=Splits(range(30, 40), range(39, 45), range(45, 51)))
    alone = market.features.copy()
    alone[market.splits.valid.start, 1:] = np.nan
    with pytest.raises(DataError, match="a portfolio needs two"):
        replace(market, features=alone)


def test_calendars_that_do_not_fit_are_refused():
    close = prices()
    with pytest.raises(DataError, match="the covariance needs 120"):
        price_market("test", close, replace(CALENDAR, window=120))
    with pytest.raises(DataError, match="no trading day between 1999"):
        price_market("test", close, replace(CALENDAR, train=("1999-01-01", "1999-12-31")))
    with pytest.raises(DataError, match="end it a day earlier"):
        price_market("test", close[:190], replace(CALENDAR, test=("2020-08-17", "2020-12-31")))


def test_splits():
    parts = split_days(10, 5, 3, 2)
    assert tuple(parts) == (range(10, 15), range(15, 18), range(18, 20))
    assert tuple(shorten(parts, 2, 0, 1)) == (range(13, 15), range(15, 18), range(18, 19))


# Covariance


def test_factor_covariance_against_numpy():
    rng = np.random.default_rng(0)
    for days, n in ((60, 8), (12, 30)):  # more days than assets, and fewer
        window = rng.standard_normal((days, n)) @ rng.standard_normal((n, n))
        B, d = estimate_covariance(window, factors=4)
        sample = np.cov(window.T)
        values, vectors = np.linalg.eigh(sample)
        leading = (vectors[:, -4:] * values[-4:]) @ vectors[:, -4:].T
        np.testing.assert_allclose(B @ B.T, leading, atol=1e-10 * values[-1])
        sigma = B @ B.T + np.diag(d)
        np.testing.assert_allclose(np.diag(sigma), np.diag(sample), rtol=1e-9)
        np.linalg.cholesky(sigma)


def test_a_price_that_stands_still_has_a_positive_variance():
    window = np.random.default_rng(0).standard_normal((40, 5))
    window[:, 2] = 0.0
    _, d = estimate_covariance(window, factors=2)
    assert d[2] == pytest.approx(1e-4 * np.var(window, axis=0, ddof=1).mean())
    with pytest.raises(CovarianceError, match="all variances are 0"):
        estimate_covariance(np.zeros((40, 5)))


def test_covariance_needs_a_full_window_and_enough_coverage():
    returns = np.random.default_rng(0).standard_normal((50, 3)) * 0.01
    with pytest.raises(CovarianceError, match="the covariance needs 30"):
        rolling_covariance(returns, range(20, 50), window=30)
    returns[25:35, 1] = np.nan
    found = rolling_covariance(returns, range(30, 50), window=30, factors=2)
    assert not found.known[30:40, 1].any()  # ten of thirty missing
    assert found.known[:, [0, 2]][30:].all()


def test_sp500_prices_come_with_skfolio():
    pytest.importorskip("skfolio")
    settings = PriceSettings(train_days=20, valid_days=5, test_days=5)
    market = price_market("sp500", sp500_prices(), settings)
    assert len(market.assets) == 20
    assert market.n_features == 100
    assert market.describe()["test"] == ["2017-01-03", "2017-01-09", 5]
    day = market.day(market.splits.test.start)
    assert len(day.assets) == 20
    assert np.isfinite(day.features).all()
    np.linalg.cholesky(day.sigma)
