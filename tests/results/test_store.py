"""The append-only store: what it survives."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpqp_bench.errors import ResultsError
from bpqp_bench.results.store import RecordStore, json_records, read_json, write_file, write_json


@dataclass(frozen=True)
class Note:
    id: str
    value: float = 0.0
    text: str = ""
    schema: int = 2


NOTES = json_records(Note, "note", "id", 2, upgrade=lambda old: old | {"text": "upgraded"})


def keep(path: Path, *notes: Note, replace: bool = False) -> RecordStore[Note]:
    with RecordStore(path, NOTES, replace) as store:
        for note in notes:
            store.append(note)
    return store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    notes = [Note("a", math.inf, "ε"), Note("b", -1.5, "two\nlines")]
    keep(tmp_path / "made" / "notes.jsonl", *notes)
    assert NOTES.read(tmp_path / "made" / "notes.jsonl") == notes
    keep(tmp_path / "nan.jsonl", Note("c", math.nan))
    assert math.isnan(NOTES.read(tmp_path / "nan.jsonl")[0].value)


def test_half_a_surrogate_pair_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    keep(path, Note("a", text="bad \ud83d text"))
    (tmp_path / "foreign.jsonl").write_text('{"id":"b","text":"bad \\ud83d text","schema":2}\n')
    for file in (path, tmp_path / "foreign.jsonl"):
        (note,) = NOTES.read(file)
        assert note.text == "bad ? text"
        note.text.encode()


def test_a_key_is_kept_once_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    with RecordStore(path, NOTES) as store:
        store.append(Note("a"))
        with pytest.raises(ResultsError, match="note a was made twice"):
            store.append(Note("a", 1.0))
    keep(path, Note("a", 2.0), replace=True)
    with RecordStore(path, NOTES, replace=True) as store:
        assert store.records == [Note("a", 2.0)]
        assert "a" in store
        assert len(store) == 1
    assert NOTES.read(path) == [Note("a"), Note("a", 2.0)]


def test_older_schema_is_upgraded_a_newer_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"id":"a","value":1,"schema":1}\n')
    assert NOTES.read(path) == [Note("a", 1.0, "upgraded")]
    path.write_text('{"id":"a","value":1,"schema":3}\n')
    with pytest.raises(ResultsError, match=r"line 1 is not a note: note of schema 3, expected 2"):
        NOTES.read(path)


@pytest.mark.parametrize(
    "line", ["[]", "7", "{}", '{"schema":"x"}', '{"id":3,"schema":2}', "\x00\xff", "[" * 100_000]
)
def test_a_malformed_line_is_one_clear_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(line.encode("latin-1") + b"\n" + NOTES.encode(Note("a")) + b"\n")
    with pytest.raises(ResultsError, match=r"notes.jsonl, line 1 is not a note") as error:
        NOTES.read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_file_that_vanishes_or_is_replaced_stops_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    with RecordStore(path, NOTES) as store:
        store.append(Note("a"))
        path.unlink()
        with pytest.raises(ResultsError, match="No such file"):
            store.append(Note("b"))
        path.write_text("")
        with pytest.raises(ResultsError, match="replaced by another file"):
            store.append(Note("b"))


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    code = f"""
import resource, signal, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import NOTES, Note, RecordStore, ResultsError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with RecordStore(pathlib.Path({str(path)!r}), NOTES) as store:
    store.append(Note("a"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (120, resource.RLIM_INFINITY))
    for attempt in range(2):
        try:
            store.append(Note("b", text="x" * 200))
        except ResultsError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(Note("b"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert "could not be written" in done.stdout
    assert [note.id for note in NOTES.read(path)] == ["a", "b"]


def test_links_are_not_followed_when_writing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("notes.jsonl", "config.json", "notes.cut"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(ResultsError, match="cannot be written to"):
        RecordStore(tmp_path / "notes.jsonl", NOTES)
    write_json(tmp_path / "config.json", {"a": 1})
    assert read_json(tmp_path / "config.json") == {"a": 1}
    (tmp_path / "notes.jsonl").unlink()
    (tmp_path / "notes.jsonl").write_text("cut")
    with pytest.raises(ResultsError, match="cannot be written to"):
        RecordStore(tmp_path / "notes.jsonl", NOTES)
    assert victim.read_text() == "mine"


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    (tmp_path / f".file.{os.getpid()}.tmp").write_text("left by a kill")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ResultsError, match="cannot be written"):
        write_file(tmp_path / "none" / "file", b"")


@pytest.mark.parametrize("content", ["", "[1]", "{", '"text"', "[" * 100_000])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ResultsError, match=r"config.json"):
        read_json(tmp_path / "config.json")
    with pytest.raises(ResultsError, match=r"cannot be read"):
        read_json(tmp_path / "missing.json")


def test_lines_are_json_that_anybody_reads(tmp_path: Path) -> None:
    keep(tmp_path / "notes.jsonl", Note("a", 2.0))
    (line,) = (tmp_path / "notes.jsonl").read_text().splitlines()
    assert json.loads(line) == {"id": "a", "value": 2.0, "text": "", "schema": 2}
