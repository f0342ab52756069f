"""The day's problem, the learning loop, metrics, significance and gradients."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr

from bpqp_bench.errors import MethodError, ResultsError, SpecError
from bpqp_bench.layers.dc3 import Settings as DC3Settings
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.tasks.portfolio import problem
from bpqp_bench.tasks.portfolio.config import LearningSettings
from bpqp_bench.tasks.portfolio.control import control_market
from bpqp_bench.tasks.portfolio.covariance import CovarianceError
from bpqp_bench.tasks.portfolio.days import prepare_days
from bpqp_bench.tasks.portfolio.dc3 import DC3Choice, train_dc3
from bpqp_bench.tasks.portfolio.evaluate import evaluate, evaluate_baseline, exact
from bpqp_bench.tasks.portfolio.gradients import gradient_table
from bpqp_bench.tasks.portfolio.metrics import (
    correlation,
    max_drawdown,
    rank_correlation,
    sharpe,
    summarize_series,
)
from bpqp_bench.tasks.portfolio.model import initial_predictor
from bpqp_bench.tasks.portfolio.problem import (
    MeanVariance,
    exact_decision,
    optimum,
    portfolio_instance,
    simplex_projection,
)
from bpqp_bench.tasks.portfolio.significance import compare_series, differences, drawn_days
from bpqp_bench.tasks.portfolio.speed import measure_steps
from bpqp_bench.tasks.portfolio.step import decision_layer
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market
from bpqp_bench.tasks.portfolio.train import train

MARKET = SyntheticSettings(assets=8, features=24, train=10, valid=4, test=5, window=30)
LEARNING = LearningSettings(hidden=12, epochs=3, lr=1e-3)


@pytest.fixture(scope="module")
def market():
    return synthetic_market(MARKET)


@pytest.fixture(scope="module")
def days(market):
    return [prepare_days(market, part, LEARNING) for part in market.splits]


def layer_of(name, n=MARKET.assets):
    return decision_layer(Registry().method(name), n, LEARNING.gamma)


# The day's problem


def test_decision_against_a_general_purpose_solver():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((7, 7))
    at = MeanVariance(rng.standard_normal(7), root @ root.T + 0.1 * np.eye(7), 2.0)
    w = exact_decision(at)
    other = minimize(
        lambda v: -at.value(v),
        np.full(7, 1 / 7),
        jac=lambda v: at.gamma * at.sigma @ v - at.mu,
        bounds=[(0, None)] * 7,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert at.value(w) >= -other.fun - 1e-10
    np.testing.assert_allclose(w, other.x, atol=1e-5)
    assert w.sum() == pytest.approx(1.0, abs=1e-12)
    assert w.min() >= -1e-12


def test_quick_decisions_are_the_certified_ones(market, monkeypatch):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(problem, "optimum", None)  # no guess of the held assets may cycle here
    for spread in (0.0, 0.1, 1.0, 30.0):
        for t in market.splits.train:
            day = MeanVariance(spread * rng.standard_normal(8), market.day(t).sigma, 1.0)
            np.testing.assert_allclose(exact_decision(day), optimum(day), atol=1e-13)


def test_decisions_whose_guesses_cycle_are_certified(monkeypatch):
    monkeypatch.setattr(problem, "_CORRECTIONS", 1)
    day = MeanVariance(np.array([1.0, 0.0, -9.0]), np.diag([1.0, 2.0, 4.0]), 1.0)
    np.testing.assert_allclose(exact_decision(day), optimum(day), atol=1e-15)


def test_the_oracle_asks_no_method_under_test(market, monkeypatch):
    import bpqp_bench.layers.qp_solvers as layers

    def never(*args, **options):
        raise AssertionError("a layer decided")

    monkeypatch.setattr(layers, "solve_qp", never)
    (day,) = prepare_days(market, [market.splits.test.start], LEARNING)
    assert evaluate_baseline("oracle", [day])["signal_regret"].iloc[0] == 0.0


def test_decision_in_closed_form():
    # Without predictions and correlations weights go with the inverse variances.
    variances = np.array([1.0, 2.0, 4.0])
    w = exact_decision(MeanVariance(np.zeros(3), np.diag(variances), 1.0))
    np.testing.assert_allclose(w, (1 / variances) / (1 / variances).sum(), atol=1e-10)


def test_projection_on_the_simplex():
    rng = np.random.default_rng(0)
    for w in (rng.standard_normal(6), np.array([0.2, 0.3, 0.5]), np.array([-1.0, 3.0])):
        # The projection is the decision for μ = w, Σ = I, γ = 1.
        expected = exact_decision(MeanVariance(w, np.eye(len(w)), 1.0))
        np.testing.assert_allclose(simplex_projection(w), expected, atol=1e-9)


def test_an_answer_that_is_no_portfolio_is_valued_as_the_nearest(days):
    predictor = initial_predictor(MARKET.features, 12, 2, 0)

    def short(mu, day):
        return np.array([2.0, -1.0, *np.zeros(len(mu) - 2)])

    series = evaluate(predictor, days[2], short)
    assert (series["violation"] == 1.0).all()
    assert series["ret"].iloc[0] == days[2][0].day.returns[0]
    assert (series["regret"] >= 0).all()


def test_problems_without_a_unique_portfolio_are_refused():
    with pytest.raises(CovarianceError, match="gamma"):
        portfolio_instance(np.zeros(2), np.eye(2), 0.0)
    with pytest.raises(CovarianceError, match="diagonal"):
        portfolio_instance(np.zeros(2), np.diag([1.0, 0.0]), 1.0)


# Learning


def test_labels_and_hindsight(days):
    for day in days[0]:
        r = day.day.returns * 100
        assert float(day.label.mean()) == pytest.approx(0.0, abs=1e-12)
        assert correlation(day.label.numpy(), r) > 0.9
        for w in (np.full(len(r), 1 / len(r)), np.eye(len(r))[3], exact_decision(day.realized)):
            assert day.realized.value(w) <= day.best + 1e-9


def test_label_as_zscore(market):
    day = prepare_days(market, [35], replace(LEARNING, label="zscore"))[0]
    label = day.label.numpy()
    spread = np.median(np.abs(label - np.median(label))) * 1.4826
    assert spread == pytest.approx(1.0)
    with pytest.raises(SpecError, match="label"):
        replace(LEARNING, label="rank")


def test_all_methods_of_a_seed_begin_with_the_same_weights():
    before = torch.get_rng_state()
    one, two, other = (initial_predictor(5, 4, 2, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.network[0].weight, other.network[0].weight)


def test_two_stage_and_end_to_end_differ_only_by_the_regret(days):
    two = train(LEARNING, 0, days[0], days[1])
    nothing = train(replace(LEARNING, beta=0.0), 0, days[0], days[1], layer=layer_of("bpqp-fast"))
    own = train(replace(LEARNING, beta=5.0), 0, days[0], days[1], layer=layer_of("bpqp-fast"))
    assert [r.train_mse for r in nothing.records] == [r.train_mse for r in two.records]
    assert all(np.isnan(r.train_regret) for r in two.records)
    # Learning from regret lowers it on the days learned from.
    assert own.records[-1].train_regret < own.records[0].train_regret
    assert own.records[-1].train_regret < nothing.records[-1].train_regret
    seconds = own.records[-1].seconds
    parts = [seconds[k] for k in ("predictor", "forward", "backward", "other")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(seconds["total"])


def test_exact_layers_learn_the_same(days):
    fast, paper = (
        train(LEARNING, 0, days[0], days[1], layer=layer_of(name)) for name in ("bpqp-fast", "bpqp")
    )
    for a, b in zip(fast.records, paper.records, strict=True):
        assert a.train_regret == pytest.approx(b.train_regret, rel=1e-5)


def test_resumed_training_equals_uninterrupted(days, tmp_path):
    whole = train(LEARNING, 1, days[0], days[1], layer=layer_of("bpqp-fast"))
    path = tmp_path / "there" / "run.pt"
    train(replace(LEARNING, epochs=1), 1, *days[:2], layer=layer_of("bpqp-fast"), checkpoint=path)
    seen = []
    resumed = train(
        LEARNING,
        1,
        *days[:2],
        layer=layer_of("bpqp-fast"),
        checkpoint=path,
        progress=lambda record: seen.append(record.epoch),
    )
    assert seen == [1, 2, 3]
    for a, b in zip(whole.records, resumed.records, strict=True):
        assert replace(a, seconds={}) == replace(b, seconds={})
    for choice, predictor in whole.predictors.items():
        other = resumed.predictors[choice].parameters()
        for a, b in zip(predictor.parameters(), other, strict=True):
            assert torch.equal(a, b)
    path.write_bytes(b"half a file")
    with pytest.raises(ResultsError, match="delete it to train anew"):
        train(LEARNING, 1, *days[:2], checkpoint=path)


def test_early_stopping_keeps_the_best_epoch_by_each_criterion(days):
    settings = replace(LEARNING, epochs=12, patience=2, lr=0.05)
    trained = train(settings, 0, days[0], days[1])
    ics = [r.valid_ic for r in trained.records]
    regrets = [r.valid_regret for r in trained.records]
    best = trained.best_epochs
    assert best == {"ic": 1 + int(np.argmax(ics)), "regret": 1 + int(np.argmin(regrets))}
    assert trained.stopped == "patience"
    assert max(best.values()) == len(ics) - 2
    of = {name: evaluate(trained.predictors[name], days[1], exact) for name in best}
    assert of["ic"]["ic"].mean() == pytest.approx(max(ics), abs=1e-12)
    assert of["regret"]["regret"].mean() == pytest.approx(min(regrets), abs=1e-9)


def test_end_to_end_turns_the_slope_that_least_squares_gets_wrong():
    market = control_market(False, 20, 60, 30, 30)
    settings = LearningSettings(layers=0, lr=0.02, epochs=4)
    parts = [prepare_days(market, part, settings) for part in market.splits]
    layer = decision_layer(Registry().method("bpqp-fast"), 20, 1.0)
    two, own = (train(settings, 0, *parts[:2], layer=one) for one in (None, layer))
    slopes = [float(t.predictors["regret"].network[0].weight.detach()) for t in (two, own)]
    assert slopes[0] < 0 < slopes[1]
    regret = [
        evaluate(t.predictors["regret"], parts[2], exact)["signal_regret"].mean()
        for t in (two, own)
    ]
    assert regret[1] < regret[0] - 0.1


def test_a_budget_ends_training_between_epochs(days):
    trained = train(LEARNING, 0, days[0], days[1], budget_s=1e-9)
    assert (trained.stopped, len(trained.records)) == ("budget", 1)


def test_settings_and_data_that_cannot_be_trained_on(days):
    for wrong in ({"gamma": 0.0}, {"epochs": 0}, {"lr": 0.0}, {"beta": -1.0}):
        with pytest.raises(SpecError):
            replace(LEARNING, **wrong)
    broken = replace(days[0][0], label=torch.full_like(days[0][0].label, float("nan")))
    with pytest.raises(MethodError, match="loss of 2008-02-12 is not finite"):
        train(LEARNING, 0, [broken], days[1])


# Judging


def test_evaluation_by_hand(days):
    predictor = initial_predictor(MARKET.features, 12, 2, 0)
    series = evaluate(predictor, days[2], lambda mu, day: np.eye(len(mu))[int(mu.argmax())])
    day = days[2][1]
    with torch.no_grad():
        mu = predictor(day.features).numpy()
    r, best = day.day.returns, int(mu.argmax())
    row = series.iloc[1]
    assert row["ret"] == r[best]
    assert row["excess"] == pytest.approx(r[best] - r.mean())
    assert row["ic"] == pytest.approx(np.corrcoef(mu, r)[0, 1])
    assert row["rank_ic"] == pytest.approx(spearmanr(mu, r).statistic)
    assert row["mse"] == pytest.approx(np.mean((mu - day.label.numpy()) ** 2))
    value = 100 * r[best] - 0.5 * day.sigma[best, best]
    assert row["regret"] == pytest.approx(day.best - value)
    hindsight = exact_decision(day.realized)
    assert row["regret_return"] == pytest.approx(100 * (r @ hindsight - r[best]))
    assert row["regret_risk"] == pytest.approx(
        0.5 * (day.sigma[best, best] - hindsight @ day.sigma @ hindsight)
    )
    assert (series["regret"] >= 0).all()
    assert (series["signal_regret"] >= 0).all()
    assert row["holdings"] == 1
    changed = [int(m) for m in series["turnover"].dropna().round()]
    assert set(changed) <= {0, 1}


def test_decisions_that_learn_nothing(days):
    found = {
        name: evaluate_baseline(name, days[2])
        for name in ("equal-weight", "minimum-variance", "oracle")
    }
    assert (found["equal-weight"]["excess"] == 0).all()
    assert (found["minimum-variance"]["regret_risk"] <= 0).all()  # nobody takes less risk
    assert (found["equal-weight"]["regret_risk"] > found["minimum-variance"]["regret_risk"]).all()
    # Nobody beats the oracle on expectation.
    assert (found["oracle"]["signal_regret"] == 0).all()
    predictor = initial_predictor(MARKET.features, 12, 2, 0)
    assert (evaluate(predictor, days[2], exact)["signal_regret"] > 0).all()
    for series in found.values():
        assert series[["ic", "rank_ic", "mse"]].isna().all(axis=None)
        np.testing.assert_allclose(
            series["regret"], series["regret_return"] + series["regret_risk"]
        )
    unknown = [replace(day, day=replace(day.day, signal=None)) for day in days[2]]
    with pytest.raises(MethodError, match="does not reveal"):
        evaluate_baseline("oracle", unknown)


def test_metrics_by_hand():
    excess = np.array([0.01, -0.02, 0.005, -0.01, 0.03])
    assert max_drawdown(excess) == pytest.approx(2.5)
    assert max_drawdown(np.array([-0.01, 0.02])) == pytest.approx(1.0)
    assert sharpe(excess) == pytest.approx(excess.mean() / excess.std(ddof=1) * np.sqrt(240))
    assert np.isnan(sharpe(np.zeros(3)))
    assert correlation(np.ones(3), np.arange(3.0)) == 0.0
    assert rank_correlation(np.array([1.0, 2, 9]), np.array([0.0, 5, 6])) == pytest.approx(1.0)
    frame = pd.DataFrame(
        {
            "ic": [0.1, 0.3],
            "rank_ic": [0.0, 0.2],
            "mse": [1.0, 3.0],
            "excess": [0.01, -0.01],
            "regret": [1.0, 2.0],
            "regret_return": [2.0, 4.0],
            "regret_risk": [-1.0, -2.0],
            "signal_regret": [np.nan, np.nan],
            "holdings": [1, 3],
            "turnover": [np.nan, 0.5],
            "violation": [0.0, 0.0],
        }
    )
    found = summarize_series(frame)
    assert found["ICIR"] == pytest.approx(0.2 / np.std([0.1, 0.3], ddof=1))
    assert found["AnnRet_pct"] == 0.0
    assert found["regret"] == 1.5
    assert found["regret_risk"] == -1.5
    assert found["turnover"] == 0.5
    assert np.isnan(found["signal_regret"])


def test_blocks_of_the_bootstrap():
    drawn = drawn_days(10, 4, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 10)
    steps = np.diff(drawn, axis=1) % 10
    assert (steps[:, [0, 1, 2, 4, 5, 6, 8]] == 1).all()  # within blocks, around the end
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert np.abs(counts / 500 - 1.0).max() < 0.2


def test_significance_finds_differences_and_no_others():
    rng = np.random.default_rng(0)
    own = rng.standard_normal((2, 300))
    assert compare_series("regret", own, own).verdict == "no difference"
    # Common noise cancels: a small shift of every day is seen although each series is noisy.
    shifted = compare_series("regret", own - 0.01 + 0.001 * rng.standard_normal((2, 300)), own)
    assert shifted.verdict == "better"
    assert shifted.low < shifted.difference < shifted.high < 0
    assert compare_series("Sharpe", own - 0.5, own).verdict == "worse"
    with pytest.raises(ValueError, match="not paired"):
        compare_series("regret", own, own[:, :-1])


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(2)
    noise = 0.1 * rng.standard_normal((5, 200))
    shift = np.array([-1.0, -0.5, 0.0, 0.4, 0.8])[:, None]
    alike = compare_series("regret", noise, np.zeros((5, 200)))
    apart = compare_series("regret", noise + shift, np.zeros((5, 200)))
    assert apart.high - apart.low > 5 * (alike.high - alike.low)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * shift.std() / np.sqrt(5), rel=0.15)


def test_no_interval_below_five_days():
    found = compare_series("regret", np.ones((3, 4)), np.zeros((3, 4)))
    assert (found.difference, found.verdict) == (1.0, "no difference")
    assert np.isnan(found.low)


def test_what_has_no_seeds_is_compared_with_every_seed():
    days = pd.date_range("2020-01-01", periods=6).to_numpy()
    value = dict.fromkeys(("regret", "regret_return", "regret_risk"), 1.0)
    value["excess"] = np.arange(6.0)
    frame = pd.concat(
        pd.DataFrame({"date": days, "name": name, "method": name, "seed": seed} | value).assign(
            chosen_by=choice, signal_regret=np.nan, ic=np.nan, regret=level + seed
        )
        for name, seed, choice, level in (
            ("two-stage", 0, "ic", 3.0),
            ("two-stage", 1, "ic", 3.0),
            ("two-stage", 2, "regret", 9.0),
            ("minimum-variance", 0, "", 5.0),
        )
    )
    rows = list(differences(frame, [("two-stage", "minimum-variance"), ("dc3", "bpqp")]))
    found = {row["chosen_by"]: row for row in rows if row["metric"] == "regret"}
    assert (found["ic"]["difference"], found["ic"]["seeds"]) == (-1.5, 2)
    assert (found["regret"]["difference"], found["regret"]["verdict"]) == (6.0, "worse")
    assert not {"IC", "signal_regret"} & {row["metric"] for row in rows}


def test_interval_covers_the_truth():
    # Daily differences that are correlated over time: blocks must widen the interval.
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        noise = rng.standard_normal(405)
        daily = (noise[:-5] + noise[1:-4] + noise[2:-3])[:400]
        found = compare_series("regret", daily[None], np.zeros((1, 400)), resamples=199)
        inside += found.low <= 0 <= found.high
    assert inside >= 85


# Gradients


def test_gradient_of_the_loss_through_every_layer(market, days):
    registry = Registry()
    names = ["bpqp", "bpqp-fast", "exact-solve", "qpth", "altdiff", "altdiff-paper"]
    choices = [(name, registry.method(name)) for name in names]
    settings = DC3Settings(samples=4, epochs=0)
    choices.append(("dc3", DC3Choice(train_dc3(market, LEARNING.gamma, settings))))
    rows = pd.DataFrame(gradient_table(choices, days[0][:2], beta=0.1))
    assert (rows["cause"] == "").all()
    assert (rows["holdings"] >= 3).all()
    rows = rows.groupby("method")
    for name in names[:5]:
        found = rows.get_group(name)
        assert (found["one_minus_cos"] <= 1e-6).all(), name
        assert (found["regret_one_minus_cos"] <= 1e-6).all(), name
    # An untrained network has no right gradient; the check must see it.
    assert (rows.get_group("dc3")["regret_one_minus_cos"] > 0.05).all()


def test_a_layer_that_fails_is_a_row_with_its_cause(days):
    rows = gradient_table([("dc3", Registry().method("dc3"))], days[0][:1])
    assert "fixed=true" in rows[0]["cause"]
    assert np.isnan(rows[0]["one_minus_cos"])


# DC3


def test_dc3_learns_to_decide(market):
    trained, untrained = (
        train_dc3(market, 1.0, DC3Settings(samples=400, epochs=epochs, lr=3e-3, dropout=0.0))
        for epochs in (20, 0)
    )
    rng = np.random.default_rng(5)
    day = market.day(market.splits.test.start)
    values = {"trained": 0.0, "untrained": 0.0, "exact": 0.0}
    for _ in range(20):
        problem = MeanVariance(0.3 * rng.standard_normal(8), day.sigma, 1.0)
        q = torch.from_numpy(-problem.mu)
        with torch.no_grad():
            answers = {"trained": trained(q).numpy(), "untrained": untrained(q).numpy()}
        answers["exact"] = exact_decision(problem)
        for name, w in answers.items():
            assert w.sum() == pytest.approx(1.0)
            values[name] += problem.value(w) - 10 * np.square(np.minimum(w, 0)).sum()
    assert values["untrained"] < values["trained"] < values["exact"]


def test_dc3_says_no_to_assets_that_change(market):
    broken = market.features.copy()
    broken[market.splits.train.start, 0] = np.nan
    with pytest.raises(MethodError, match="the assets change by day"):
        train_dc3(replace(market, features=broken), 1.0, DC3Settings(samples=2, epochs=0))


# Step times


def test_training_steps_are_timed_in_pairs():
    registry = Registry()
    choices = [
        (n, registry.method(n).key, registry.method(n)) for n in ("bpqp", "bpqp-fast", "dc3")
    ]
    rows = measure_steps(choices, 6, 5, LEARNING, features=24)
    bpqp, fast, dc3 = rows
    assert bpqp["step_ratio"]["median"] == 1.0
    assert fast["layer_ratio"]["low"] <= fast["layer_ratio"]["high"]
    for row in (bpqp, fast):
        assert row["step_s"] > row["forward_s"] + row["backward_s"] > 0
        assert row["forward_s"] > row["forward_solver_s"] > 0
    assert "fixed=true" in dc3["cause"]
    assert set(asdict(LEARNING)) >= {"gamma", "beta"}
