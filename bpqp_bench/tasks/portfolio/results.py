"""The experiment's files: what is on disk, and how it is read back. See docs/portfolio.md."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bpqp_bench.errors import ResultsError
from bpqp_bench.results.store import json_records
from bpqp_bench.tasks.portfolio.metrics import METRICS

_SCHEMA = 2
_TIMES = {"train_s": "epoch_s"} | {
    name: name for name in ("predictor_s", "forward_s", "backward_s", "forward_solver_s")
}
_DATA_ORDER = ("qlib", "synthetic", "sp500")  # which data speak for the experiment, first one wins


@dataclass(frozen=True)
class RunResult:
    """One method on one market with one seed: a line of results.jsonl.

    Attributes
    ----------
    id
        Content key: data, method, seed, choice of the epoch and everything that changes the result.
    data, method, name, label, seed
        Market; canonical key ("two-stage", a baseline's, or as in the benchmark); the name asked
        for; printed name; seed.
    chosen_by
        What the epoch was chosen by on the validation days, "ic" or "regret"; empty for what does
        not learn.
    status, cause
        "ok"; "timeout" where the time budget ended the training, the metrics are then of the
        epochs that were run; "failed" with one line on why.
    metrics
        On the test days, see `metrics`.
    timing
        Seconds: per epoch (means over the epochs) ``epoch_s``, ``predictor_s``, ``forward_s``,
        ``backward_s``, ``forward_solver_s``, ``backward_solver_s``, ``other_s``; once ``build_s``
        (DC3's training); ``decide_s`` a test day; numbers ``days`` and ``epochs``.
    epochs
        One object per epoch, `train.EpochRecord`.
    statuses
        How often the layer reported which status while training and deciding.
    market, config
        Facts about the data, and the configuration.
    """

    id: str
    data: str
    method: str
    name: str
    label: str
    seed: int
    status: Literal["ok", "timeout", "failed"]
    chosen_by: str = ""
    cause: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""
    statuses: dict[str, int] = field(default_factory=dict)
    market: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    at: str = ""
    schema: int = _SCHEMA


def _upgrade(data: dict[str, Any]) -> dict[str, Any]:
    # In schema 1 the epoch was chosen by the IC alone.
    return data | {"chosen_by": "ic"}


RESULTS = json_records(RunResult, "portfolio result", "id", _SCHEMA, _upgrade)


class PortfolioFolder:
    """The folder ``portfolio/`` of a run directory, with its files (docs/portfolio.md)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.jsonl"
        self.summary = path / "summary.csv"
        self.significance = path / "significance.json"
        self.gradients = path / "gradients.json"
        self.speed = path / "speed.json"
        self.environment = path / "environment.json"

    @classmethod
    def of(cls, run: Path) -> PortfolioFolder:
        """Return the folder of a run directory."""
        return cls(run / "portfolio")

    def series(self, identity: str) -> Path:
        """Daily series of one result, Parquet."""
        return self.path / "series" / f"{identity}.parquet"

    def checkpoint(self, identity: str) -> Path:
        """Where an unfinished training is kept."""
        return self.path / "checkpoints" / f"{identity}.pt"


def load_results(folder: PortfolioFolder) -> list[RunResult]:
    """Read results.jsonl; of lines with the same id the last one counts.

    A last line that was cut is left out; the run that goes on with the folder repairs it.

    Raises
    ------
    ResultsError
        If another line cannot be read.
    """
    if not folder.results.is_file():
        return []
    return list({result.id: result for result in RESULTS.read(folder.results)}.values())


def load_series(folder: PortfolioFolder, results: Iterable[RunResult]) -> pd.DataFrame:
    """Read the daily series of results, with what identifies these as further columns."""
    frames = []
    for result in results:
        path = folder.series(result.id)
        if path.is_file():
            frame = pd.read_parquet(path)
            for column in ("data", "method", "name", "label", "seed", "chosen_by"):
                frame[column] = getattr(result, column)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary_frame(results: Iterable[RunResult]) -> pd.DataFrame:
    """Means over seeds: columns data, method, chosen_by, metric, mean, std, n.

    ``method`` is the name that was asked for ("bpqp", "bpqp-fast"), ``train_s`` a metric beside
    those of `metrics`: seconds of training per epoch. Only complete results count.
    """
    keys = ["data", "method", "chosen_by", "metric"]
    values = [
        (result.data, result.name, result.chosen_by, metric, value)
        for result in results
        if result.status == "ok"
        for metric, value in (
            *((name, result.metrics.get(name, math.nan)) for name in METRICS),
            *((name, result.timing.get(source, math.nan)) for name, source in _TIMES.items()),
        )
        if math.isfinite(value)
    ]
    frame = pd.DataFrame(values, columns=[*keys, "value"])
    found = frame.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    return found.rename(columns={"count": "n"})


def speaking_market(summary: pd.DataFrame) -> pd.DataFrame:
    """Keep one market: qlib if there, else synthetic, else sp500, else the first."""
    present = list(dict.fromkeys(summary["data"]))
    ranked = [name for name in _DATA_ORDER if name in present] + present
    return summary[summary["data"] == ranked[0]] if ranked else summary


def load_json(path: Path) -> list[dict[str, Any]]:
    """Read a list of objects; an empty one where the file does not exist.

    Raises
    ------
    ResultsError
        If it is not JSON.
    """
    if not path.is_file():
        return []
    try:
        content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is not valid JSON: {error}") from None
    return content
