"""What is run: one configuration per market, and those of the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from bpqp_bench.errors import SpecError
from bpqp_bench.runner.profiles import Profile
from bpqp_bench.tasks.task import setting

TWO_STAGE = "two-stage"
# altdiff-vjp: Alt-Diff's gradient without the Jacobian, an order of magnitude faster at 100 assets.
METHODS = (TWO_STAGE, "bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "dc3")
_STEPS = ("bpqp", "bpqp-fast", "qpth", "altdiff-vjp", "altdiff")
Data = Literal["synthetic", "sp500", "qlib", "positive-control", "negative-control"]
CONTROLS: tuple[Data, Data] = ("positive-control", "negative-control")


Label = Literal["demeaned", "zscore"]


@dataclass(frozen=True)
class LearningSettings:
    """How one predictor is trained; defaults are the paper's.

    ``label`` is what the mean squared error compares with: "demeaned" returns in percent, or their
    robust cross-sectional "zscore", both clipped at three robust standard deviations of the day
    and free of the day's mean, which no decision under 1ᵀw = 1 depends on. Regret always uses the
    returns as they came. ``patience`` counts epochs with neither a better IC nor a lower regret on
    the validation days.
    """

    gamma: float = setting(1.0, "Risk aversion.")
    beta: float = setting(0.1, "Weight of regret² beside the mean squared error.")
    lr: float = setting(1e-4, "Learning rate of Adam.")
    hidden: int = setting(256, "Width of the hidden layers.")
    layers: int = setting(2, "Number of hidden layers; 0: a linear predictor.")
    epochs: int = setting(30, "At most so many epochs.")
    patience: int = setting(5, "Epochs without progress before training stops.")
    label: Label = setting("demeaned", "What predictions are compared with.")

    def __post_init__(self) -> None:
        if self.label not in get_args(Label):
            raise SpecError(f"label {self.label!r} is not one of {', '.join(get_args(Label))}")
        if not (self.gamma > 0 and self.beta >= 0 and self.lr > 0):
            raise SpecError("gamma and lr must be positive and beta not negative")
        if min(self.hidden, self.epochs, self.patience) < 1 or self.layers < 0:
            raise SpecError("hidden, epochs and patience must be at least 1, layers at least 0")


@dataclass(frozen=True)
class PortfolioConfig:
    """One experiment on one market; each field says what it is in its ``help``.

    ``data``: synthetic is a factor market drawn here, sp500 20 companies from the package skfolio,
    qlib the paper's; the controls are those of `control`.
    """

    data: Data = setting("synthetic", "Market.")
    methods: tuple[str, ...] = setting(
        METHODS, "two-stage, dc3, or a method of the benchmark; may be repeated.", "--method"
    )
    assets: int = setting(100, "Assets of a drawn market; of real ones at most so many, 0: all.")
    seeds: int = setting(3, "Repetitions: seeds 0, 1, …")
    learning: LearningSettings = field(default_factory=LearningSettings)
    train_days: int = setting(
        500, "Training days; of real data the last so many, 0: all that there are."
    )
    valid_days: int = setting(120, "Validation days; of real data the first so many.")
    test_days: int = setting(480, "Test days; of real data the first so many.")
    data_seed: int = setting(0, "Seed of a drawn market.")
    qlib_dir: str = setting("", "Local data directory of Qlib.")
    qlib_market: str = setting("csi500", "Qlib's set of instruments.")
    dc3_samples: int = setting(2000, "Training set of DC3's network.")
    dc3_epochs: int = setting(100, "Epochs of DC3's network.")
    gradient_days: int = setting(2, "Days on which every layer's gradient is checked.")
    speed_assets: tuple[int, ...] = setting(
        (), "Time training steps with so many assets; may be repeated."
    )
    speed_days: int = setting(10, "Days on which they are timed.")
    speed_methods: tuple[str, ...] = setting(
        (), "Method to time; may be repeated (default: all that are run).", "--speed-method"
    )
    budget_s: float | None = setting(
        None, "A training ends after the epoch in which it exceeds so many seconds.", "--budget"
    )
    threads: int = setting(1, "Threads of BLAS and torch.")

    def __post_init__(self) -> None:
        if self.data not in get_args(Data):
            raise SpecError(f"data {self.data!r} is not one of {', '.join(get_args(Data))}")
        if self.seeds < 1 or self.threads < 1:
            raise SpecError("seeds and threads must be at least 1")
        if len(set(self.methods)) != len(self.methods) or not self.methods:
            raise SpecError("methods must be at least one, each named once")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PortfolioConfig:
        """Make a configuration of what the user gave, settings of the learning included.

        Of real data everything there is, unless told otherwise.
        """
        names = {part.name for part in fields(LearningSettings)}
        learning = LearningSettings(**{k: v for k, v in given.items() if k in names})
        rest = {k: v for k, v in given.items() if k not in names}
        if rest.get("data") in ("sp500", "qlib"):
            rest = dict.fromkeys(("assets", "train_days", "valid_days", "test_days"), 0) | rest
        return cls(learning=learning, **rest)

    @property
    def reveals_signal(self) -> bool:
        """Whether the expected returns are known: where the market is drawn."""
        return self.data not in ("sp500", "qlib")

    def content(self, method: str) -> dict[str, Any]:
        """Return what changes the result of a method, and nothing else."""
        content = asdict(self)
        others = ("methods", "seeds", "gradient_days", "speed_assets", "speed_days")
        for name in (*others, "speed_methods"):
            del content[name]
        if method != "dc3":
            del content["dc3_samples"], content["dc3_epochs"]
        return content


def portfolio_configs(profile: Profile) -> tuple[PortfolioConfig, ...]:
    """Return what `reproduce` runs: controls, the synthetic market, real prices where they are.

    ``smoke`` shortens everything so that it takes seconds; but for the controls, its figures say
    that the machinery works and nothing else.
    """
    common = PortfolioConfig(
        assets=profile.portfolio_assets,
        seeds=profile.portfolio_seeds,
        learning=LearningSettings(epochs=profile.portfolio_epochs),
        speed_methods=_STEPS,
        dc3_samples=profile.dc3_samples,
        dc3_epochs=profile.dc3_epochs,
    )
    controls = tuple(_control(data, profile.name != "smoke") for data in CONTROLS)
    if profile.name == "smoke":
        small = replace(common, train_days=30, valid_days=10, test_days=30, gradient_days=1)
        return (
            *controls,
            replace(small, speed_assets=(20,), speed_days=5),
            replace(small, data="sp500", methods=METHODS[:2], gradient_days=0),
        )
    if profile.name == "paper":
        full = replace(common, train_days=1760, valid_days=500, test_days=880)
        return (
            *controls,
            replace(full, speed_assets=(100, 500), speed_days=100),
            replace(common, data="sp500", train_days=0, valid_days=0, test_days=0),
        )
    common = replace(common, dc3_samples=2000, dc3_epochs=100)
    return (
        *controls,
        replace(common, train_days=300, speed_assets=(100, 500), speed_days=10, budget_s=180.0),
        replace(
            common,
            data="sp500",
            methods=(TWO_STAGE, "bpqp", "dc3"),
            train_days=500,
            valid_days=250,
            test_days=0,
            gradient_days=0,
            budget_s=120.0,
        ),
    )


def _control(data: Data, long: bool) -> PortfolioConfig:
    days = 200 if long else 60
    return PortfolioConfig(
        data=data,
        methods=(TWO_STAGE, "bpqp"),
        assets=20,
        seeds=5,
        learning=LearningSettings(layers=0, lr=0.02, epochs=8 if long else 5),
        train_days=days,
        valid_days=days,
        test_days=2 * days,
        gradient_days=0,
    )
