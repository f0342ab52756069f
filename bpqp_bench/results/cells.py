"""From the tidy frame to what the tables ask of a cell: its times, its outcome, its footnotes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Size
from bpqp_bench.reference.accuracy import COSINE_RIGHT, ERROR_RIGHT, ZERO_GRADIENT

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


class Setting(NamedTuple):
    """What a cell is besides method, family and size."""

    batch: int = 1
    dtype: str = "float64"
    device: str = "cpu"
    threads: int = 1
    wrt: str = "q"


@dataclass(frozen=True)
class Gradient:
    """How the gradients of one cell compare with their references.

    Attributes
    ----------
    judged, right
        Answers whose reference has a direction, and how many of them are right: 1 − cos at most
        `COSINE_RIGHT` and relative error at most `ERROR_RIGHT`.
    degenerate, zero
        Answers on instances whose gradient does not exist, and where it is zero.
    worst_cosine, worst_error
        Largest 1 − cos and relative error of the judged ones.
    """

    judged: int = 0
    right: int = 0
    degenerate: int = 0
    zero: int = 0
    worst_cosine: float = math.nan
    worst_error: float = math.nan

    @property
    def mark(self) -> Literal["right", "wrong", "degenerate", "zero", "unknown"]:
        """Whether every judged gradient is right; why there is none to judge."""
        if self.judged:
            return "right" if self.right == self.judged else "wrong"
        if self.degenerate or self.zero:
            return "degenerate" if self.degenerate >= self.zero else "zero"
        return "unknown"


def add_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with columns ``time.<pass>.<protocol>`` and every column the tables read.

    "call" is everything that a training step pays, "solver" the solve phase alone; total is the
    sum of the two passes. Times of a batch are divided by its size: they are of one instance.
    """
    result = frame.copy()
    usual = Setting()._asdict() | {"wrt": [], "upstream": "ones"}
    for column, value in usual.items():
        if column not in result:
            result[column] = [value] * len(result)
    for column in _TEXTS:
        if column not in result:
            result[column] = ""
    for column in _NEEDED:
        if column not in result:
            result[column] = float("nan")
    for protocol, source in (("call", "call"), ("solver", "solve")):
        forward = pd.to_numeric(result[f"forward.{source}"]) / result["batch"]
        backward = pd.to_numeric(result[f"backward.{source}"]) / result["batch"]
        result[f"time.forward.{protocol}"] = forward
        result[f"time.backward.{protocol}"] = backward
        result[f"time.total.{protocol}"] = forward + backward
    return result


def sort_sizes(sizes: Iterable[str]) -> list[str]:
    """Sort by n, then m, each size once."""
    return [str(size) for size in sorted({Size.parse(size) for size in sizes})]


class Cells:
    """A frame of measurements, looked up by (family, size, method).

    All are of one setting; what is left out is counted in `left_out`. Where a family was measured
    with several upstream gradients, the most frequent one is kept. Of cold and warm calls on one
    instance the cold one counts.

    Parameters
    ----------
    frame
        As `bpqp_bench.results.run_directory.to_frame` returns it.
    setting
        By default that of the benchmark (one instance, float64, CPU, gradient of q) if it was
        measured, else the most frequent one.
    """

    def __init__(self, frame: pd.DataFrame, setting: Setting | None = None) -> None:
        every = add_times(frame)
        found = _settings(every)
        if setting is None:
            usual = [one for one in found if one._replace(threads=1) == Setting()]
            setting = Counter(usual or found).most_common(1)[0][0] if found else Setting()
        self.setting = setting
        kept_rows = np.array([one == setting for one in found], dtype=bool)
        chosen = _one_upstream(every.loc[kept_rows]).reset_index(drop=True)
        self.left_out = len(frame) - len(chosen)
        self.frame = chosen
        self._groups = _groups(chosen)
        self._by_family: dict[str, list[tuple[str, str]]] = {}
        for family, size, method in self._groups:
            self._by_family.setdefault(family, []).append((size, method))
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
        self._degenerate = kept["reference.degenerate"].eq(True).to_numpy(dtype=bool)
        self._zero = self._numbers("accuracy.q.norm") < ZERO_GRADIENT
        self._apart = self._degenerate | self._zero
        self._right = (self._numbers("accuracy.q.one_minus_cos") <= COSINE_RIGHT) & (
            self._numbers("accuracy.q.rel_l2") <= ERROR_RIGHT
        )
        self._gradients: dict[Key, Gradient] = {}

    def sizes(self, *families: str) -> list[str]:
        """Sizes that occur with these families."""
        return sort_sizes({size for family in families for size, _ in self._of(family)})

    def keys(self) -> list[Key]:
        """Every (family, size, method) that occurs."""
        return list(self._groups)

    def families(self) -> list[str]:
        """Families that occur."""
        return sorted(self._by_family)

    def methods(self, *families: str) -> list[str]:
        """Keys of the methods that occur with these families."""
        return sorted({method for family in families for _, method in self._of(family)})

    def methods_at(self, size: str) -> list[str]:
        """Keys of the methods that occur at a size."""
        return sorted({method for _, there, method in self._groups if there == size})

    def label(self, method: str) -> str | None:
        """Return the printed name of a method, or None if it does not occur."""
        row = self._of_method.get(method)
        return None if row is None else str(self._calls[row]["label"])

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

    def numbers(self, family: str, size: str, method: str, column: str) -> NDArray[np.float64]:
        """Values of a column, without missing ones; a tenth of the time of `values`."""
        values = self._numbers(column)[self._rows(family, size, method)]
        return values[~np.isnan(values)]

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

    def gradient(self, family: str, size: str, method: str) -> Gradient:
        """Say how right the gradients of a cell are."""
        key = (family, size, method)
        if key not in self._gradients:
            rows = self._judged(*key)
            regular = rows[~self._apart[rows]]
            cosine, error = (
                self._numbers(f"accuracy.q.{name}")[regular] for name in ("one_minus_cos", "rel_l2")
            )
            self._gradients[key] = Gradient(
                judged=regular.size,
                right=int(self._right[regular].sum()),
                degenerate=int(self._degenerate[rows].sum()),
                zero=int((self._zero & ~self._degenerate)[rows].sum()),
                worst_cosine=float(cosine.max(initial=-math.inf)) if regular.size else math.nan,
                worst_error=float(error.max(initial=-math.inf)) if regular.size else math.nan,
            )
        return self._gradients[key]

    def right(self, family: str, size: str, method: str) -> bool:
        """Whether every gradient of a cell that can be judged is right, and there is one."""
        return self.gradient(family, size, method).mark == "right"

    def degenerate(self, family: str, size: str, method: str, column: str) -> pd.Series:
        """Values of a column on the instances whose gradient does not exist."""
        rows = self._rows(family, size, method)
        rows = rows[self._degenerate[rows]]
        return pd.Series(self._numbers(column)[rows], index=self._index[rows], name=column)

    def problem_class(self, family: str) -> str:
        """Return the class of a family's problems: "qp", "lp", "socp"; empty if not recorded."""
        if "problem_class" not in self.frame or family not in self._by_family:
            return ""
        size, method = self._by_family[family][0]
        return str(self.frame["problem_class"].iloc[self._groups[family, size, method][0]])

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

    def _of(self, family: str) -> list[tuple[str, str]]:
        return self._by_family.get(family, [])

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
        there = [(family, size, method) for at, method in self._of(family) if at == size]
        rows = [self._groups[key] for key in there]
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


def settings(frame: pd.DataFrame) -> list[Setting]:
    """Every setting of a frame, each once, that of the benchmark first."""
    return sorted(set(_settings(add_times(frame))), key=lambda one: (one != Setting(), one))


def _settings(frame: pd.DataFrame) -> list[Setting]:
    columns = [frame[name] for name in Setting._fields]
    return [
        Setting(int(batch), str(dtype), str(device), int(threads), _joined(wrt))
        for batch, dtype, device, threads, wrt in zip(*columns, strict=True)
    ]


def _joined(wrt: object) -> str:
    # A tuple in memory, a list or array after Parquet.
    names = [wrt] if isinstance(wrt, str) else list(wrt) if isinstance(wrt, Iterable) else []
    return ",".join(str(name) for name in names) or "q"


def _one_upstream(frame: pd.DataFrame) -> pd.DataFrame:
    if frame["upstream"].nunique() <= 1:
        return frame
    usual = frame.groupby("family")["upstream"].agg(lambda found: found.mode().iloc[0])
    kept: pd.DataFrame = frame[frame["upstream"] == frame["family"].map(usual)]
    return kept
