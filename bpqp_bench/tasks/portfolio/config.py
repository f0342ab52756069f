"""What is run: one configuration per market, those of the profiles, and their parts in order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from bpqp_bench.errors import SpecError
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.runner.time_left import Work
from bpqp_bench.tasks.portfolio.train import LearningSettings

__all__ = [
    "METHODS",
    "TWO_STAGE",
    "Data",
    "PortfolioConfig",
    "planned_work",
    "portfolio_configs",
]

TWO_STAGE = "two-stage"
# altdiff-vjp: Alt-Diff's gradient without the Jacobian, an order of magnitude faster at 100 assets.
METHODS = (TWO_STAGE, "bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "dc3")
_STEPS = ("bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "altdiff")
Data = Literal["synthetic", "sp500", "qlib"]
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


def planned_work(config: PortfolioConfig) -> list[Work]:
    """Return what an experiment consists of, in the order in which it is done.

    Kinds are what it is, market, method, number of assets, seed. The times were those of two cores
    with a hundred assets; only their proportions matter.
    """
    data, assets = config.data, config.assets or 100
    layer_s = 1e-3 + 2e-7 * assets**2  # of one day

    def work(what: str, name: str, seed: int, seconds: float, steps: int = 1) -> Work:
        return Work((what, data, name, str(config.assets), str(seed)), steps, seconds)

    days = (config.train_days + config.valid_days) or 1500
    works = [work("data", "", 0, 0.01 * (days + config.test_days))]
    if "dc3" in config.methods:
        works.append(work("network", "dc3", 0, 1e-4 * config.dc3_samples * config.dc3_epochs))
    for seed in range(config.seeds):
        for name in config.methods:
            works += [
                work("build", name, seed, 0.5),
                work("epoch", name, seed, days * layer_s, config.learning.epochs),
                work("test", name, seed, (config.test_days or 500) * layer_s),
            ]
    works.append(work("judge", "", 0, 1.0))
    if config.gradient_days:
        layers = [name for name in config.methods if name != TWO_STAGE]
        works += [work("gradient", name, 0, 0.5 * config.gradient_days) for name in layers]
    for assets in config.speed_assets:
        step_s = (1e-3 + 2e-7 * assets**2) * len(config.methods)
        works.append(Work(("speed", data, "", str(assets), "0"), 1, step_s * config.speed_days))
    return works
