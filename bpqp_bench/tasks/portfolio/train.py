"""The learning loop: daily batches, two-stage or through a layer, resumable by epoch."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bpqp_bench.errors import ResultsError, SpecError
from bpqp_bench.method.torch_module import MethodLayer
from bpqp_bench.results.store import write_file
from bpqp_bench.tasks.portfolio.config import LearningSettings
from bpqp_bench.tasks.portfolio.days import PreparedDay
from bpqp_bench.tasks.portfolio.evaluate import Decide, exact, validate
from bpqp_bench.tasks.portfolio.model import Predictor
from bpqp_bench.tasks.portfolio.step import Learner

Choice = Literal["ic", "regret"]  # what the epoch that is kept is chosen by, on validation days
CHOICES: tuple[Choice, ...] = ("ic", "regret")
_Weights = dict[str, Any]


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
    """The predictor of the best epoch by each criterion, and how they came about."""

    predictors: Mapping[Choice, Predictor]
    best_epochs: Mapping[Choice, int]
    records: tuple[EpochRecord, ...]
    stopped: str  # "epochs", "patience" or "budget"


def train(
    settings: LearningSettings,
    seed: int,
    train_days: Sequence[PreparedDay],
    valid_days: Sequence[PreparedDay],
    *,
    layer: MethodLayer | None = None,
    decide: Decide = exact,
    checkpoint: Path | None = None,
    progress: Callable[[EpochRecord], None] = lambda record: None,
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
        Decisions for the validation regret.
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
    learner = Learner(settings, train_days[0].features.shape[1], seed, layer)
    records: list[EpochRecord] = []
    best: dict[Choice, _Weights] = {}
    if checkpoint is not None and checkpoint.exists():
        records, best = _restore(checkpoint, learner)
        for record in records:
            progress(record)
    while not (stopped := _stopped(records, settings, budget_s)):
        epoch = len(records) + 1
        order = np.random.default_rng((seed, epoch)).permutation(len(train_days))
        learned = _learn(learner, [train_days[i] for i in order])
        mse, ic, regret = validate(learner.predictor, valid_days, decide)
        record = EpochRecord(
            epoch=epoch, valid_mse=mse, valid_ic=ic, valid_regret=regret, **learned
        )
        records.append(record)
        for choice, found in _best_epochs(records).items():
            if found == epoch:
                best[choice] = copy.deepcopy(learner.predictor.state_dict())
        if checkpoint is not None:
            _save(checkpoint, learner, records, best)
        progress(record)
    predictors: dict[Choice, Predictor] = {}
    for choice, weights in best.items():
        predictors[choice] = copy.deepcopy(learner.predictor)
        predictors[choice].load_state_dict(weights)
    return Trained(predictors, _best_epochs(records), tuple(records), stopped)


def _stopped(
    records: Sequence[EpochRecord], settings: LearningSettings, budget_s: float | None
) -> str:
    """Say why no further epoch begins; nothing where one does."""
    if records and len(records) - max(_best_epochs(records).values()) >= settings.patience:
        return "patience"
    if len(records) >= settings.epochs:
        return "epochs"
    if budget_s is not None and sum(r.seconds["total"] for r in records) > budget_s:
        return "budget"
    return ""


def _best_epochs(records: Sequence[EpochRecord]) -> dict[Choice, int]:
    # The first of the best, so that a plateau counts against patience.
    return {
        "ic": 1 + int(np.argmax([record.valid_ic for record in records])),
        "regret": 1 + int(np.argmin([record.valid_regret for record in records])),
    }


def _learn(learner: Learner, days: Sequence[PreparedDay]) -> dict[str, Any]:
    """Go once over the days, one step of the optimizer a day; return fields of the record."""
    layer = learner.layer
    if layer is not None:
        layer.take_times()
    start = time.perf_counter()
    steps = [learner.step(day) for day in days]
    total = time.perf_counter() - start
    times = None if layer is None else layer.take_times()
    seconds = {"total": total}
    for name in ("forward", "backward"):
        passes = () if times is None else getattr(times, name)
        seconds[name] = sum(p.call for p in passes)
        seconds[f"{name}_solver"] = sum(p.solve for p in passes)
    seconds["predictor"] = sum(step.predictor_s for step in steps) - seconds["backward"]
    seconds["other"] = total - sum(seconds[name] for name in ("predictor", "forward", "backward"))
    return {
        "train_mse": float(np.mean([step.mse for step in steps])),
        "train_regret": float(np.mean([step.regret for step in steps])),
        "seconds": seconds,
        "repeated": 0 if times is None else times.repeated,
    }


def _save(
    path: Path,
    learner: Learner,
    records: Sequence[EpochRecord],
    best: Mapping[Choice, _Weights],
) -> None:
    content = {
        "predictor": learner.predictor.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "records": [asdict(record) for record in records],
        "best": dict(best),
    }
    written = io.BytesIO()
    torch.save(content, written)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As a whole: an interrupted write must not cost the epochs before it.
    write_file(path, written.getvalue())


def _restore(path: Path, learner: Learner) -> tuple[list[EpochRecord], dict[Choice, _Weights]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        learner.predictor.load_state_dict(content["predictor"])
        learner.optimizer.load_state_dict(content["optimizer"])
        return [EpochRecord(**record) for record in content["records"]], content["best"]
    except Exception as error:  # torch.load raises half a dozen kinds
        raise ResultsError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to train anew"
        ) from error
