"""From the tidy frame to what the tables ask of a cell: its times, its outcome, its footnotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Size

__all__ = ["PASSES", "PROTOCOLS", "Cells", "Outcome", "State", "add_times", "sort_sizes"]

Pass = Literal["forward", "backward", "total"]
Protocol = Literal["call", "solver"]
State = Literal["measured", "timeout", "failed", "unsupported", "unavailable", "missing"]
PASSES: tuple[Pass, ...] = ("forward", "backward", "total")
PROTOCOLS: tuple[Protocol, ...] = ("call", "solver")

Key = tuple[str, str, str]

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
# Gradients of these families are of norm 1e-3 and more; zero ones were seen at 1e-36.
_ZERO_GRADIENT = 1e-20


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
        chosen = _one_setting(add_times(frame)).reset_index(drop=True)
        self.left_out = len(frame) - len(chosen)
        self.frame = chosen
        self._groups = _groups(chosen)
        counted = (chosen["role"] == "measured") & chosen["status"].isin(_ANSWERED)
        kept = chosen[counted].sort_values("start", kind="stable")
        kept = kept.drop_duplicates([*_KEY, "instance"]).sort_index()
        # Numbers in place of the hashes: an index of texts makes every look-up slow.
        codes, self.instances = pd.factorize(kept["instance"])
        self._kept = kept = kept.set_index(pd.Index(codes, name="instance"))
        self._index = codes
        self._answers = _groups(kept)
        # Tables ask for the same column of many cells: each becomes an array once.
        self._columns: dict[str, NDArray[np.float64]] = {}
        self._calls = chosen[_OUTCOME].to_dict("records")
        self._outcomes: dict[Key, Outcome] = {}
        self._active: dict[tuple[str, str], tuple[float, int, int] | None] = {}
        self._of_method = {key[2]: int(rows[0]) for key, rows in reversed(self._groups.items())}
        apart = kept["reference.degenerate"].fillna(False).astype(bool).to_numpy()
        self._degenerate = apart
        self._apart = apart | (self._numbers("accuracy.q.norm") < _ZERO_GRADIENT)

    def sizes(self, *families: str) -> list[str]:
        """Sizes that occur with these families."""
        return sort_sizes(size for family, size, _ in self._groups if family in families)

    def keys(self) -> list[Key]:
        """Every (family, size, method) that occurs."""
        return list(self._groups)

    def families(self) -> list[str]:
        """Families that occur."""
        return sorted({family for family, _, _ in self._groups})

    def methods(self, *families: str) -> list[str]:
        """Keys of the methods that occur with these families."""
        return sorted({method for family, _, method in self._groups if family in families})

    def methods_at(self, size: str) -> list[str]:
        """Keys of the methods that occur at a size."""
        return sorted({method for _, there, method in self._groups if there == size})

    def label(self, method: str) -> str | None:
        """Return the printed name of a method, or None if it does not occur."""
        row = self._of_method.get(method)
        return None if row is None else str(self.frame["label"].iloc[row])

    def measured(self, family: str, size: str, method: str) -> pd.DataFrame:
        """Return the counted calls that gave an answer, indexed by instance; maybe none.

        Instances are numbered; the number is the place in `instances`.
        """
        return self._kept.iloc[self._rows(family, size, method)]

    def times(
        self, family: str, size: str, method: str, which: Pass, protocol: Protocol
    ) -> pd.Series:
        """Seconds of a pass by instance."""
        return self.values(family, size, method, f"time.{which}.{protocol}")

    def values(self, family: str, size: str, method: str, column: str) -> pd.Series:
        """Values of a column by instance, without missing ones."""
        rows = self._rows(family, size, method)
        values = self._numbers(column)[rows]
        known = ~np.isnan(values)
        return pd.Series(values[known], index=self._index[rows[known]], name=column)

    def regular(self, family: str, size: str, method: str, column: str) -> pd.Series:
        """Values of a column on the instances whose gradient has a direction, by instance.

        Only answers with an accuracy count. At a vertex the gradient is zero, of which the
        reference holds a rounding error that points nowhere; such an instance is set apart like
        one whose gradient does not exist.
        """
        rows = self._judged(family, size, method)
        rows = rows[~self._apart[rows]]
        return pd.Series(self._numbers(column)[rows], index=self._index[rows], name=column)

    def apart(self, family: str, size: str, method: str) -> int:
        """Count the answers with an accuracy on instances that `regular` leaves out."""
        return int(self._apart[self._judged(family, size, method)].sum())

    def degenerate(self, family: str, size: str, method: str, column: str) -> pd.Series:
        """Values of a column on the instances whose gradient does not exist."""
        rows = self._rows(family, size, method)
        rows = rows[self._degenerate[rows]]
        return pd.Series(self._numbers(column)[rows], index=self._index[rows], name=column)

    def split(self, method: str) -> bool:
        """Whether the phases of a method are told apart (True where it does not occur)."""
        row = self._of_method.get(method)
        if row is None or "phases_split" not in self.frame:
            return True
        return bool(self.frame["phases_split"].iloc[row])

    def active(self, family: str, size: str) -> tuple[float, int, int] | None:
        """Median, least and largest number of active constraints, over instances."""
        key = (family, size)
        if key not in self._active:
            self._active[key] = self._count_active(family, size)
        return self._active[key]

    def outcome(self, family: str, size: str, method: str) -> Outcome:
        """Say what became of a cell, with a sentence on everything that went wrong."""
        key = (family, size, method)
        if key not in self._outcomes:
            self._outcomes[key] = self._judge(key)
        return self._outcomes[key]

    def _rows(self, family: str, size: str, method: str) -> NDArray[np.intp]:
        return self._answers.get((family, size, method), _NOWHERE)

    def _judged(self, family: str, size: str, method: str) -> NDArray[np.intp]:
        rows = self._rows(family, size, method)
        return rows[~np.isnan(self._numbers("accuracy.q.one_minus_cos")[rows])]

    def _numbers(self, column: str) -> NDArray[np.float64]:
        if column not in self._columns:
            source = self._kept.get(column, np.nan)
            numbers = pd.to_numeric(pd.Series(source, index=self._kept.index))
            self._columns[column] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        return self._columns[column]

    def _count_active(self, family: str, size: str) -> tuple[float, int, int] | None:
        rows = [at for (f, s, _), at in self._groups.items() if (f, s) == (family, size)]
        if not rows:
            return None
        every = self.frame[["instance", "reference.n_active"]].iloc[np.concatenate(rows)]
        counts = pd.to_numeric(every.drop_duplicates("instance")["reference.n_active"]).dropna()
        if counts.empty:
            return None
        return float(counts.median()), int(counts.min()), int(counts.max())

    def _judge(self, key: Key) -> Outcome:
        rows = self._groups.get(key)
        if rows is None:
            return Outcome("missing")
        group = [self._calls[row] for row in rows]
        counted = [call for call in group if call["role"] == "measured"]
        answered = [call for call in counted if call["status"] in _ANSWERED]
        # A cell whose first call fails may have no counted call at all: the cause is then there.
        failed = [call for call in counted or group if call["status"] not in _ANSWERED]
        late = [call["time_limit_s"] for call in failed if call["status"] == "timeout"]
        limits = pd.to_numeric(pd.Series(late, dtype=float)).dropna()
        loose = [call for call in answered if call["status"] == "not-converged"]
        state: State = "measured"
        if not answered:
            if not failed:
                return Outcome("missing")
            worst = Counter(str(call["status"]) for call in failed).most_common(1)[0][0]
            state = _ORDER.get(worst, "failed")
        return Outcome(
            state=state,
            n=len(answered),
            not_converged=len(loose),
            timeouts=len(late),
            failures=len(failed) - len(late),
            limit_s=float(limits.max()) if len(limits) else None,
            notes=_notes(len(answered), failed, loose, str((answered or failed)[0]["label"])),
        )


_KEY = ["family", "size", "method"]
_OUTCOME = ["role", "status", "label", "solver_status", "cause", "time_limit_s"]
_NOWHERE = np.empty(0, dtype=np.intp)


def _groups(frame: pd.DataFrame) -> dict[Key, NDArray[np.intp]]:
    """Rows of every (family, size, method), in the order of their first appearance."""
    if frame.empty:
        return {}
    found = frame.groupby(_KEY, sort=False).indices
    keys = frame[_KEY].drop_duplicates().itertuples(index=False, name=None)
    return {(str(a), str(b), str(c)): np.asarray(found[(a, b, c)]) for a, b, c in keys}


def _notes(
    answers: int, failed: Sequence[dict[Any, Any]], loose: Sequence[dict[Any, Any]], label: str
) -> tuple[str, ...]:
    notes: list[str] = []
    if loose:
        said = sorted({str(call["solver_status"]) for call in loose if call["solver_status"]})
        share = "all calls" if len(loose) == answers else f"{len(loose)} of {answers} calls"
        what = ", ".join(said) or "not solved"
        notes.append(f"{label}: {share} ended without convergence ({what}); times are of those too")
    causes = Counter((str(call["status"]), " ".join(str(call["cause"]).split())) for call in failed)
    for (status, cause), count in sorted(causes.items()):
        # How many matters only where other calls of the cell gave an answer.
        share = f" ({count} of {answers + len(failed)} calls)" if answers else ""
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
