"""The experiment as a whole: files, going on after an interruption, failures, command, tables."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from places import ROOT

from bpqp_bench.cli.main import cli
from bpqp_bench.cli.task import render_task
from bpqp_bench.errors import ResultsError, SpecError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.runner.profiles import PROFILES
from bpqp_bench.runner.time_left import TimeLeft
from bpqp_bench.tasks.portfolio import experiment
from bpqp_bench.tasks.portfolio.config import (
    CONTROLS,
    METHODS,
    LearningSettings,
    PortfolioConfig,
    portfolio_configs,
)
from bpqp_bench.tasks.portfolio.data import DataError
from bpqp_bench.tasks.portfolio.evaluate import BASELINES
from bpqp_bench.tasks.portfolio.experiment import (
    plan_portfolio,
    reproduce_portfolio,
    run_portfolio,
)
from bpqp_bench.tasks.portfolio.metrics import METRICS, SERIES, summarize_series
from bpqp_bench.tasks.portfolio.results import (
    RESULTS,
    PortfolioFolder,
    load_json,
    load_results,
    load_series,
    summary_frame,
)
from bpqp_bench.tasks.task import find_task

CONFIG = PortfolioConfig(
    methods=("two-stage", "bpqp-fast", "dc3"),
    assets=6,
    seeds=2,
    learning=LearningSettings(hidden=8, epochs=2),
    train_days=6,
    valid_days=3,
    test_days=4,
    dc3_samples=10,
    dc3_epochs=1,
    gradient_days=1,
    speed_assets=(5,),
    speed_days=2,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    time_left = TimeLeft()
    results = run_portfolio(CONFIG, out, time_left=time_left)
    assert time_left.left() == 0.0
    return out, results


def lines(results):
    return [RESULTS.encode(result) for result in results]  # NaN equals NaN there


def test_every_method_and_seed_has_results_with_their_series(run):
    out, results = run
    folder = PortfolioFolder.of(out)
    assert [(r.name, r.seed, r.chosen_by, r.status) for r in results] == [
        *((name, 0, "", "ok") for name in BASELINES),
        *(
            (name, seed, choice, "ok")
            for seed in (0, 1)
            for name in CONFIG.methods
            for choice in ("ic", "regret")
        ),
    ]
    for result in results:
        assert set(METRICS) == set(result.metrics)
        series = pd.read_parquet(folder.series(result.id))
        assert set(series.columns) == set(SERIES)
        assert len(series) == CONFIG.test_days
        assert summarize_series(series)["regret"] == result.metrics["regret"]
        assert result.market["test"][2] == CONFIG.test_days
        if not result.chosen_by:
            assert not result.epochs
            continue
        assert [e["epoch"] for e in result.epochs] == [1, 2]
        parts = [result.timing[f"{p}_s"] for p in ("predictor", "forward", "backward", "other")]
        assert sum(parts) == pytest.approx(result.timing["epoch_s"])
        assert (result.timing["forward_s"] > 0) == (result.name != "two-stage")
        chosen = result.epochs[result.best_epoch - 1]
        if result.chosen_by == "ic":
            assert chosen["valid_ic"] == max(e["valid_ic"] for e in result.epochs)
        else:
            assert chosen["valid_regret"] == min(e["valid_regret"] for e in result.epochs)
    own = {r.name: r for r in results if r.seed == 0 and r.chosen_by == "ic"}
    assert own["bpqp-fast"].method.startswith("bpqp[")
    assert own["dc3"].timing["build_s"] > 0
    assert own["dc3"].statuses == {"approximate": 2 * 6 + 2 * 3 + 4}
    assert own["bpqp-fast"].statuses == {"solved": 2 * 6 + 4}
    assert not list(folder.path.glob("checkpoints/*"))


def test_summary_is_the_mean_over_seeds(run):
    out, results = run
    frame = pd.read_csv(PortfolioFolder.of(out).summary)
    frame = frame[frame["chosen_by"] == "regret"]
    row = frame[(frame["method"] == "bpqp-fast") & (frame["metric"] == "regret")].iloc[0]
    values = [
        r.metrics["regret"] for r in results if (r.name, r.chosen_by) == ("bpqp-fast", "regret")
    ]
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert row["n"] == 2
    times = frame[(frame["method"] == "bpqp-fast") & (frame["metric"] == "train_s")]
    assert times["mean"].iloc[0] > 0


def test_differences_gradients_and_step_times_are_kept(run):
    out, _ = run
    folder = PortfolioFolder.of(out)
    rows = load_json(folder.significance)
    assert {(row["name"], row["metric"]) for row in rows} >= {
        ("bpqp-fast", "regret"),
        ("bpqp-fast", "Sharpe"),
        ("dc3", "signal_regret"),
    }
    # bpqp, DC3's other, was not run.
    assert {row["baseline"] for row in rows} == {"two-stage", "minimum-variance"}
    assert {row["chosen_by"] for row in rows} == {"ic", "regret"}
    assert all(row["seeds"] == 2 for row in rows)
    gradients = {row["method"]: row for row in load_json(folder.gradients)}
    fast = Registry().method("bpqp-fast").key
    assert gradients[fast]["regret_one_minus_cos"] <= 1e-6
    assert math.isfinite(gradients["dc3"]["one_minus_cos"])
    speed = load_json(folder.speed)
    assert [(row["name"], row["assets"]) for row in speed] == [("bpqp-fast", 5)]


def test_what_is_there_is_not_run_again(run, monkeypatch):
    out, results = run

    def never(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(experiment, "train", never)
    assert lines(run_portfolio(CONFIG, out)) == lines(results)


def test_an_interrupted_run_goes_on_with_the_next_epoch(run, tmp_path):
    _, whole = run
    config = replace(CONFIG, methods=("two-stage",), speed_assets=(), gradient_days=0)

    class StopHereError(Exception):
        pass

    class Stopping(TimeLeft):
        def repeated(self, what, least_s=0.0):
            if what.endswith("seed 1, epoch 1"):
                raise StopHereError

    class Seen(TimeLeft):
        def spent(self, kind, seconds, *, counts=True):
            super().spent(kind, seconds, counts=counts)
            seen.append((kind, seconds))

    with pytest.raises(StopHereError):
        run_portfolio(config, tmp_path, time_left=Stopping())
    folder = PortfolioFolder.of(tmp_path)
    assert [r.seed for r in load_results(folder)] == [0] * 5
    assert len(list(folder.path.glob("checkpoints/*"))) == 1
    seen = []
    results = run_portfolio(config, tmp_path, time_left=Seen())
    # Seed 0 is not trained again.
    took = [(kind[-1], seconds) for kind, seconds in seen if kind[2] == "two-stage"]
    assert {seed for seed, _ in took} == {"1"}
    assert took[-1][1] >= results[-1].epochs[1]["seconds"]["total"]
    theirs = [r for r in whole if r.name == "two-stage" or r.name in BASELINES]
    for mine, other in zip(results, theirs, strict=True):
        assert mine.id == other.id
        assert mine.metrics == pytest.approx(other.metrics, nan_ok=True)


def test_other_settings_do_not_mix_into_a_folder(run):
    out, _ = run
    with pytest.raises(
        ResultsError, match="under another configuration or code; choose another --out"
    ):
        run_portfolio(replace(CONFIG, learning=replace(CONFIG.learning, beta=0.5)), out)


def test_results_of_another_code_do_not_mix_but_a_new_method_file_may_come(run, tmp_path):
    out, results = run
    # A user's further method changes nothing of what the folder holds.
    mine = (ROOT / "methods" / "exact.py").read_text(encoding="utf-8")
    mine = mine.replace('name = "exact"', 'name = "mine"').replace("exact-", "mine-")
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    registry = Registry((tmp_path,))
    assert "mine" in registry.methods
    assert lines(run_portfolio(CONFIG, out, registry)) == lines(results)
    # Its own results know its file.
    config = replace(CONFIG, methods=("mine",), seeds=1, speed_assets=(), gradient_days=0)
    run_portfolio(config, tmp_path / "run", registry)
    (tmp_path / "mine.py").write_text(mine + "# changed", encoding="utf-8")
    with pytest.raises(ResultsError, match="mine, seed 0 under another configuration or code"):
        run_portfolio(config, tmp_path / "run", Registry((tmp_path,)))


def test_results_of_another_machine_do_not_join(run, tmp_path):
    out, _ = run
    folder = PortfolioFolder.of(tmp_path)
    (environment,) = load_json(PortfolioFolder.of(out).environment)
    assert environment["threads"] == 1
    folder.path.mkdir()
    folder.environment.write_text(json.dumps([environment | {"cpu": "another"}]))
    with pytest.raises(ResultsError, match="begun on another machine"):
        run_portfolio(CONFIG, tmp_path)


def test_reproduce_says_what_it_could_not_run(tmp_path, monkeypatch):
    small = replace(CONFIG, methods=("two-stage",), seeds=1, speed_assets=(), gradient_days=0)

    def configs(profile):
        return small, replace(small, data="qlib", qlib_dir=str(tmp_path / "nowhere"))

    monkeypatch.setattr(experiment, "portfolio_configs", configs)
    time_left = TimeLeft()
    works = plan_portfolio(PROFILES[0], tmp_path, Registry())
    assert [work.kind[1:3] for work in works] == [
        *(("synthetic", "two-stage"), ("synthetic", "judge")),
        *(("qlib", "two-stage"), ("qlib", "judge")),
    ]
    time_left.plan(works)
    (problem,) = reproduce_portfolio(PROFILES[0], tmp_path, Registry(), time_left)
    assert time_left.left() == 0.0
    assert problem.startswith("portfolio, qlib: ")
    assert "is no Qlib data directory" in problem
    assert len(load_results(PortfolioFolder.of(tmp_path))) == len(BASELINES) + 2


def test_a_run_goes_on_after_a_cut_last_line(run, tmp_path):
    out, results = run
    folder = PortfolioFolder.of(tmp_path)
    shutil.copytree(PortfolioFolder.of(out).path, folder.path)
    whole = folder.results.read_bytes()
    folder.results.write_bytes(whole[:-100])
    assert lines(load_results(folder)) == lines(results[:-1])
    again = run_portfolio(CONFIG, tmp_path)
    assert [result.id for result in again] == [result.id for result in results]
    # The cut line is aside, and the lines after it can be read.
    assert lines(load_results(folder)) == lines(again)
    assert [file.name for file in folder.path.glob("*.cut")] == ["results.cut"]


def test_another_line_that_cannot_be_read_is_named(run, tmp_path):
    folder = PortfolioFolder(tmp_path)
    content = PortfolioFolder.of(run[0]).results.read_text(encoding="utf-8")
    folder.results.write_text('{"schema": 2}\n' + content, encoding="utf-8")
    with pytest.raises(ResultsError, match=r"results\.jsonl, line 1"):
        load_results(folder)


def test_results_of_the_first_schema_are_read(tmp_path):
    old = {"id": "a", "data": "synthetic", "method": "bpqp", "name": "bpqp", "label": "BPQP"}
    old |= {"seed": 0, "status": "ok", "metrics": {"regret": math.nan}, "schema": 1}
    folder = PortfolioFolder(tmp_path)
    folder.results.write_text(json.dumps(old) + "\n", encoding="utf-8")
    (result,) = load_results(folder)
    assert (result.chosen_by, result.schema) == ("ic", 2)


def test_a_method_that_cannot_is_a_result_with_its_cause(tmp_path):
    config = replace(
        CONFIG, methods=("two-stage", "jaxopt"), seeds=1, speed_assets=(), gradient_days=0
    )
    with pytest.MonkeyPatch.context() as patch:
        jax = pytest.importorskip("jax")
        patch.setattr(jax.config, "update", jax.config.update)
        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", False)
        try:
            *_, two, failed, also = run_portfolio(config, tmp_path)
        finally:
            jax.config.update("jax_enable_x64", before)
    assert (two.status, failed.status, also.status) == ("ok", "failed", "failed")
    assert "JAX_ENABLE_X64=1" in failed.cause
    assert set(summary_frame([two, failed])["method"]) == {"two-stage"}


def test_a_budget_makes_a_timeout(tmp_path):
    config = replace(
        CONFIG, methods=("two-stage",), seeds=1, speed_assets=(), gradient_days=0, budget_s=1e-6
    )
    *_, result = run_portfolio(config, tmp_path)
    assert result.status == "timeout"
    assert result.cause == "training ended after 1 of 2 epochs by the budget of 1e-06 s"


def test_unknown_names_fail_before_anything_is_computed(tmp_path):
    with pytest.raises(SpecError, match="unknown method 'nothing'"):
        run_portfolio(replace(CONFIG, methods=("two-stage", "nothing")), tmp_path)
    with pytest.raises(SpecError, match="data"):
        replace(CONFIG, data="moon")
    with pytest.raises(SpecError, match="once"):
        replace(CONFIG, methods=("two-stage", "two-stage"))
    with pytest.raises(DataError, match="not between 2 and 500"):
        run_portfolio(replace(CONFIG, assets=501), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_profiles_ask_for_controls_and_both_markets(profile):
    *controls, synthetic, sp500 = portfolio_configs(profile)
    assert tuple(control.data for control in controls) == CONTROLS
    assert all(control.seeds >= 5 for control in controls)
    assert (synthetic.data, sp500.data) == ("synthetic", "sp500")
    assert synthetic.assets == profile.portfolio_assets
    assert set(synthetic.methods) == set(METHODS)
    if profile.name != "smoke":
        assert synthetic.speed_assets == (100, 500)
        assert synthetic.assets >= 100
        assert synthetic.seeds >= 3


@pytest.mark.slow
def test_tables_and_figures_are_rendered(run):
    out, _ = run
    task = find_task("portfolio")
    written = {path.name: path for path in render_task(task, out, Registry())}
    four = written["table4.md"].read_text(encoding="utf-8")
    for text in (
        *("Two-Stage", "BPQP (ProxQP, direct)", "Synthetic factor market", "Regret (%)"),
        *("Equal weight", "Minimum variance (μ = 0)", "Oracle", "of it risk"),
        *("Epoch chosen by the IC", "Epoch chosen by the regret"),
    ):
        assert text in four
    assert "paper 0.650" in four
    (row,) = [line for line in four.splitlines() if line.startswith("| Equal weight")]
    assert "paper" not in row
    assert "**" not in row
    assert "DC3" in written["table6.md"].read_text(encoding="utf-8")
    tidy = pd.read_csv(written["table4.csv"])
    assert len(tidy) == 15
    assert {"portfolio-learning.svg", "portfolio-return.png"} <= set(written)


def test_series_are_read_with_their_names(run):
    out, results = run
    frame = load_series(PortfolioFolder.of(out), results)
    assert len(frame) == len(results) * CONFIG.test_days
    assert set(frame["name"]) == {*CONFIG.methods, *BASELINES}


def test_command(tmp_path):
    arguments = (
        "--assets 5 --seeds 1 --epochs 1 --train-days 4 --valid-days 2 --test-days 3 --hidden 8 "
        "--method two-stage --method bpqp-fast --gradient-days 1 --speed-days 2 --out"
    )
    done = CliRunner().invoke(cli, ["portfolio", *arguments.split(), str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Table 4: Portfolio" in done.output
    line = PortfolioFolder.of(tmp_path).results.read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["config"]["learning"]["hidden"] == 8
