"""The whole experiment from one configuration: markets, methods, seeds, results on disk."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bpqp_bench.errors import BenchError, MethodError, ResultsError
from bpqp_bench.layers.dc3 import Settings as DC3Settings
from bpqp_bench.method.torch_module import Choice, MethodLayer
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.environment import source_hash
from bpqp_bench.results.store import RecordStore, write_json
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.runner.time_left import TimeLeft, Work
from bpqp_bench.tasks.portfolio.config import TWO_STAGE, PortfolioConfig, portfolio_configs
from bpqp_bench.tasks.portfolio.data import DataError, Market
from bpqp_bench.tasks.portfolio.days import PreparedDay, prepare_days
from bpqp_bench.tasks.portfolio.dc3 import DC3Choice, train_dc3
from bpqp_bench.tasks.portfolio.evaluate import (
    BASELINES,
    evaluate,
    evaluate_baseline,
    exact,
    through,
)
from bpqp_bench.tasks.portfolio.gradients import gradient_table
from bpqp_bench.tasks.portfolio.markets import make_market
from bpqp_bench.tasks.portfolio.metrics import summarize_series
from bpqp_bench.tasks.portfolio.results import (
    RESULTS,
    PortfolioFolder,
    RunResult,
    load_json,
    load_results,
    load_series,
    speaking_market,
    summary_frame,
)
from bpqp_bench.tasks.portfolio.significance import differences
from bpqp_bench.tasks.portfolio.speed import measure_steps
from bpqp_bench.tasks.portfolio.step import decision_layer
from bpqp_bench.tasks.portfolio.train import CHOICES, EpochRecord, Trained, train

_OWN = (*BASELINES, TWO_STAGE, "dc3")  # not taken from the registry
_LABELS = {name: label for name, (label, _) in BASELINES.items()} | {
    TWO_STAGE: "Two-Stage",
    "dc3": "DC3",
}
_DC3_RATE = 1e-3
# Folders of the package that a result depends on.
_CODE = ("problem", "layers", "reference", "method", "tasks/portfolio")


def run_portfolio(
    config: PortfolioConfig,
    out: Path,
    registry: Registry | None = None,
    time_left: TimeLeft | None = None,
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
    registry
        Where methods are looked up; the built-in plug-ins by default.
    time_left
        Told what is going on, and keeps account of what is left.

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
    account = time_left or TimeLeft()
    run = _Run(config, PortfolioFolder.of(out), registry or Registry())
    account.plan(run.works())
    return run.execute(account)


def plan_portfolio(profile: Profile, out: Path, registry: Registry) -> list[Work]:
    """Return everything that a profile asks for and that is not yet in ``out``."""
    folder = PortfolioFolder.of(out)
    runs = [_Run(config, folder, registry) for config in portfolio_configs(profile)]
    return [work for run in runs for work in run.works()]


def reproduce_portfolio(
    profile: Profile, out: Path, registry: Registry, time_left: TimeLeft
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
            run_portfolio(config, out, registry, time_left)
        except DataError as error:
            problems.append(f"portfolio, {config.data}: {error}")
            works = _Run(config, PortfolioFolder.of(out), registry).works()
            time_left.drop(work.kind for work in works)
    return problems


@dataclass(frozen=True, eq=False)
class _Run:
    config: PortfolioConfig
    folder: PortfolioFolder
    registry: Registry

    @cached_property
    def trainings(self) -> dict[tuple[str, int], str]:
        """Content key of everything that is asked for, by name and seed, in order."""
        baselines = [name for name in BASELINES if name != "oracle" or self.config.reveals_signal]
        wanted = [(name, 0) for name in baselines]
        wanted += [(n, seed) for seed in range(self.config.seeds) for n in self.config.methods]
        code = {name: self.code(name) for name, seed in wanted if not seed}
        return {
            (name, seed): _hash(code[name], self.config.content(name), self.key(name), seed)
            for name, seed in wanted
        }

    def code(self, name: str) -> str:
        """Hash the code that a result depends on, the method's own file included."""
        own: dict[str, str] = {}
        if name not in _OWN:
            cls = self.registry.method(name).cls
            own[cls.name] = self.registry.methods[cls.name].path
        return source_hash(_CODE, own)

    @cached_property
    def missing(self) -> list[tuple[str, int]]:
        """What the folder lacks; what failed is tried again.

        Raises
        ------
        ResultsError
            If the folder holds one of them under another key.
        """
        found = load_results(self.folder)
        mine = {(self.key(name), seed): key for (name, seed), key in self.trainings.items()}
        for result in found:
            key = mine.get((result.method, result.seed)) if self.is_mine(result) else None
            if key is not None and result.id not in _ids(key, result.method):
                raise ResultsError(
                    f"{self.folder.results} holds {result.data}, {result.name}, seed {result.seed} "
                    "under another configuration or code; choose another --out"
                )
        there = {result.id for result in found if result.status != "failed"}
        return [
            pair for pair, key in self.trainings.items() if not there.issuperset(_ids(key, pair[0]))
        ]

    def is_mine(self, result: RunResult) -> bool:
        return result.data == self.config.data

    def works(self) -> list[Work]:
        """Return the trainings that are to be run, and the judging."""
        trainings = [self.work(*pair) for pair in self.missing if pair[0] not in BASELINES]
        return [*trainings, self.work("judge", 0)]

    def work(self, name: str, seed: int) -> Work:
        """Return a training; only the proportions of the nominal times matter."""
        c = self.config
        # Of a day: predictor, layer and decision.
        seconds = 2e-3 + 4e-7 * (c.assets or 100) ** 2
        steps, days = (1, 1000) if name == "judge" else (c.learning.epochs, c.train_days or 1500)
        return Work(("portfolio", c.data, name, str(seed)), steps, seconds * days)

    def execute(self, time_left: TimeLeft) -> list[RunResult]:
        if self.missing:
            self.days  # noqa: B018 - unusable data must leave no trace
            self.record_machine()
        with (
            RecordStore(self.folder.results, RESULTS, replace=True) as store,
            _threads(self.config.threads),
        ):
            for name, seed in self.missing:
                key = self.trainings[name, seed]
                for result, series in self.one(name, seed, key, time_left):
                    if series is not None:
                        path = self.folder.series(result.id)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        series.to_parquet(path, index=False)
                    store.append(result)
                self.folder.checkpoint(key).unlink(missing_ok=True)
            results = store.records
            with time_left.running(self.work("judge", 0), f"{self.config.data}: judging"):
                self.judge(results, time_left)
        by_id = {result.id: result for result in results}
        return [by_id[i] for pair, key in self.trainings.items() for i in _ids(key, pair[0])]

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
            self.folder.path.mkdir(parents=True, exist_ok=True)
            write_json(self.folder.environment, [own])
        elif different := different_machines(stored[0], own):
            raise ResultsError(
                f"{self.folder.path} was begun on another machine ({'; '.join(different)}); "
                "choose another --out"
            )

    def key(self, name: str) -> str:
        return name if name in _OWN else self.registry.method(name).key

    @cached_property
    def market(self) -> Market:
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
        start = time.perf_counter()
        # At the paper's rate of 1e-4 this many steps leave the network close to its random start.
        settings = DC3Settings(samples=c.dc3_samples, epochs=c.dc3_epochs, lr=_DC3_RATE)
        choice = DC3Choice(train_dc3(self.market, c.learning.gamma, settings))
        return choice, time.perf_counter() - start

    def choice(self, name: str) -> Choice:
        return self.trained_dc3[0] if name == "dc3" else self.registry.method(name)

    def one(
        self, name: str, seed: int, key: str, time_left: TimeLeft
    ) -> list[tuple[RunResult, pd.DataFrame | None]]:
        """Return a result for each choice of the epoch, with its series unless it failed."""
        base = RunResult(
            id=key,
            data=self.config.data,
            method=self.key(name),
            name=name,
            label=_LABELS.get(name) or self.registry.method(name).label,
            seed=seed,
            status="ok",
            market=self.market.describe(),
            config=json.loads(json.dumps(asdict(self.config))),
            at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        if name in BASELINES:
            series = evaluate_baseline(name, self.days[2])
            return [(replace(base, metrics=summarize_series(series)), series)]
        try:
            return list(self.learned(name, base, time_left))
        except (MethodError, BenchError) as error:
            if isinstance(error, (DataError, ResultsError)):
                raise
            time_left.drop([self.work(name, seed).kind])
            failed = replace(base, status="failed", cause=str(error))
            return [(replace(failed, id=f"{key}-{c}", chosen_by=c), None) for c in CHOICES]

    def learned(
        self, name: str, base: RunResult, time_left: TimeLeft
    ) -> Iterator[tuple[RunResult, pd.DataFrame | None]]:
        """Train, and decide on the test days with the predictor of each choice."""
        config, (train_days, valid_days, test_days) = self.config, self.days
        what = f"{config.data}: {base.label}, seed {base.seed}"

        def tell(record: EpochRecord) -> None:
            time_left.repeated(f"{what}, epoch {record.epoch}", record.seconds["total"])

        layer: MethodLayer | None = None
        if name != TWO_STAGE:
            gamma = config.learning.gamma
            layer = decision_layer(self.choice(name), len(train_days[0].label), gamma)
            layer.warm_up()
        build_s = layer.take_times().build_s if layer is not None else 0.0
        with time_left.running(self.work(name, base.seed), what):
            trained = train(
                *(config.learning, base.seed, train_days, valid_days),
                layer=layer,
                # DC3 decides for itself also where others only differ by rounding.
                decide=through(layer) if layer is not None and name == "dc3" else exact,
                checkpoint=self.folder.checkpoint(base.id),
                progress=tell,
                budget_s=config.budget_s,
            )
        timing = _timing(trained, len(train_days))
        timing["build_s"] = build_s + (self.trained_dc3[1] if name == "dc3" else 0.0)
        cause = ""
        if trained.stopped == "budget":
            epochs = f"{len(trained.records)} of {config.learning.epochs} epochs"
            cause = f"training ended after {epochs} by the budget of {config.budget_s:g} s"
        for choice in CHOICES:
            decide = exact if layer is None else through(layer)
            series = evaluate(trained.predictors[choice], test_days, decide)
            if layer is not None:
                decided = layer.take_times().forward[-len(test_days) :]
                timing["decide_s"] = sum(p.call for p in decided) / len(decided)
            result = replace(
                base,
                id=f"{base.id}-{choice}",
                chosen_by=choice,
                status="timeout" if cause else "ok",
                cause=cause,
                metrics=summarize_series(series),
                timing=dict(timing),
                epochs=[asdict(record) for record in trained.records],
                best_epoch=trained.best_epochs[choice],
                stopped=trained.stopped,
                statuses={} if layer is None else dict(layer.statuses),
            )
            yield result, series

    def judge(self, results: list[RunResult], time_left: TimeLeft) -> None:
        """Bring summary, differences, gradients and step times up to what the folder holds."""
        config, folder = self.config, self.folder
        speaking_market(summary_frame(results)).to_csv(folder.summary, index=False)
        kept = [row for row in load_json(folder.significance) if row["data"] != config.data]
        mine = [result for result in results if self.is_mine(result) and result.status == "ok"]
        series = load_series(folder, mine)
        if len(series):
            learned = [n for n in dict.fromkeys(r.name for r in mine) if n not in BASELINES]
            pairs = [(name, TWO_STAGE) for name in learned if name != TWO_STAGE]
            pairs += [(name, "minimum-variance") for name in learned] + [("dc3", "bpqp")]
            kept += [{"data": config.data} | row for row in differences(series, pairs)]
        write_json(folder.significance, kept)
        rows = load_json(folder.gradients)
        done = {row["method"] for row in rows if row["data"] == config.data}
        for name in config.methods if config.gradient_days else ():
            if name != TWO_STAGE and self.key(name) not in done:
                time_left.show(f"{config.data}: gradient of {name}")
                rows += [{"data": config.data} | row for row in self.gradient(name)]
                write_json(folder.gradients, rows)
        rows = load_json(folder.speed)
        # DC3's network is of one market and size; its time is in the results.
        names = [n for n in config.speed_methods or config.methods if n not in _OWN]
        for assets in config.speed_assets if names else ():
            if all(row["assets"] != assets for row in rows):
                time_left.show(f"training steps at {assets} assets")
                choices = [(n, self.key(n), self.registry.method(n)) for n in names]
                rows += measure_steps(choices, assets, config.speed_days, config.learning)
                write_json(folder.speed, rows)

    def gradient(self, name: str) -> list[dict[str, object]]:
        """Check the gradient through a method on days spread over the training."""
        key, days, count = self.key(name), self.days[0], self.config.gradient_days
        try:
            choice = self.choice(name)
        except (MethodError, BenchError) as error:
            return [{"method": key, "cause": str(error)}]
        spread = days[:: max(len(days) // count, 1)][:count]
        return gradient_table([(key, choice)], spread, beta=self.config.learning.beta)


def _ids(key: str, name: str) -> list[str]:
    """Ids of the results that belong to one content key."""
    return [key] if name in BASELINES else [f"{key}-{choice}" for choice in CHOICES]


def _hash(*content: object) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _timing(trained: Trained, days: int) -> dict[str, float]:
    parts = ("predictor", "forward", "backward", "forward_solver", "backward_solver", "other")
    means = {
        name: float(np.mean([record.seconds[name] for record in trained.records]))
        for name in ("total", *parts)
    }
    timing = {"epoch_s": means["total"]} | {f"{name}_s": means[name] for name in parts}
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
