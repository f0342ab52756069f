"""The whole experiment from one configuration: markets, methods, seeds, results on disk."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bpqp_bench.errors import BenchError, MethodError, ResultsError
from bpqp_bench.layers.dc3 import Settings as DC3Settings
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Array
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.runner.time_left import Kind, TimeLeft, Work
from bpqp_bench.tasks.portfolio.config import (
    TWO_STAGE,
    PortfolioConfig,
    planned_work,
    portfolio_configs,
)
from bpqp_bench.tasks.portfolio.data import DataError, Market
from bpqp_bench.tasks.portfolio.dc3 import DC3Choice, train_dc3
from bpqp_bench.tasks.portfolio.gradients import gradient_table
from bpqp_bench.tasks.portfolio.metrics import summarize_series
from bpqp_bench.tasks.portfolio.problem import portfolio_instance
from bpqp_bench.tasks.portfolio.results import (
    PortfolioFolder,
    RunResult,
    load_json,
    load_results,
    load_series,
    write_json_file,
    write_summary,
)
from bpqp_bench.tasks.portfolio.significance import STATISTICS, Difference, compare_series
from bpqp_bench.tasks.portfolio.speed import measure_steps
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market
from bpqp_bench.tasks.portfolio.train import (
    EpochRecord,
    PreparedDay,
    Trained,
    evaluate,
    exact,
    prepare_days,
    train,
)

__all__ = ["plan_portfolio", "reproduce_portfolio", "run_portfolio"]

_OWN = (TWO_STAGE, "dc3")  # not taken from the registry
_DC3_RATE = 1e-3


def run_portfolio(
    config: PortfolioConfig,
    out: Path,
    time_left: TimeLeft | None = None,
    registry: Registry | None = None,
) -> list[RunResult]:
    """Run what is not yet there, and judge.

    Parameters
    ----------
    config
        What to run. Results are keyed by content: a call with the same configuration goes on where
        the last one ended, by epoch; a call with further methods, seeds or another market adds to
        the folder.
    out
        Run directory; files go to its folder ``portfolio``.
    time_left
        Told what is going on, and keeps account of what is left.
    registry
        Where methods are looked up; the built-in plug-ins by default.

    Returns
    -------
    list of RunResult
        The results of this configuration, failed ones included.

    Raises
    ------
    DataError
        If the data are missing or unusable.
    SpecError
        If a method does not exist.
    ResultsError
        If the folder holds results of the same market, method and seed under other settings.
    """
    run = _Run(config, PortfolioFolder.of(out), time_left or TimeLeft(), registry or Registry())
    with _threads(config.threads):
        return run.execute()


def plan_portfolio(
    profile: Profile, out: Path, time_left: TimeLeft, registry: Registry | None = None
) -> None:
    """Plan everything that a profile asks for and that is not yet in ``out``."""
    for config in portfolio_configs(profile):
        run = _Run(config, PortfolioFolder.of(out), time_left, registry or Registry())
        time_left.plan(run.remaining())


def reproduce_portfolio(
    profile: Profile,
    out: Path,
    time_left: TimeLeft | None = None,
    registry: Registry | None = None,
) -> list[str]:
    """Run everything that a profile asks for; what `reproduce` calls.

    Returns
    -------
    list of str
        One sentence for each market that could not be run because its data are not here. A
        training that fails is a result, with its cause, and not among them.
    """
    problems: list[str] = []
    for config in portfolio_configs(profile):
        try:
            run_portfolio(config, out, time_left, registry)
        except DataError as error:
            problems.append(f"portfolio, {config.data}: {error}")
            if time_left is not None:
                time_left.drop(work.kind for work in planned_work(config))
    return problems


@dataclass(frozen=True, eq=False)
class _Run:
    config: PortfolioConfig
    folder: PortfolioFolder
    time_left: TimeLeft
    registry: Registry

    @cached_property
    def identities(self) -> dict[tuple[str, int], str]:
        """Of every training that is asked for, by name and seed, in order."""
        config = self.config
        return {
            (name, seed): config.identity(self.key(name), seed)
            for seed in range(config.seeds)
            for name in config.methods
        }

    def known(self) -> dict[str, RunResult]:
        """Results that the folder holds; one that failed is tried again."""
        return {r.id: r for r in load_results(self.folder) if r.status != "failed"}

    def remaining(self) -> list[Work]:
        """Work that the folder lacks."""
        data, known = self.config.data, self.known()
        pairs = {pair for pair, identity in self.identities.items() if identity not in known}
        keys = {row["method"] for row in load_json(self.folder.gradients) if row["data"] == data}
        sizes = {row["assets"] for row in load_json(self.folder.speed)}
        unchecked = {name for name in self.config.methods if self.key(name) not in keys}
        checks = bool(self.config.gradient_days and unchecked - {TWO_STAGE})

        def missing(work: Work) -> bool:
            what, _, method, assets, seed = work.kind
            match what:
                case "data":
                    return bool(pairs) or checks
                case "network":
                    return method in unchecked or any(method == n for n, _ in pairs)
                case "gradient":
                    return method in unchecked
                case "speed":
                    return int(assets) not in sizes
                case "build" | "epoch" | "test":
                    return (method, int(seed)) in pairs
            return True

        return [work for work in planned_work(self.config) if missing(work)]

    def running(
        self, kind: str, what: str, name: str = "", seed: int = 0, assets: int = 0
    ) -> AbstractContextManager[None]:
        """Keep account of a part while it is done."""
        wanted = self.kind(kind, name, seed, assets)
        work = next(work for work in planned_work(self.config) if work.kind == wanted)
        return self.time_left.running(work, f"{self.config.data}: {what}")

    def kind(self, kind: str, name: str = "", seed: int = 0, assets: int = 0) -> Kind:
        """Identity of a planned part."""
        return (kind, self.config.data, name, str(assets or self.config.assets), str(seed))

    def execute(self) -> list[RunResult]:
        config = self.config
        for name in config.methods:
            self.key(name)  # an unknown name fails before anything is computed
        self.refuse_other()
        known = self.known()
        self.time_left.plan(self.remaining())
        done = dict(known)
        for (name, seed), identity in self.identities.items():
            if identity in known:
                continue
            result, series = self.one(name, seed, identity)
            if series is not None:
                path = self.folder.series(identity)
                path.parent.mkdir(parents=True, exist_ok=True)
                series.to_parquet(path, index=False)
            self.folder.append(result)
            done[identity] = result
            self.folder.checkpoint(identity).unlink(missing_ok=True)
            self.time_left.drop(
                [self.kind(kind, name, seed) for kind in ("build", "epoch", "test")]
            )
        self.judge()
        return [done[identity] for identity in self.identities.values()]

    def record_machine(self) -> None:
        """Say what the times were measured on; times of another machine do not join them."""
        from bpqp_bench.results.compare import different_machines  # noqa: PLC0415 - scipy, pandas
        from bpqp_bench.results.environment import describe_environment  # noqa: PLC0415
        from bpqp_bench.runner.memory_limit import total_memory  # noqa: PLC0415

        own = describe_environment((), (self.config.threads,), total_memory())
        methods = [self.registry.method(n) for n in self.config.methods if n not in _OWN]
        for name in ("torch", "skfolio", "pyqlib", *(r for m in methods for r in m.cls.requires)):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                own["versions"][name] = importlib.metadata.version(name)
        stored = load_json(self.folder.environment)
        if not stored:
            write_json_file(self.folder.environment, [own])
        elif differences := different_machines(stored[0], own):
            raise ResultsError(
                f"{self.folder.path} was begun on another machine ({'; '.join(differences)}); "
                "choose another --out"
            )

    def refuse_other(self) -> None:
        mine: dict[tuple[str, str, int], str] = {
            (self.config.data, self.key(name), seed): identity
            for (name, seed), identity in self.identities.items()
        }
        for result in load_results(self.folder):
            other = mine.get((result.data, result.method, result.seed))
            if other is not None and other != result.id:
                raise ResultsError(
                    f"{self.folder.results} holds {result.data}, {result.name}, seed {result.seed} "
                    "under another configuration; choose another --out"
                )

    def key(self, name: str) -> str:
        if name in _OWN:
            return name
        return self.registry.method(name).key

    def label(self, name: str) -> str:
        if name == TWO_STAGE:
            return "Two-Stage"
        return "DC3" if name == "dc3" else self.registry.method(name).label

    @cached_property
    def market(self) -> Market:
        return make_market(self.config)

    @cached_property
    def days(self) -> tuple[list[PreparedDay], list[PreparedDay], list[PreparedDay]]:
        with self.running("data", "preparing data"):
            train_days, valid_days, test_days = (
                prepare_days(self.market, part, self.config.learning) for part in self.market.splits
            )
        return train_days, valid_days, test_days

    @cached_property
    def trained_dc3(self) -> tuple[Choice, float]:
        c = self.config
        self.days  # noqa: B018 - a part of its own
        start = datetime.datetime.now(datetime.UTC)
        # At the paper's rate of 1e-4 this many steps leave the network close to its random start.
        settings = DC3Settings(samples=c.dc3_samples, epochs=c.dc3_epochs, lr=_DC3_RATE)
        with self.running("network", "training DC3's network", "dc3"):
            choice = DC3Choice(train_dc3(self.market, c.learning.gamma, settings))
        return choice, (datetime.datetime.now(datetime.UTC) - start).total_seconds()

    def choice(self, name: str) -> Choice:
        return self.trained_dc3[0] if name == "dc3" else self.registry.method(name)

    def layer(self, name: str) -> MethodLayer | None:
        if name == TWO_STAGE:
            return None
        n = len(self.days[0][0].label)
        template = portfolio_instance(np.zeros(n), np.eye(n), self.config.learning.gamma)
        return MethodLayer(self.choice(name), template)

    def one(self, name: str, seed: int, identity: str) -> tuple[RunResult, pd.DataFrame | None]:
        config = self.config
        base = RunResult(
            id=identity,
            data=config.data,
            method=self.key(name),
            name=name,
            label=self.label(name),
            seed=seed,
            status="ok",
            config=json.loads(json.dumps(asdict(config))),
            at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        train_days, valid_days, test_days = self.days
        base = replace(base, market=self.market.describe())
        self.record_machine()
        what = f"{base.label}, seed {seed}"

        def tell(record: EpochRecord) -> None:
            least = record.seconds["total"]
            self.time_left.repeated(f"{config.data}: {what}, epoch {record.epoch}", least)

        try:
            if name == "dc3":
                self.trained_dc3  # noqa: B018 - a part of its own
            with self.running("build", what, name, seed):
                layer = self.layer(name)
                if layer is not None:
                    layer.warm_up()
            build_s = layer.take_times().build_s if layer is not None else 0.0
            # DC3 decides for itself also where others only differ by rounding.
            decide = _through(layer) if layer is not None and name == "dc3" else exact
            with self.running("epoch", what, name, seed):
                trained = train(
                    *(config.learning, seed, train_days, valid_days),
                    layer=layer,
                    decide=decide,
                    checkpoint=self.folder.checkpoint(identity),
                    progress=tell,
                    budget_s=config.budget_s,
                )
            with self.running("test", f"{what}, test days", name, seed):
                through = exact if layer is None else _through(layer)
                series = evaluate(trained.predictor, test_days, through)
        except (MethodError, BenchError) as error:
            if isinstance(error, (DataError, ResultsError)):
                raise
            return replace(base, status="failed", cause=str(error)), None
        timing = _timing(trained, len(train_days))
        timing["build_s"] = build_s + (self.trained_dc3[1] if name == "dc3" else 0.0)
        if layer is not None:
            decided = layer.take_times().forward[-len(test_days) :]
            timing["decide_s"] = sum(p.call for p in decided) / len(decided)
        over = trained.stopped == "budget"
        result = replace(
            base,
            status="timeout" if over else "ok",
            cause=(
                f"training ended after {len(trained.records)} of {config.learning.epochs} epochs "
                f"by the budget of {config.budget_s:g} s"
                if over
                else ""
            ),
            metrics=summarize_series(series),
            timing=timing,
            epochs=[asdict(record) for record in trained.records],
            best_epoch=trained.best_epoch,
            stopped=trained.stopped,
            statuses=dict(layer.statuses) if layer is not None else {},
        )
        return result, series

    def judge(self) -> None:
        config, folder = self.config, self.folder
        with self.running("judge", "judging"):
            results = load_results(folder)
            write_summary(folder, results)
            kept = [row for row in load_json(folder.significance) if row["data"] != config.data]
            mine = [result for result in results if result.data == config.data]
            write_json_file(folder.significance, kept + significance_rows(folder, mine))
        named = [(n, self.key(n)) for n in config.methods if n != TWO_STAGE]
        done = {(row["data"], row["method"]) for row in load_json(folder.gradients)}
        if config.gradient_days and any((config.data, key) not in done for _, key in named):
            rows = load_json(folder.gradients)
            for name, key in named:
                if (config.data, key) in done:
                    continue
                try:
                    choices = [(key, self.choice(name))]
                except (MethodError, BenchError) as error:
                    rows.append({"data": config.data, "method": key, "cause": str(error)})
                    continue
                days = self.days[0][:: max(len(self.days[0]) // config.gradient_days, 1)]
                with self.running("gradient", f"gradient of {name}", name):
                    found = gradient_table(
                        choices, days[: config.gradient_days], beta=config.learning.beta
                    )
                rows += [{"data": config.data} | row for row in found]
            write_json_file(folder.gradients, rows)
        self.speed()

    def speed(self) -> None:
        config, path = self.config, self.folder.speed
        rows = load_json(path)
        # DC3's network is of one market and size; its time is in the results.
        names = [n for n in config.speed_methods or config.methods if n not in _OWN]
        for assets in config.speed_assets:
            if any(row["assets"] == assets for row in rows) or not names:
                continue
            choices = [(n, self.key(n), self.registry.method(n)) for n in names]
            with self.running("speed", f"training steps at {assets} assets", assets=assets):
                rows += measure_steps(choices, assets, config.speed_days, config.learning)
            write_json_file(path, rows)


def make_market(config: PortfolioConfig) -> Market:
    """Make the market that a configuration names.

    Raises
    ------
    DataError
        If its data are missing or unusable.
    """
    if config.data == "synthetic":
        return synthetic_market(
            SyntheticSettings(
                assets=config.assets,
                train=config.train_days,
                valid=config.valid_days,
                test=config.test_days,
                seed=config.data_seed,
            )
        )
    train_days, valid_days, test_days = config.train_days, config.valid_days, config.test_days
    if config.data == "sp500":
        from bpqp_bench.tasks.portfolio.sp500 import PriceSettings, sp500_market  # noqa: PLC0415

        return sp500_market(
            PriceSettings(
                assets=config.assets,
                train_days=train_days,
                valid_days=valid_days,
                test_days=test_days,
            )
        )
    from bpqp_bench.tasks.portfolio.qlib_data import QlibSettings, qlib_market  # noqa: PLC0415

    return qlib_market(
        QlibSettings(
            config.qlib_dir,
            config.qlib_market,
            train_days=train_days,
            valid_days=valid_days,
            test_days=test_days,
        )
    )


def significance_rows(
    folder: PortfolioFolder, results: Sequence[RunResult]
) -> list[dict[str, Any]]:
    """Compare every method with two-stage, and DC3 with BPQP, on the seeds that both have."""
    complete = [result for result in results if result.status == "ok"]
    series = load_series(folder, complete)
    rows: list[dict[str, Any]] = []
    if series.empty:
        return rows
    for data, of_data in series.groupby("data", sort=False):
        by_name = {str(name): part for name, part in of_data.groupby("name", sort=False)}
        pairs = [(name, TWO_STAGE) for name in by_name if name != TWO_STAGE] + [("dc3", "bpqp")]
        for name, base in pairs:
            if name in by_name and base in by_name:
                own = by_name[name]
                named = {"method": own["method"].iloc[0], "name": name, "baseline": base}
                rows += [
                    {"data": data} | named | asdict(found)
                    for found in _differences(own, by_name[base])
                ]
    return rows


def _differences(own: pd.DataFrame, base: pd.DataFrame) -> Iterator[Difference]:
    """Compare two methods in every statistic that both have on all days."""
    seeds = sorted(set(own["seed"]) & set(base["seed"]))
    for metric, statistic in STATISTICS.items() if seeds else ():
        mine, other = (
            np.stack(
                [part[part["seed"] == seed].sort_values("date")[statistic.column] for seed in seeds]
            )
            for part in (own, base)
        )
        if np.isfinite(mine).all() and np.isfinite(other).all():
            yield compare_series(metric, mine, other)


def _through(layer: MethodLayer) -> Callable[[Array, PreparedDay], Array]:
    def decide(mu: Array, day: PreparedDay) -> Array:
        with torch.no_grad():
            return np.asarray(layer(q=-mu, P=day.gamma * day.sigma).numpy())

    return decide


def _timing(trained: Trained, days: int) -> dict[str, float]:
    names = {
        "epoch_s": "total",
        "predictor_s": "predictor",
        "forward_s": "forward",
        "backward_s": "backward",
        "forward_solver_s": "forward_solver",
        "backward_solver_s": "backward_solver",
        "other_s": "other",
    }
    timing = {
        name: float(np.mean([record.seconds[source] for record in trained.records]))
        for name, source in names.items()
    }
    return timing | {"days": float(days), "epochs": float(len(trained.records))}


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)
