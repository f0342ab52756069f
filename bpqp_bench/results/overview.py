"""A run on one screen: what each method takes, whether it is right, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bpqp_bench.problem.instance import Size
from bpqp_bench.results.measurement import Measurement, Status

_BY_ERROR = (Status.ERROR, Status.CRASH, Status.NON_FINITE, Status.WRONG_SHAPE)


@dataclass(frozen=True)
class Row:
    """One method on one family, size and setting, over its counted calls.

    Attributes
    ----------
    method, label, family, size, setting
        The cell; ``setting`` names what of it is unusual ("batch 64, 2 threads").
    n
        Calls that gave an answer.
    forward_s, backward_s, total_s
        Median seconds for one problem, None without an answer.
    one_minus_cos
        Median over instances of the worst parameter, None where there is no reference.
    right
        Whether every gradient that can be judged is right; None where none can.
    failed
        How often which status other than "ok" occurred. First and warm-up calls count only where
        no counted call was made.
    cause, key
        Of the first failure, "" where there is none; ``bpqp-bench replay RUN KEY`` makes it again.
    """

    method: str
    label: str
    family: str
    size: str
    setting: str
    n: int
    forward_s: float | None
    backward_s: float | None
    total_s: float | None
    one_minus_cos: float | None
    right: bool | None
    failed: tuple[tuple[Status, int], ...]
    cause: str
    key: str


def overview(measurements: Iterable[Measurement]) -> list[Row]:
    """Return one row a cell, by family and size, the fastest right method first."""
    cells: dict[tuple[object, ...], list[Measurement]] = {}
    for m in measurements:
        cell = (m.family, Size.parse(m.size), _setting(m), m.method)
        cells.setdefault(cell, []).append(m)
    rows = [_row(calls) for calls in cells.values()]
    return sorted(rows, key=lambda row: (row.family, Size.parse(row.size), row.setting, *rank(row)))


def rank(row: Row) -> tuple[bool, float]:
    """Return what rows are ranked by: right ones first, then by their total time."""
    return (not row.right, float("inf") if row.total_s is None else row.total_s)


def all_failed(rows: Sequence[Row]) -> list[str]:
    """Name, with a cause, each method of whose cells every one failed by an error of its own."""
    found: list[str] = []
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        if all(not row.n and {s for s, _ in row.failed} & set(_BY_ERROR) for row in mine):
            found.append(f"{method}: every call failed: {mine[0].cause}")
    return found


def _row(calls: Sequence[Measurement]) -> Row:
    first = calls[0]
    counted = [m for m in calls if m.role == "measured"] or calls
    answered = [m for m in counted if m.role == "measured" and m.status.answered and m.backward]
    bad = [m for m in counted if m.status != Status.OK]
    # At a degenerate point the gradient is not unique; one that is zero has no direction.
    unique = [m for m in answered if m.reference is not None and not m.reference.degenerate]
    judged = [[a for a in m.accuracy.values() if a.right is not None] for m in unique]
    cosines = [max(a.one_minus_cos for a in found) for found in judged if found]

    def seconds(*passes: str) -> float | None:
        values = [sum(getattr(m, name).call for name in passes) / m.batch for m in answered]
        return median(values) if values else None

    return Row(
        method=first.method,
        label=first.label,
        family=first.family,
        size=first.size,
        setting=_setting(first),
        n=len(answered),
        forward_s=seconds("forward"),
        backward_s=seconds("backward"),
        total_s=seconds("forward", "backward"),
        one_minus_cos=median(cosines) if cosines else None,
        right=all(a.right for found in judged for a in found) if cosines else None,
        failed=tuple(Counter(m.status for m in bad).items()),
        cause=bad[0].cause if bad else "",
        key=bad[0].key if bad else "",
    )


def _setting(m: Measurement) -> str:
    usual = (("batch", 1), ("dtype", "float64"), ("device", "cpu"), ("upstream", "ones"))
    parts = [f"{name} {getattr(m, name)}" for name, value in usual if getattr(m, name) != value]
    if m.threads != 1:
        parts.append(f"{m.threads} threads")
    if m.wrt != ("q",):
        parts.append(f"wrt {','.join(m.wrt)}")
    return ", ".join(parts)
