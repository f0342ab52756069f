"""Run directories: measurements on disk as they are made, and read back as one tidy frame."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bpqp_bench.errors import ResultsError
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.measurement import MEASUREMENT, Measurement
from bpqp_bench.results.store import RecordStore, lock_folder, read_json, refuse_links, write_json

if TYPE_CHECKING:
    import pandas as pd

MEASUREMENTS = "measurements.jsonl"
# What a run leaves if it is ended while its directory is being made.
_BEFORE_CONFIG = (".lock", "environment.json")


class RunDirectory:
    """The files of one run, open for appending by one process; use `create` or `resume`.

    Attributes
    ----------
    path
        The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_links(path)
        (path / "logs").mkdir(exist_ok=True)
        self._store = RecordStore(path / MEASUREMENTS, MEASUREMENT)

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Self:
        """Make a new run directory.

        Raises
        ------
        ResultsError
            If it exists and is not empty, or cannot be made. One that was ended before its
            config.json was written counts as empty.
        """
        lock = lock_folder(path)
        try:
            if any(file.name not in _BEFORE_CONFIG and not _is_temporary(file)
                   for file in path.iterdir()):  # fmt: skip
                raise ResultsError(
                    f"{path} exists and is not empty; resume it with --resume or choose another"
                )
            write_json(path / "environment.json", environment)
            write_json(path / "config.json", config)
        finally:
            lock.release()
        return cls(path)

    @classmethod
    def resume(cls, path: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Self:
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
            path, "environment", _comparable(read_json(path / "environment.json")),
            _comparable(environment),
        )  # fmt: skip
        return cls(path)

    @property
    def measurements(self) -> list[Measurement]:
        """What it held when it was opened, then what was appended."""
        return self._store.records

    @property
    def repaired(self) -> str:
        """What was done about a last line that was cut in the middle; empty if nothing."""
        return self._store.repaired

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, key: str) -> bool:
        return key in self._store

    def append(self, measurement: Measurement) -> None:
        """Write one measurement; it is on disk on return. Raises as `RecordStore.append`."""
        self._store.append(measurement)

    def close(self) -> None:
        """Close the files and release the directory."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
    if not path.is_file():
        names = (MEASUREMENTS, f"{MEASUREMENTS}.gz")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ResultsError(f"{path} holds no {MEASUREMENTS}")
        path = found[0]
    return MEASUREMENT.read(path)


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
        raise ResultsError(
            f"{path} is not a run directory: it has no config.json; "
            "if it was to become one, start it again without --resume"
        )
    return read_json(path / "config.json")


def _is_temporary(file: Path) -> bool:
    return file.name.startswith(".") and file.suffix == ".tmp"


_NESTED = {"forward": PassTime, "backward": PassTime, "reference": Reference, "accuracy": Accuracy}


def _columns() -> list[str]:
    names: list[str] = []
    for field in fields(Measurement):
        if field.name in _NESTED:
            middle = ".q" if field.name == "accuracy" else ""
            inner = fields(_NESTED[field.name])
            names += [f"{field.name}{middle}.{part.name}" for part in inner]
        else:
            names.append(field.name)
    return names


def _flat(measurement: Measurement) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(measurement).items():
        if name == "accuracy":
            for parameter, accuracy in value.items():
                row |= {f"accuracy.{parameter}.{part}": v for part, v in accuracy.items()}
        elif name not in _NESTED:
            row[name] = value
        elif value is not None:
            row |= {f"{name}.{part}": v for part, v in value.items()}
    row["wrt"] = measurement.wrt
    return row


def _comparable(environment: Mapping[str, Any]) -> dict[str, Any]:
    # What must be the same in all sessions of a run, or two sets of results would be mixed.
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
