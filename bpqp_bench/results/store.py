"""Files that survive a kill: an append-only store of records, and files written as a whole.

A store is a file of JSON, one record a line, with one writer at a time. Each record is on disk
before `RecordStore.append` returns; a kill can cut the last line only, which is repaired when the
store is opened again. Measurements and the results of tasks are kept this way.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import filelock
import msgspec

from bpqp_bench.errors import ResultsError

R = TypeVar("R")


@dataclass(frozen=True)
class Records(Generic[R]):
    """A type of record: what identifies one, and how it becomes a line and is read back.

    Attributes
    ----------
    what
        For messages: "measurement".
    key
        Identity of a record; a store holds each once.
    encode
        To one line, without its end.
    decode
        From one line; raises ValueError for anything that is not such a record.
    """

    what: str
    key: Callable[[R], str]
    encode: Callable[[R], bytes]
    decode: Callable[[bytes], R]

    def read(self, path: Path) -> list[R]:
        """Return the records of a file, plain or ``.gz``; a last line that was cut is left out.

        Raises
        ------
        ResultsError
            If it cannot be read, or another line is not a record; says which.
        """
        return self._split(path, _contents(path))[0]

    def _split(self, path: Path, content: bytes) -> tuple[list[R], bytes]:
        """Return the records, and what there is of a last line that is not one."""
        found: list[R] = []
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found.append(self.decode(line))
            except ValueError as error:
                if number == len(lines):
                    return found, line
                said = " ".join(str(error).split())[:200]
                raise ResultsError(f"{path}, line {number} is not a {self.what}: {said}") from None
        return found, b""


def json_records(
    cls: type[R],
    what: str,
    key: str,
    schema: int,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Records[R]:
    """Keep a dataclass or msgspec Struct as JSON; types are checked when it is read.

    Infinities and NaN are written as Python's json does, for residuals can be infinite.

    Parameters
    ----------
    key
        Name of the field that identifies a record.
    schema
        Its field ``schema`` must be at most this.
    upgrade
        Turns the fields of an older schema into those of this one; by default only those that
        lack nothing without a default can be read.
    """

    def encode(record: R) -> bytes:
        text = json.dumps(msgspec.to_builtins(record), separators=(",", ":"), ensure_ascii=False)
        # Half of a surrogate pair, from a method's error text, is no character in any file.
        return text.encode("utf-8", "replace")

    def decode(line: bytes) -> R:
        try:
            data = json.loads(line)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if b"\\ud" in line.lower():
            data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
        if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
            raise ValueError("it has no schema number")
        if data["schema"] > schema or (data["schema"] < schema and upgrade is None):
            raise ValueError(f"{what} of schema {data['schema']}, expected {schema}")
        if data["schema"] < schema and upgrade is not None:
            data = upgrade(data) | {"schema": schema}
        return msgspec.convert(data, cls)

    return Records(what, lambda record: str(getattr(record, key)), encode, decode)


class RecordStore(Generic[R]):
    """A file of records, open for appending by this process alone.

    Parameters
    ----------
    path
        The file; its folder is made if missing, and locked while the store is open.
    records
        What it holds.
    replace
        Let a record take the place of an earlier one with its key; both lines stay in the file.

    Attributes
    ----------
    repaired
        What was done about a last line that was cut in the middle; empty if nothing.

    Raises
    ------
    ResultsError
        If another process has it open, it cannot be read, or cannot be written to.
    """

    def __init__(self, path: Path, records: Records[R], replace: bool = False) -> None:
        self.path = path
        self.repaired = ""
        self._records = records
        self._replace = replace
        self._by_key: dict[str, R] = {}
        self._fd = -1
        self._lock = lock_folder(path.parent)
        try:
            self._fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
            )
            self._recover()
        except OSError as error:
            self.close()
            raise ResultsError(f"{path} cannot be written to: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    @property
    def records(self) -> list[R]:
        """What it held when it was opened, then what was appended."""
        return list(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def append(self, record: R) -> None:
        """Write one record; it is on disk on return.

        Raises
        ------
        ResultsError
            If its key is there already, the disk takes no more, or the file was taken away. What
            was there before stays whole.
        """
        key = self._records.key(record)
        if key in self._by_key and not self._replace:
            raise ResultsError(f"{self.path}: {self._records.what} {key} was made twice")
        if self._fd < 0:
            raise ResultsError(f"{self.path} is not open for writing")
        line = self._records.encode(record) + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            if not os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
                raise FileNotFoundError(2, "it was replaced by another file")
            # One write, so that a kill leaves either the line or a cut one at the very end.
            if os.write(self._fd, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            what = f"the {self._records.what} made last could not be written"
            raise ResultsError(f"{self.path}: {what}: {error.strerror}") from None
        self._by_key[key] = record

    def close(self) -> None:
        """Close the file and release the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()

    def __enter__(self) -> RecordStore[R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _recover(self) -> None:
        content = _contents(self.path)
        found, cut = self._records._split(self.path, content)
        self._by_key = {self._records.key(record): record for record in found}
        if cut:
            aside = self.path.with_suffix(".cut")
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            with open(fd, "ab") as file:
                file.write(cut + b"\n")
            os.ftruncate(self._fd, content.rfind(b"\n") + 1)
            os.fsync(self._fd)
            line = content.count(b"\n") + 1
            self.repaired = (
                f"line {line} of {self.path} was cut in the middle; moved to "
                f"{aside.name}, and is made again"
            )
        elif content and not content.endswith(b"\n"):  # a whole line that lacks only its end
            os.write(self._fd, b"\n")


def lock_folder(folder: Path) -> filelock.BaseFileLock:
    """Make a folder if missing and lock it for this process, until it ends or releases it.

    Raises
    ------
    ResultsError
        If another process has it, or it cannot be made.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0, is_singleton=False, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise ResultsError(f"{folder} is in use by another run that is going on") from None
    except OSError as error:
        raise ResultsError(f"{folder} cannot be made: {error.strerror}") from None
    return lock


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which something is a link: writing there would write elsewhere.

    Raises
    ------
    ResultsError
        Naming the link.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise ResultsError(f"{path} is a link, and nothing is written through links; remove it")


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole: a reader sees the old one or the new one, a link is replaced.

    Raises
    ------
    ResultsError
        If the disk or its permissions do not allow it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResultsError(f"{path} cannot be written: {error.strerror}") from None


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write JSON as `write_file` does."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    write_file(path, f"{text}\n".encode("utf-8", "replace"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ResultsError
        If it cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ResultsError(f"{path} is not a JSON object")
    return content


def _contents(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                return packed.read()
        return path.read_bytes()
    except (OSError, EOFError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
