"""Run directories: measurements on disk as they are made, and read back as one tidy frame."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from bpqp_bench.errors import ResultsError
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.measurement import Measurement

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MEASUREMENTS",
    "RunDirectory",
    "load_measurements",
    "merge_measurements",
    "read_config",
    "to_frame",
    "write_json",
]

MEASUREMENTS = "measurements.jsonl"
_CUT = "measurements.cut"


class RunDirectory:
    """The files of one run, open for appending by one process; use `create` or `resume`.

    Attributes
    ----------
    path
        The directory.
    measurements
        What it held when it was opened, then what was appended.
    repaired
        What was done about a last line that was cut in the middle; empty if nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements: list[Measurement] = []
        self.repaired = ""
        self._keys: set[str] = set()
        self._lock = (path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ResultsError(f"{path} is in use by another run that is going on") from None
        self._file: TextIO | None = None

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunDirectory:
        """Make a new run directory.

        Raises
        ------
        ResultsError
            If it exists and is not empty, or cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ResultsError(
                    f"{path} exists and is not empty; resume it with --resume or choose another"
                )
            run = cls(path)
        except OSError as error:
            raise ResultsError(f"{path} cannot be made: {error.strerror}") from None
        write_json(path / "environment.json", environment)
        write_json(path / "config.json", config)
        run._open()
        return run

    @classmethod
    def resume(
        cls, path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunDirectory:
        """Open a run directory to go on with it.

        A last line that was cut in the middle is moved to ``measurements.cut``.

        Raises
        ------
        ResultsError
            If it is not a run, was written by another version of the code, with another
            configuration or on another machine, or cannot be read.
        """
        _refuse_other(path, "configuration", read_config(path), config)
        _refuse_other(
            path, "environment", _comparable(_read_json(path / "environment.json")),
            _comparable(environment),
        )  # fmt: skip
        run = cls(path)
        try:
            run._repair()
            if (path / MEASUREMENTS).exists():  # else it was ended before the first one
                run.measurements = load_measurements(path)
        except BaseException:
            run.close()
            raise
        run._keys = {measurement.key for measurement in run.measurements}
        run._open()
        return run

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def append(self, measurement: Measurement) -> None:
        """Write one measurement; it is on disk on return.

        Raises
        ------
        ResultsError
            If its key is there already, or the disk takes no more.
        """
        if self._file is None:
            raise ResultsError(f"{self.path} is not open for writing")
        if measurement.key in self._keys:
            raise ResultsError(f"{self.path}: key {measurement.key} was measured twice")
        try:
            # One write, so that a kill leaves either the line or a cut one at the very end.
            self._file.write(measurement.to_json() + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResultsError(f"{self.path / MEASUREMENTS}: {error.strerror}") from None
        self._keys.add(measurement.key)
        self.measurements.append(measurement)

    def close(self) -> None:
        """Close the files and release the directory."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.close()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        self._file = (self.path / MEASUREMENTS).open("a", encoding="utf-8")
        (self.path / "logs").mkdir(exist_ok=True)

    def _repair(self) -> None:
        path = self.path / MEASUREMENTS
        if not path.exists():
            return
        content = path.read_bytes()
        if not content or content.endswith(b"\n"):
            return
        end = content.rfind(b"\n") + 1
        cut = content[end:]
        try:
            Measurement.from_json(cut.decode())
        except (ValueError, KeyError, TypeError):
            with (self.path / _CUT).open("ab") as aside:
                aside.write(cut + b"\n")
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())
            line = content.count(b"\n") + 1
            self.repaired = (
                f"line {line} of {path} was cut in the middle; moved to {_CUT} and measured again"
            )
        else:  # the line is whole, only its end is missing
            with path.open("ab") as file:
                file.write(b"\n")


def load_measurements(path: Path) -> list[Measurement]:
    """Read all measurements of a run.

    Parameters
    ----------
    path
        A run directory, or a file of measurements, ``.jsonl`` or ``.jsonl.gz``.

    Raises
    ------
    ResultsError
        If there are none, or a line is not a measurement; only the last line may be cut.
    """
    file = _measurements_file(path)
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rb") as packed:
                content = packed.read()
        else:
            content = file.read_bytes()
    except (OSError, EOFError) as error:
        raise ResultsError(f"{file} cannot be read: {error}") from None
    found: list[Measurement] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(Measurement.from_json(line.decode("utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # no newline: a run was cut here, or is writing
            what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ResultsError(f"{file}, line {number} is not a measurement: {what}") from None
    return found


def merge_measurements(parts: Iterable[Iterable[Measurement]]) -> list[Measurement]:
    """Merge shards of a plan: every key once, the first one wins."""
    merged: dict[str, Measurement] = {}
    for part in parts:
        for measurement in part:
            merged.setdefault(measurement.key, measurement)
    return list(merged.values())


def to_frame(measurements: list[Measurement]) -> pd.DataFrame:
    """Return one row a measurement and one column a field, nested ones joined by a dot.

    ``forward.call``, ``accuracy.q.one_minus_cos``, ``reference.n_active`` and so on; the columns of
    the times, of the reference and of the accuracy of q are there even if no row has them.
    """
    import pandas as pd  # noqa: PLC0415  # takes a second, and a run needs none of it

    rows = [_flat(measurement) for measurement in measurements]
    columns = list(dict.fromkeys([*_columns(), *(key for row in rows for key in row)]))
    return pd.DataFrame(rows, columns=columns)


def read_config(path: Path) -> dict[str, Any]:
    """Return the contents of a run directory's config.json.

    Raises
    ------
    ResultsError
        If it is not a run directory or cannot be read.
    """
    if not (path / "config.json").is_file():
        raise ResultsError(f"{path} is not a run directory: it has no config.json")
    return _read_json(path / "config.json")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file as a whole: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _measurements_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in (MEASUREMENTS, f"{MEASUREMENTS}.gz"):
        if (path / name).is_file():
            return path / name
    raise ResultsError(f"{path} holds no {MEASUREMENTS}")


def _columns() -> list[str]:
    nested = {
        **dict.fromkeys(("forward", "backward"), PassTime),
        "reference": Reference,
    }
    names: list[str] = []
    for field in fields(Measurement):
        if field.name in nested:
            inner: Any = nested[field.name]
            names += [f"{field.name}.{part.name}" for part in fields(inner)]
        elif field.name == "accuracy":
            names += [f"accuracy.q.{part.name}" for part in fields(Accuracy)]
        else:
            names.append(field.name)
    return names


def _flat(measurement: Measurement) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(Measurement):
        value = getattr(measurement, field.name)
        if field.name in ("forward", "backward", "reference"):
            if value is not None:
                row |= {f"{field.name}.{part.name}": getattr(value, part.name)
                        for part in fields(value)}  # fmt: skip
        elif field.name == "accuracy":
            for name, accuracy in value.items():
                row |= {f"accuracy.{name}.{part.name}": getattr(accuracy, part.name)
                        for part in fields(accuracy)}  # fmt: skip
        else:
            row[field.name] = value
    return row


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ResultsError(f"{path} is not a JSON object")
    return content


def _comparable(environment: Mapping[str, Any]) -> dict[str, Any]:
    # What may change between two sittings of one run: the rest would mix two sets of results.
    same = ("cpu", "cores", "machine", "python", "versions")
    return {name: environment.get(name) for name in same}


def _refuse_other(path: Path, what: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    here = json.loads(json.dumps(here))
    different = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if not different:
        return
    name = different[0]
    says = {
        "code": "it was made by another version of the code",
        "plan": "it has another plan (methods, families, sizes, instances or limits)",
    }.get(name, f"{name} is {_short(there.get(name))} there and {_short(here.get(name))} here")
    raise ResultsError(f"{path} cannot be resumed in this {what}: {says}; start a new run instead")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    with contextlib.suppress(TypeError):
        text = text if len(text) <= 60 else f"{text[:60]}…"
    return text
