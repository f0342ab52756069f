"""Statistics against closed forms, and the coverage of their intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bpqp_bench.statistics import fit_power, paired_ratio, performance_profile, summarize


def test_summary_of_a_known_sample() -> None:
    found = summarize([1.0, 2.0, 3.0, 4.0])
    assert (found.n, found.mean, found.median) == (4, 2.5, 2.5)
    assert found.std == pytest.approx(math.sqrt(5 / 3))
    assert (found.q25, found.q75, found.low, found.high) == (1.75, 3.25, 1.0, 4.0)


def test_summary_of_one_value_has_no_spread() -> None:
    assert math.isnan(summarize([3.0]).std)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_summary_refuses_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summarize(values)


def test_ratio_is_paired_by_instance_not_by_position() -> None:
    slow = pd.Series({"a": 2.0, "b": 20.0, "c": 200.0, "x": 8.0, "y": 6.0})
    fast = pd.Series({"c": 100.0, "a": 1.0, "b": 10.0, "d": 7.0, "y": 3.0, "x": 4.0})
    found = paired_ratio(slow, fast)
    assert found is not None
    assert (found.n, found.median, found.low, found.high) == (5, 2.0, 2.0, 2.0)


def test_below_five_pairs_there_is_no_interval() -> None:
    found = paired_ratio(dict.fromkeys("abcd", 2.0), dict.fromkeys("abcd", 1.0))
    assert found is not None
    assert (found.n, found.median) == (4, 2.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.differs_from_one


def test_ratio_without_common_instances() -> None:
    assert paired_ratio({"a": 1.0}, {"b": 1.0}) is None


def test_ratio_of_one_pair_has_no_interval_and_proves_nothing() -> None:
    found = paired_ratio({"a": 3.0}, {"a": 1.0})
    assert found is not None
    assert math.isnan(found.low)
    assert not found.differs_from_one


def test_ratio_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        drift = rng.lognormal(0, 1.0, 40)
        a = pd.Series(3.0 * drift * rng.lognormal(0, 0.2, 40))
        found = paired_ratio(a, pd.Series(drift))
        assert found is not None
        covered += found.low <= 3.0 <= found.high
    # Binomial(200, 0.95) lies within [0.90, 0.99] with probability above 0.995.
    assert 0.90 <= covered / 200 <= 0.99


def test_ratio_is_the_same_every_time() -> None:
    rng = np.random.default_rng(2)
    a, b = pd.Series(rng.lognormal(size=30)), pd.Series(rng.lognormal(size=30))
    assert paired_ratio(a, b) == paired_ratio(a, b)


def test_power_law_is_recovered_exactly() -> None:
    found = fit_power({n: [2e-6 * n**1.7] * 3 for n in (10.0, 50.0, 100.0, 500.0)})
    assert found is not None
    assert found.exponent == pytest.approx(1.7, abs=1e-12)
    assert found.local == pytest.approx((1.7, 1.7, 1.7), abs=1e-12)
    assert found.trusted


def test_power_fit_equals_polyfit_on_mean_logs_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(3)
    data = {n: list(1e-6 * n**2 * rng.lognormal(0, 0.3, 25)) for n in (10.0, 30.0, 100.0)}
    found = fit_power(data)
    assert found is not None
    expected = np.polyfit(np.log(list(data)), [np.log(t).mean() for t in data.values()], 1)[0]
    assert found.exponent == pytest.approx(expected, rel=1e-10)
    assert found.low < found.exponent < found.high
    assert found.low <= 2.0 <= found.high


def test_power_fit_of_too_few_sizes() -> None:
    assert fit_power({10.0: [1.0, 2.0]}) is None
    assert fit_power({10.0: [1.0], 20.0: []}) is None
    two = fit_power({10.0: [1.0, 1.1], 20.0: [2.0, 2.1]})
    assert two is not None
    assert not two.trusted


def test_power_fit_shows_curvature_in_the_local_slopes() -> None:
    found = fit_power({n: [1e-2 + 1e-6 * n**2] * 2 for n in (10.0, 100.0, 1000.0)})
    assert found is not None
    assert found.local[0] < 0.5
    assert found.local[1] > 1.5


def test_performance_profile_by_hand() -> None:
    times = pd.DataFrame(
        {"a": [1.0, 4.0, np.nan, np.nan], "b": [2.0, 2.0, 3.0, np.nan]}, index=list("wxyz")
    )
    found = performance_profile(times)
    assert found["a"][0].tolist() == [1.0, 2.0]
    assert found["a"][1].tolist() == [0.25, 0.5]
    assert found["b"][0].tolist() == [1.0, 1.0, 2.0]
    assert found["b"][1].tolist() == [0.25, 0.5, 0.75]
