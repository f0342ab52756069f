"""The learning loop: daily batches, two-stage or through a layer, resumable by epoch."""

from __future__ import annotations

import copy
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bpqp_bench.errors import MethodError, ResultsError, SpecError
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.method.torch_module import MethodLayer
from bpqp_bench.problem.instance import Array
from bpqp_bench.tasks.portfolio.data import Day, Market
from bpqp_bench.tasks.portfolio.metrics import correlation, rank_correlation
from bpqp_bench.tasks.portfolio.model import Predictor, initial_predictor
from bpqp_bench.tasks.portfolio.problem import (
    PERCENT,
    MeanVariance,
    exact_decision,
    simplex_projection,
)

__all__ = [
    "Decide",
    "EpochRecord",
    "LearningSettings",
    "PreparedDay",
    "Trained",
    "evaluate",
    "exact",
    "prepare_days",
    "train",
]

Decide = Callable[[Array, "PreparedDay"], Array]  # predictions in percent, day -> weights
_LABELS = ("demeaned", "zscore")
_CLIP = 3.0
_NORMAL = 1.4826
_TOLERATED = 1e-4  # violation up to which a decision is valued as it is


@dataclass(frozen=True)
class LearningSettings:
    """How one predictor is trained; defaults are the paper's.

    Attributes
    ----------
    gamma, beta
        Risk aversion; weight of regret² beside the mean squared error.
    lr, hidden, layers
        Of Adam and of the perceptron.
    epochs, patience
        At most so many passes over the training days; stop after so many without a better IC on
        the validation days.
    label
        What the mean squared error compares with: "demeaned" returns in percent, or their robust
        cross-sectional "zscore", both clipped at three robust standard deviations of the day and
        free of the day's mean, which no decision under 1ᵀw = 1 depends on. Regret always uses the
        returns as they came.
    """

    gamma: float = 1.0
    beta: float = 0.1
    lr: float = 1e-4
    hidden: int = 256
    layers: int = 2
    epochs: int = 30
    patience: int = 5
    label: str = "demeaned"

    def __post_init__(self) -> None:
        if self.label not in _LABELS:
            raise SpecError(f"label {self.label!r} is not one of {', '.join(_LABELS)}")
        if not (self.gamma > 0 and self.beta >= 0 and self.lr > 0):
            raise SpecError("gamma and lr must be positive and beta not negative")
        if min(self.hidden, self.layers, self.epochs, self.patience) < 1:
            raise SpecError("hidden, layers, epochs and patience must be at least 1")


@dataclass(frozen=True, eq=False)
class PreparedDay:
    """A day as the loop needs it.

    Attributes
    ----------
    features, label
        Shapes (n, F), float32, and (n,), float64.
    realized
        Problem of the day with the returns that then came, percent.
    best
        Its optimal value f(w*(r)).
    day
        The day itself, without its covariance.
    """

    features: Tensor
    label: Tensor
    best: float
    gamma: float
    market: Market = field(repr=False)
    day: Day = field(repr=False)

    @property
    def realized(self) -> MeanVariance:
        """Problem with the returns that then came."""
        return MeanVariance(self.day.returns * PERCENT, self.sigma, self.gamma)

    @property
    def sigma(self) -> Array:
        """Covariance, percent²; built from the factors each time, so that days stay small."""
        return self.market.covariance.sigma(self.day.index, self.day.assets)


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the training days.

    Attributes
    ----------
    epoch
        From 1.
    train_mse, train_regret
        Means over the days while learning; regret is NaN for two-stage, which decides nothing.
    valid_mse, valid_ic, valid_regret
        On the validation days after the epoch.
    seconds
        Of the training pass: total, predictor (both its passes and the optimizer), forward and
        backward (calls of the layer), forward_solver and backward_solver (their solve phases),
        other.
    repeated
        Forward passes of the layer that had to be run again; 0 unless a graph is reused.
    """

    epoch: int
    train_mse: float
    train_regret: float
    valid_mse: float
    valid_ic: float
    valid_regret: float
    seconds: dict[str, float]
    repeated: int = 0


@dataclass(frozen=True, eq=False)
class Trained:
    """The predictor of the best epoch, and how it came about."""

    predictor: Predictor
    records: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: str  # "epochs", "patience" or "budget"


def prepare_days(
    market: Market, days: Sequence[int], settings: LearningSettings
) -> list[PreparedDay]:
    """Make labels and hindsight decisions of some days."""
    prepared: list[PreparedDay] = []
    for t in days:
        day = market.day(t)
        percent = day.returns * PERCENT
        hindsight = MeanVariance(percent, day.sigma, settings.gamma)
        best = hindsight.value(exact_decision(hindsight))
        slim = Day(
            *(day.index, day.date, day.assets, day.features[:0], day.returns),
            *(np.zeros((0, 0)), day.signal),
        )
        prepared.append(
            PreparedDay(
                features=torch.from_numpy(np.ascontiguousarray(day.features)),
                label=torch.from_numpy(_label(percent, settings.label)),
                best=best,
                gamma=settings.gamma,
                market=market,
                day=slim,
            )
        )
    return prepared


def _label(percent: Array, kind: str) -> Array:
    centred = percent - np.median(percent)
    scale = float(np.median(np.abs(centred))) * _NORMAL
    if scale > 0:
        centred = np.clip(centred, -_CLIP * scale, _CLIP * scale)
        if kind == "zscore":
            centred = centred / scale
    return np.asarray(centred - centred.mean())


def train(
    settings: LearningSettings,
    seed: int,
    train_days: Sequence[PreparedDay],
    valid_days: Sequence[PreparedDay],
    *,
    layer: MethodLayer | None = None,
    decide: Decide | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
    budget_s: float | None = None,
) -> Trained:
    """Train one predictor.

    Parameters
    ----------
    settings, seed
        The seed decides initial weights and the order of the days, for all methods alike.
    train_days, valid_days
        As `prepare_days` returns them.
    layer
        The decision layer to learn through; None for two-stage learning, MSE alone.
    decide
        Decisions for the validation regret; exact ones by default.
    checkpoint
        File to write after every epoch and to go on from.
    progress
        Called after every epoch, those read from the checkpoint included.
    budget_s
        No further epoch begins after so many seconds of training passes.

    Raises
    ------
    MethodError
        If the layer fails or the loss is not finite.
    ResultsError
        If the checkpoint cannot be read.
    """
    if not train_days or not valid_days:
        raise SpecError("training needs training and validation days")
    predictor = initial_predictor(
        train_days[0].features.shape[1], settings.hidden, settings.layers, seed
    )
    optimizer = torch.optim.Adam(predictor.parameters(), lr=settings.lr, fused=True)
    records: list[EpochRecord] = []
    best = copy.deepcopy(predictor.state_dict())
    if checkpoint is not None and checkpoint.exists():
        records, best = _restore(checkpoint, predictor, optimizer)
        for record in records if progress is not None else ():
            progress(record)  # type: ignore[misc]
    stopped = "epochs"
    while len(records) < settings.epochs:
        if len(records) - _best_epoch(records) >= settings.patience:
            stopped = "patience"
            break
        if budget_s is not None and sum(r.seconds["total"] for r in records) > budget_s:
            stopped = "budget"
            break
        epoch = len(records) + 1
        order = np.random.default_rng((seed, epoch)).permutation(len(train_days))
        mse, regret, seconds, repeated = _learn(
            predictor, optimizer, [train_days[i] for i in order], layer, settings
        )
        valid = evaluate(predictor, valid_days, decide or exact)
        record = EpochRecord(
            epoch=epoch,
            train_mse=mse,
            train_regret=regret,
            valid_mse=float(valid["mse"].mean()),
            valid_ic=float(valid["ic"].mean()),
            valid_regret=float(valid["regret"].mean()),
            seconds=seconds,
            repeated=repeated,
        )
        records.append(record)
        if _best_epoch(records) == epoch:
            best = copy.deepcopy(predictor.state_dict())
        if checkpoint is not None:
            _save(checkpoint, predictor, optimizer, records, best)
        if progress is not None:
            progress(record)
    if stopped == "epochs" and len(records) - _best_epoch(records) >= settings.patience:
        stopped = "patience"
    predictor.load_state_dict(best)
    return Trained(predictor, tuple(records), _best_epoch(records), stopped)


def evaluate(predictor: Predictor, days: Sequence[PreparedDay], decide: Decide) -> pd.DataFrame:
    """Predict and decide on every day; one row a day with the columns of `metrics.SERIES`.

    A decision that is no portfolio, by more than a solver's tolerance, cannot be held: what is
    valued is the nearest portfolio, and ``violation`` says how far off the answer was.
    """
    predictor.eval()
    rows: list[dict[str, Any]] = []
    before: dict[int, float] = {}
    with torch.no_grad():
        for day in days:
            mu = predictor(day.features).numpy()
            w = decide(mu, day)
            if not np.isfinite(w).all():
                raise MethodError(f"the decision of {day.day.date} is not finite")
            violation = float(max(-w.min(), abs(w.sum() - 1.0), 0.0))
            if violation > _TOLERATED:
                w = simplex_projection(w)
            rows.append(_judge(mu, w, day) | {"violation": violation})
            now = dict(zip(day.day.assets.tolist(), w.tolist(), strict=True))
            moved = sum(abs(now.get(i, 0.0) - before.get(i, 0.0)) for i in {*now, *before})
            rows[-1]["turnover"] = 0.5 * moved if before else np.nan
            before = now
    return pd.DataFrame(rows)


def _judge(mu: Array, w: Array, day: PreparedDay) -> dict[str, Any]:
    returns, realized = day.day.returns, day.realized
    earned, market = float(returns @ w), float(returns.mean())
    foreseen = np.nan
    if day.day.signal is not None:
        expected = MeanVariance(day.day.signal * PERCENT, realized.sigma, day.gamma)
        foreseen = expected.value(exact_decision(expected)) - expected.value(w)
    return {
        "date": day.day.date,
        "ic": correlation(mu, returns),
        "rank_ic": rank_correlation(mu, returns),
        "mse": float(((mu - day.label.numpy()) ** 2).mean()),
        "ret": earned,
        "market": market,
        "excess": earned - market,
        "regret": day.best - realized.value(w),
        "signal_regret": foreseen,
        "holdings": int((w > 1e-4).sum()),
    }


def exact(mu: Array, day: PreparedDay) -> Array:
    """Best decision for the predictions, by no method under test: two-stage's, and the curves'."""
    return exact_decision(MeanVariance(mu, day.sigma, day.gamma))


def _learn(
    predictor: Predictor,
    optimizer: torch.optim.Optimizer,
    days: Sequence[PreparedDay],
    layer: MethodLayer | None,
    settings: LearningSettings,
) -> tuple[float, float, dict[str, float], int]:
    # One pass over the days, one step of the optimizer a day.
    predictor.train()
    if layer is not None:
        layer.take_times()
    clock = time.perf_counter
    errors: list[float] = []
    regrets: list[float] = []
    spent = {"predictor": 0.0, "layer": 0.0}
    start = clock()
    for day in days:
        at = clock()
        mu = predictor(day.features)
        mse = (mu - day.label).square().mean()
        spent["predictor"] += clock() - at
        loss = mse
        if layer is not None:
            realized = day.realized
            sigma, r = torch.from_numpy(realized.sigma), torch.from_numpy(realized.mu)
            w = layer(q=-mu, P=settings.gamma * realized.sigma)
            value = r @ w - 0.5 * settings.gamma * (w @ (sigma @ w))
            regret = day.best - value
            loss = mse + settings.beta * regret.square()
            regrets.append(float(regret.detach()))
        if not torch.isfinite(loss):
            raise MethodError(f"the loss of {day.day.date} is not finite")
        at = clock()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # The layer's own backward pass runs inside; it is taken out below.
        spent["predictor"] += clock() - at
        errors.append(float(mse.detach()))
    total = clock() - start
    seconds = {"total": total, "predictor": spent["predictor"]}
    repeated = 0
    passes: dict[str, tuple[PassTime, ...]] = {"forward": (), "backward": ()}
    if layer is not None:
        times = layer.take_times()
        passes = {"forward": times.forward, "backward": times.backward}
        repeated = times.repeated
    for name, done in passes.items():
        seconds[name] = sum(p.call for p in done)
        seconds[f"{name}_solver"] = sum(p.solve for p in done)
    seconds["predictor"] -= seconds["backward"]
    seconds["other"] = total - seconds["predictor"] - seconds["forward"] - seconds["backward"]
    mean_regret = float(np.mean(regrets)) if regrets else float("nan")
    return float(np.mean(errors)), mean_regret, seconds, repeated


def _best_epoch(records: Sequence[EpochRecord]) -> int:
    # The first of the best, so that a plateau counts against patience.
    if not records:
        return 0
    return 1 + int(np.argmax([record.valid_ic for record in records]))


def _save(
    path: Path,
    predictor: Predictor,
    optimizer: torch.optim.Optimizer,
    records: Sequence[EpochRecord],
    best: dict[str, Any],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "predictor": predictor.state_dict(),
        "optimizer": optimizer.state_dict(),
        "records": [asdict(record) for record in records],
        "best": best,
    }
    # Renamed into place: an interrupted write must not cost the epochs before it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _restore(
    path: Path, predictor: Predictor, optimizer: torch.optim.Optimizer
) -> tuple[list[EpochRecord], dict[str, Any]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        predictor.load_state_dict(content["predictor"])
        optimizer.load_state_dict(content["optimizer"])
        return [EpochRecord(**record) for record in content["records"]], content["best"]
    except Exception as error:  # torch.load raises half a dozen kinds
        raise ResultsError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to train anew"
        ) from error
