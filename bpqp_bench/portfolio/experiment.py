"""The whole experiment from one configuration: markets, methods, seeds, results on disk."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from bpqp_bench.contract import MethodError
from bpqp_bench.errors import BenchError, ResultsError, SpecError
from bpqp_bench.instance import Array
from bpqp_bench.layers.dc3 import Settings as DC3Settings
from bpqp_bench.plan import Plan
from bpqp_bench.portfolio.data import DataError, Market
from bpqp_bench.portfolio.dc3 import DC3Choice, train_dc3
from bpqp_bench.portfolio.gradients import gradient_table
from bpqp_bench.portfolio.metrics import summarize_series
from bpqp_bench.portfolio.problem import portfolio_instance
from bpqp_bench.portfolio.results import (
    PortfolioFolder,
    RunResult,
    load_json,
    load_results,
    load_series,
    write_json_file,
    write_summary,
)
from bpqp_bench.portfolio.significance import STATISTICS, Difference, compare_series
from bpqp_bench.portfolio.speed import measure_steps
from bpqp_bench.portfolio.synthetic import SyntheticSettings, synthetic_market
from bpqp_bench.portfolio.train import (
    EpochRecord,
    LearningSettings,
    PreparedDay,
    Trained,
    evaluate,
    exact,
    prepare_days,
    train,
)
from bpqp_bench.profiles import Profile
from bpqp_bench.registry import Registry
from bpqp_bench.torch_layer import Choice, MethodLayer

__all__ = [
    "METHODS",
    "TWO_STAGE",
    "PortfolioConfig",
    "Progress",
    "portfolio_configs",
    "reproduce_portfolio",
    "run_portfolio",
]

TWO_STAGE = "two-stage"
_OWN = (TWO_STAGE, "dc3")  # not taken from the registry
# altdiff-vjp: Alt-Diff's gradient without the Jacobian, an order of magnitude faster at 100 assets.
METHODS = (TWO_STAGE, "bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "dc3")
_STEPS = ("bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "altdiff")
Data = Literal["synthetic", "sp500", "qlib"]
Progress = Callable[[str, int, int], None]  # what is going on, epochs done, epochs in all
_DC3_RATE = 1e-3
_VERSION = 1  # of everything that changes results; part of their identity


@dataclass(frozen=True)
class PortfolioConfig:
    """One experiment on one market.

    Attributes
    ----------
    data
        "synthetic", "sp500" or "qlib".
    methods
        Names: "two-stage", "dc3", or methods of the benchmark.
    assets
        Of the synthetic market; of the others at most so many, 0 for all.
    seeds
        Number of repetitions, seeds 0, 1, ….
    learning
        Settings of the training.
    train_days, valid_days, test_days
        Of the synthetic market. Of real data only the last so many training days and the first so
        many of validation and test are used, 0 for all.
    data_seed
        Seed of the synthetic market.
    qlib_dir, qlib_market
        Local data directory of Qlib, and its set of instruments.
    dc3_samples, dc3_epochs
        Training of DC3's network.
    gradient_days
        Days on which every layer's gradient is checked; 0 for none.
    speed_assets, speed_days
        Numbers of assets at which training steps are timed against each other, and how many days.
    speed_methods
        Which methods are; empty for all of ``methods``.
    budget_s
        A training of one method and seed ends after the epoch in which it exceeds this.
    threads
        Of BLAS and torch, while the experiment runs.
    """

    data: Data = "synthetic"
    methods: tuple[str, ...] = METHODS
    assets: int = 100
    seeds: int = 3
    learning: LearningSettings = field(default_factory=LearningSettings)
    train_days: int = 500
    valid_days: int = 120
    test_days: int = 480
    data_seed: int = 0
    qlib_dir: str = ""
    qlib_market: str = "csi500"
    dc3_samples: int = 2000
    dc3_epochs: int = 100
    gradient_days: int = 2
    speed_assets: tuple[int, ...] = ()
    speed_days: int = 10
    speed_methods: tuple[str, ...] = ()
    budget_s: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.data not in ("synthetic", "sp500", "qlib"):
            raise SpecError(f"data {self.data!r} is not synthetic, sp500 or qlib")
        if self.seeds < 1 or self.threads < 1:
            raise SpecError("seeds and threads must be at least 1")
        if len(set(self.methods)) != len(self.methods) or not self.methods:
            raise SpecError("methods must be at least one, each named once")

    def identity(self, method: str, seed: int) -> str:
        """Content key of one result: all that changes it, and nothing else."""
        content = asdict(self)
        for name in (
            "methods",
            "seeds",
            "gradient_days",
            "speed_assets",
            "speed_days",
            "speed_methods",
        ):
            del content[name]
        if method != "dc3":
            del content["dc3_samples"], content["dc3_epochs"]
        text = json.dumps([_VERSION, content, method, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def portfolio_configs(profile: Profile) -> tuple[PortfolioConfig, ...]:
    """Return what `reproduce` runs: the synthetic market, and real prices where they are there.

    ``smoke`` shortens everything so that it takes seconds; its figures say that the machinery
    works and nothing else.
    """
    learning = LearningSettings(epochs=profile.portfolio_epochs)
    common = PortfolioConfig(
        assets=profile.portfolio_assets,
        seeds=profile.portfolio_seeds,
        learning=learning,
        speed_methods=_STEPS,
        dc3_samples=profile.dc3_samples,
        dc3_epochs=profile.dc3_epochs,
    )
    if profile.name == "smoke":
        small = replace(common, train_days=30, valid_days=10, test_days=30, gradient_days=1)
        return (
            replace(small, speed_assets=(20,), speed_days=3),
            replace(small, data="sp500", methods=METHODS[:2], gradient_days=0),
        )
    if profile.name == "paper":
        full = replace(common, train_days=1760, valid_days=500, test_days=880)
        return (
            replace(full, speed_assets=(100, 500), speed_days=100),
            replace(common, data="sp500", train_days=0, valid_days=0, test_days=0),
        )
    common = replace(common, dc3_samples=2000, dc3_epochs=100)
    return (
        replace(common, train_days=400, speed_assets=(100, 500), speed_days=10, budget_s=180.0),
        replace(
            common,
            data="sp500",
            methods=(TWO_STAGE, "bpqp", "dc3"),
            train_days=750,
            valid_days=250,
            test_days=0,
            gradient_days=0,
            budget_s=120.0,
        ),
    )


def run_portfolio(
    config: PortfolioConfig,
    out: Path,
    progress: Progress | None = None,
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
    progress
        Told what is going on.
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
    run = _Run(config, PortfolioFolder.of(out), progress or _quiet, registry or Registry())
    with _threads(config.threads):
        return run.execute()


def reproduce_portfolio(
    profile: Profile,
    out: Path,
    progress: Progress | None = None,
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
            run_portfolio(config, out, progress, registry)
        except DataError as error:
            problems.append(f"portfolio, {config.data}: {error}")
    return problems


@dataclass(frozen=True, eq=False)
class _Run:
    config: PortfolioConfig
    folder: PortfolioFolder
    progress: Progress
    registry: Registry

    def execute(self) -> list[RunResult]:
        config = self.config
        for name in config.methods:
            self.key(name)  # an unknown name fails before anything is computed
        known = {result.id: result for result in load_results(self.folder)}
        wanted = [(name, seed) for seed in range(config.seeds) for name in config.methods]
        identities = {pair: config.identity(self.key(pair[0]), pair[1]) for pair in wanted}
        self.refuse_other(known, identities)
        total = len(wanted) * config.learning.epochs
        for number, pair in enumerate(wanted):
            identity = identities[pair]
            if identity in known and known[identity].status != "failed":
                continue
            done = number * config.learning.epochs
            result, series = self.one(pair[0], pair[1], identity, done, total)
            if series is not None:
                path = self.folder.series(identity)
                path.parent.mkdir(parents=True, exist_ok=True)
                series.to_parquet(path, index=False)
            self.folder.append(result)
            known[identity] = result
            self.folder.checkpoint(identity).unlink(missing_ok=True)
        self.progress(f"{config.data}: judging", total, total)
        self.judge()
        return [known[identities[pair]] for pair in wanted]

    def record_machine(self) -> None:
        """Say what the times were measured on; times of another machine do not join them."""
        from bpqp_bench.compare import different_machines  # noqa: PLC0415 - scipy, pandas
        from bpqp_bench.environment import describe_environment  # noqa: PLC0415

        own = describe_environment(Plan(()), self.registry) | {"threads": self.config.threads}
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

    def refuse_other(
        self, known: dict[str, RunResult], identities: dict[tuple[str, int], str]
    ) -> None:
        mine: dict[tuple[str, str, int], str] = {
            (self.config.data, self.key(name), seed): identity
            for (name, seed), identity in identities.items()
        }
        for result in known.values():
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
        self.progress(f"{self.config.data}: preparing data", 0, 0)
        return make_market(self.config)

    @cached_property
    def days(self) -> tuple[list[PreparedDay], list[PreparedDay], list[PreparedDay]]:
        train_days, valid_days, test_days = (
            prepare_days(self.market, part, self.config.learning) for part in self.market.splits
        )
        return train_days, valid_days, test_days

    @cached_property
    def trained_dc3(self) -> tuple[Choice, float]:
        c = self.config
        start = datetime.datetime.now(datetime.UTC)
        # At the paper's rate of 1e-4 this many steps leave the network close to its random start.
        settings = DC3Settings(samples=c.dc3_samples, epochs=c.dc3_epochs, lr=_DC3_RATE)
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

    def one(
        self, name: str, seed: int, identity: str, done: int, total: int
    ) -> tuple[RunResult, pd.DataFrame | None]:
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
        what = f"{config.data}: {base.label}, seed {seed}"

        def tell(record: EpochRecord) -> None:
            self.progress(f"{what}, epoch {record.epoch}", done + record.epoch, total)

        self.progress(what, done, total)
        try:
            layer = self.layer(name)
            if layer is not None:
                layer.warm_up()
            build_s = layer.take_times().build_s if layer is not None else 0.0
            # DC3 decides for itself also where others only differ by rounding.
            decide = _through(layer) if layer is not None and name == "dc3" else exact
            trained = train(
                *(config.learning, seed, train_days, valid_days),
                layer=layer,
                decide=decide,
                checkpoint=self.folder.checkpoint(identity),
                progress=tell,
                budget_s=config.budget_s,
            )
            series = evaluate(
                trained.predictor, test_days, exact if layer is None else _through(layer)
            )
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
                self.progress(f"{config.data}: gradient of {name}", 0, 0)
                try:
                    choices = [(key, self.choice(name))]
                except (MethodError, BenchError) as error:
                    rows.append({"data": config.data, "method": key, "cause": str(error)})
                    continue
                days = self.days[0][:: max(len(self.days[0]) // config.gradient_days, 1)]
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
            self.progress(f"training steps at {assets} assets", 0, 0)
            choices = [(n, self.key(n), self.registry.method(n)) for n in names]
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
        from bpqp_bench.portfolio.sp500 import PriceSettings, sp500_market  # noqa: PLC0415

        return sp500_market(
            PriceSettings(
                assets=config.assets,
                train_days=train_days,
                valid_days=valid_days,
                test_days=test_days,
            )
        )
    from bpqp_bench.portfolio.qlib_data import QlibSettings, qlib_market  # noqa: PLC0415

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


def _quiet(what: str, done: int, total: int) -> None:
    del what, done, total
