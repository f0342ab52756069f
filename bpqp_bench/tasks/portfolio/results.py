"""The experiment's files: what is on disk, and how it is read back. See docs/portfolio.md."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bpqp_bench.errors import ResultsError

__all__ = [
    "SCHEMA",
    "SUMMARY_METRICS",
    "PortfolioFolder",
    "RunResult",
    "load_json",
    "load_results",
    "load_series",
    "summary_frame",
    "write_json_file",
    "write_summary",
]

SCHEMA = 1
FOLDER = "portfolio"
SUMMARY_METRICS = (
    *("MSE", "IC", "ICIR", "RankIC", "AnnRet_pct", "Sharpe", "MaxDD_pct", "regret"),
    *("signal_regret", "holdings", "turnover", "violation"),
)
_DATA_ORDER = ("qlib", "synthetic", "sp500")  # which data speak for the experiment, first one wins


@dataclass(frozen=True)
class RunResult:
    """One method on one market with one seed: a line of results.jsonl.

    Attributes
    ----------
    id
        Content key: data, method, seed and everything that changes the result.
    data, method, name, label, seed
        Market; canonical key ("two-stage" or as in the benchmark); the name asked for; printed
        name; seed.
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
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class PortfolioFolder:
    """The folder ``portfolio/`` of a run directory."""

    path: Path

    @classmethod
    def of(cls, run: Path) -> PortfolioFolder:
        """Return the folder of a run directory."""
        return cls(run / FOLDER)

    @property
    def results(self) -> Path:
        """results.jsonl, append-only."""
        return self.path / "results.jsonl"

    @property
    def summary(self) -> Path:
        """summary.csv: means over seeds of the data that speak for the experiment."""
        return self.path / "summary.csv"

    @property
    def significance(self) -> Path:
        """significance.json: differences to two-stage with intervals."""
        return self.path / "significance.json"

    @property
    def gradients(self) -> Path:
        """gradients.json: end-to-end gradient of every layer against finite differences."""
        return self.path / "gradients.json"

    @property
    def speed(self) -> Path:
        """speed.json: time of a training step by method and number of assets."""
        return self.path / "speed.json"

    @property
    def environment(self) -> Path:
        """environment.json: the machine that it was measured on, one object in a list."""
        return self.path / "environment.json"

    def series(self, identity: str) -> Path:
        """Daily series of one result, Parquet."""
        return self.path / "series" / f"{identity}.parquet"

    def checkpoint(self, identity: str) -> Path:
        """Where an unfinished training is kept."""
        return self.path / "checkpoints" / f"{identity}.pt"

    def append(self, result: RunResult) -> None:
        """Write one line and make sure that it is on disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.results.open("a", encoding="utf-8") as stream:
            stream.write(result.to_json() + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def load_results(folder: PortfolioFolder) -> list[RunResult]:
    """Read results.jsonl; of lines with the same id the last one counts.

    A last line without its end, which an interruption leaves, is ignored.

    Raises
    ------
    ResultsError
        If another line cannot be read.
    """
    if not folder.results.is_file():
        return []
    found: dict[str, RunResult] = {}
    lines = folder.results.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
            result = RunResult(**content)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                continue
            raise ResultsError(f"{folder.results}, line {number}: {error}") from None
        found[result.id] = result
    return list(found.values())


def load_series(folder: PortfolioFolder, results: Iterable[RunResult]) -> pd.DataFrame:
    """Read the daily series of results: columns data, method, name, label, seed and the series'."""
    frames = []
    for result in results:
        path = folder.series(result.id)
        if path.is_file():
            frame = pd.read_parquet(path)
            for position, column in enumerate(("data", "method", "name", "label", "seed")):
                frame.insert(position, column, getattr(result, column))
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary_frame(results: Iterable[RunResult]) -> pd.DataFrame:
    """Means over seeds: columns data, method, metric, mean, std, n.

    ``method`` is the name that was asked for ("bpqp", "bpqp-fast"), ``train_s`` a metric beside
    those of `metrics`: seconds of training per epoch. Only complete results count.
    """
    rows: list[dict[str, Any]] = []
    grouped: dict[tuple[str, str], list[RunResult]] = {}
    for result in results:
        if result.status == "ok":
            grouped.setdefault((result.data, result.name), []).append(result)
    for (data, name), same in grouped.items():
        values: dict[str, list[float]] = {
            metric: [r.metrics[metric] for r in same if metric in r.metrics]
            for metric in SUMMARY_METRICS
        }
        for part in ("epoch", "predictor", "forward", "backward", "forward_solver"):
            values["train_s" if part == "epoch" else f"{part}_s"] = [
                r.timing[f"{part}_s"] for r in same if f"{part}_s" in r.timing
            ]
        for metric, numbers in values.items():
            finite = pd.Series([v for v in numbers if math.isfinite(v)], dtype=float)
            if len(finite):
                rows.append(
                    {
                        "data": data,
                        "method": name,
                        "metric": metric,
                        "mean": float(finite.mean()),
                        "std": float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
                        "n": len(finite),
                    }
                )
    return pd.DataFrame(rows, columns=["data", "method", "metric", "mean", "std", "n"])


def write_summary(folder: PortfolioFolder, results: Iterable[RunResult]) -> None:
    """Write summary.csv, of one market: qlib if there, else synthetic, else sp500, else any."""
    frame = summary_frame(results)
    present = list(dict.fromkeys(frame["data"]))
    ranked = [name for name in _DATA_ORDER if name in present] + present
    if ranked:
        frame = frame[frame["data"] == ranked[0]]
    frame.to_csv(folder.summary, index=False)


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


def write_json_file(path: Path, content: Iterable[Mapping[str, Any]]) -> None:
    """Write a list of objects in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(list(content), indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)
