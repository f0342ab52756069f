"""From the tidy frame to what the tables ask of a cell: its times, its outcome, its footnotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from bpqp_bench.problem.instance import Size

__all__ = ["PASSES", "PROTOCOLS", "Cells", "Outcome", "State", "add_times", "sort_sizes"]

Pass = Literal["forward", "backward", "total"]
Protocol = Literal["call", "solver"]
State = Literal["measured", "timeout", "failed", "unsupported", "unavailable", "missing"]
PASSES: tuple[Pass, ...] = ("forward", "backward", "total")
PROTOCOLS: tuple[Protocol, ...] = ("call", "solver")

_ANSWERED = ("ok", "not-converged")
_PHASES = ("call", "prepare", "setup", "solve", "extract", "other")
_NEEDED = (
    *(f"{side}.{phase}" for side in ("forward", "backward") for phase in _PHASES),
    "reference.n_active",
    "reference.degenerate",
    "peak_memory",
    "build_s",
    "time_limit_s",
    "primal_residual",
    "dual_residual",
    "complementarity",
    "objective_gap",
    "solution_error",
    "accuracy.q.one_minus_cos",
    "accuracy.q.rel_l2",
    "accuracy.q.l2",
    "accuracy.q.norm",
)
_TEXTS = (
    *("method", "label", "family", "size", "instance", "role", "status"),
    *("cause", "solver_status", "start"),
)
_CELL = ("batch", "dtype", "device", "threads", "wrt")
_ORDER: dict[str, State] = {
    "timeout": "timeout",
    "unsupported": "unsupported",
    "unavailable": "unavailable",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes
    ----------
    state
        "measured" if at least one counted call gave an answer.
    n
        Counted calls that gave an answer.
    not_converged, timeouts, failures
        Counted calls that the solver did not call solved; that hit the limit; that failed
        otherwise.
    limit_s
        Time limit of a call, where one was hit.
    notes
        One sentence for each thing a reader must know.
    """

    state: State
    n: int = 0
    not_converged: int = 0
    timeouts: int = 0
    failures: int = 0
    limit_s: float | None = None
    notes: tuple[str, ...] = ()


def add_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with columns ``time.<pass>.<protocol>`` and every column the tables read.

    "call" is everything that a training step pays, "solver" the solve phase alone; total is the
    sum of the two passes.
    """
    result = frame.copy()
    for column in _TEXTS:
        if column not in result:
            result[column] = ""
    for column in _NEEDED:
        if column not in result:
            result[column] = float("nan")
    for protocol, source in (("call", "call"), ("solver", "solve")):
        forward = pd.to_numeric(result[f"forward.{source}"])
        backward = pd.to_numeric(result[f"backward.{source}"])
        result[f"time.forward.{protocol}"] = forward
        result[f"time.backward.{protocol}"] = backward
        result[f"time.total.{protocol}"] = forward + backward
    return result


def sort_sizes(sizes: Iterable[str]) -> list[str]:
    """Sort by n, then m, each size once."""
    return [str(size) for size in sorted({Size.parse(size) for size in sizes})]


class Cells:
    """A frame of measurements, looked up by (family, size, method).

    Tables show one value of batch, dtype, device, threads and wrt: that of the benchmark (1,
    float64, cpu, gradient of q) where it was measured, else the most frequent one. What is left
    out is counted in `left_out`. Of cold and warm calls on one instance the cold one counts.

    Parameters
    ----------
    frame
        As `bpqp_bench.results.run_directory.to_frame` returns it.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        chosen = _one_setting(add_times(frame))
        self.left_out = len(frame) - len(chosen)
        self.frame = chosen
        by = ["family", "size", "method"]
        self._groups: dict[tuple[str, str, str], pd.DataFrame] = {
            (str(key[0]), str(key[1]), str(key[2])): group
            for key, group in (chosen.groupby(by, sort=False) if len(chosen) else ())
        }
        # Tables ask for the same cell many times, once per pass, protocol and statistic.
        self._answers: dict[tuple[str, str, str], pd.DataFrame] = {}
        self._outcomes: dict[tuple[str, str, str], Outcome] = {}
        self._active: dict[tuple[str, str], tuple[float, int, int] | None] = {}
        self._of_method: dict[str, pd.DataFrame] = {}
        for (_, _, method), group in self._groups.items():
            self._of_method.setdefault(method, group)

    def sizes(self, *families: str) -> list[str]:
        """Sizes that occur with these families."""
        return sort_sizes(size for family, size, _ in self._groups if family in families)

    def keys(self) -> list[tuple[str, str, str]]:
        """Every (family, size, method) that occurs."""
        return list(self._groups)

    def families(self) -> list[str]:
        """Families that occur."""
        return sorted({family for family, _, _ in self._groups})

    def methods(self, *families: str) -> list[str]:
        """Keys of the methods that occur with these families."""
        return sorted({method for family, _, method in self._groups if family in families})

    def label(self, method: str) -> str | None:
        """Return the printed name of a method, or None if it does not occur."""
        group = self._of_method.get(method)
        return None if group is None else str(group["label"].iloc[0])

    def measured(self, family: str, size: str, method: str) -> pd.DataFrame:
        """Return the counted calls that gave an answer, indexed by instance; maybe none."""
        key = (family, size, method)
        if key not in self._answers:
            self._answers[key] = self._answered(key)
        return self._answers[key]

    def _answered(self, key: tuple[str, str, str]) -> pd.DataFrame:
        group = self._groups.get(key)
        if group is None:
            return self.frame.iloc[:0]
        kept = group[(group["role"] == "measured") & group["status"].isin(_ANSWERED)]
        cold_first = kept.sort_values("start", kind="stable")
        return cold_first.drop_duplicates("instance").set_index("instance")

    def times(
        self, family: str, size: str, method: str, which: Pass, protocol: Protocol
    ) -> pd.Series:
        """Seconds of a pass by instance."""
        return self.values(family, size, method, f"time.{which}.{protocol}")

    def values(self, family: str, size: str, method: str, column: str) -> pd.Series:
        """Finite values of a column by instance."""
        rows = self.measured(family, size, method)
        return pd.to_numeric(rows[column]).dropna() if column in rows else pd.Series(dtype=float)

    def split(self, method: str) -> bool:
        """Whether the phases of a method are told apart (True where it does not occur)."""
        group = self._of_method.get(method)
        if group is None or "phases_split" not in group:
            return True
        return bool(group["phases_split"].iloc[0])

    def active(self, family: str, size: str) -> tuple[float, int, int] | None:
        """Median, least and largest number of active constraints, over instances."""
        key = (family, size)
        if key not in self._active:
            self._active[key] = self._count_active(family, size)
        return self._active[key]

    def _count_active(self, family: str, size: str) -> tuple[float, int, int] | None:
        groups = [g for (f, s, _), g in self._groups.items() if (f, s) == (family, size)]
        if not groups:
            return None
        every = pd.concat(groups).drop_duplicates("instance")
        counts = pd.to_numeric(every["reference.n_active"]).dropna()
        if counts.empty:
            return None
        return float(counts.median()), int(counts.min()), int(counts.max())

    def outcome(self, family: str, size: str, method: str) -> Outcome:
        """Say what became of a cell, with a sentence on everything that went wrong."""
        key = (family, size, method)
        if key not in self._outcomes:
            self._outcomes[key] = self._judge(key)
        return self._outcomes[key]

    def _judge(self, key: tuple[str, str, str]) -> Outcome:
        group = self._groups.get(key)
        if group is None:
            return Outcome("missing")
        counted = group[group["role"] == "measured"]
        answered = counted[counted["status"].isin(_ANSWERED)]
        # A cell whose first call fails may have no counted call at all: the cause is then there.
        failed = counted[~counted["status"].isin(_ANSWERED)]
        if counted.empty:
            failed = group[~group["status"].isin(_ANSWERED)]
        timeouts = int((failed["status"] == "timeout").sum())
        limits = pd.to_numeric(failed.loc[failed["status"] == "timeout", "time_limit_s"]).dropna()
        loose = int((answered["status"] == "not-converged").sum())
        state: State = "measured"
        if answered.empty:
            if failed.empty:
                return Outcome("missing")
            worst = Counter(str(status) for status in failed["status"]).most_common(1)[0][0]
            state = _ORDER.get(worst, "failed")
        return Outcome(
            state=state,
            n=len(answered),
            not_converged=loose,
            timeouts=timeouts,
            failures=len(failed) - timeouts,
            limit_s=float(limits.max()) if len(limits) else None,
            notes=_notes(answered, failed, loose),
        )


def _notes(answered: pd.DataFrame, failed: pd.DataFrame, loose: int) -> tuple[str, ...]:
    label = str((answered if len(answered) else failed)["label"].iloc[0])
    notes: list[str] = []
    if loose:
        said = answered.loc[answered["status"] == "not-converged", "solver_status"]
        what = ", ".join(sorted({str(status) for status in said if status})) or "not solved"
        share = "all calls" if loose == len(answered) else f"{loose} of {len(answered)} calls"
        notes.append(f"{label}: {share} ended without convergence ({what}); times are of those too")
    causes = Counter(
        (str(status), " ".join(str(cause).split()))
        for status, cause in zip(failed["status"], failed["cause"], strict=True)
    )
    for (status, cause), count in sorted(causes.items()):
        # How many matters only where other calls of the cell gave an answer.
        share = f" ({count} of {len(answered) + len(failed)} calls)" if len(answered) else ""
        text = f"{label}: {status}{share}"
        notes.append(f"{text}: {_short(cause)}" if cause else text)
    return tuple(notes)


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _one_setting(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.empty:
        return frame
    columns = [name for name in _CELL if name in frame]
    settings = pd.Series(
        [_setting(columns, row) for row in frame[columns].itertuples(index=False)],
        index=frame.index,
    )
    usual = settings[[_is_usual(setting) for setting in settings]]
    best = (usual if len(usual) else settings).value_counts().index[0]
    chosen: pd.DataFrame = frame.loc[settings == best]
    return chosen


def _setting(columns: Sequence[str], row: Iterable[object]) -> tuple[tuple[str, str], ...]:
    def plain(value: object) -> str:
        return value if isinstance(value, str) else _joined(value)

    return tuple((name, plain(value)) for name, value in zip(columns, row, strict=True))


def _joined(value: object) -> str:
    # `wrt` is a tuple in memory, a list or array after Parquet.
    if hasattr(value, "__iter__"):
        return ",".join(str(item) for item in value)
    return str(value)


def _is_usual(setting: tuple[tuple[str, str], ...]) -> bool:
    usual = {"batch": "1", "dtype": "float64", "device": "cpu", "wrt": "q"}
    return all(usual.get(name, value) == value for name, value in setting)
