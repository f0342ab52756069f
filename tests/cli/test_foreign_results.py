"""A results directory of somebody else: one clear line for whatever is wrong, and no harm."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_output import call, failure

from bpqp_bench.cli.main import cli
from bpqp_bench.errors import BenchError
from bpqp_bench.report.inputs import load_inputs
from bpqp_bench.results.run_directory import RunDirectory

ENVIRONMENT = {"cpu": "X", "cores": 2, "load": 0.1, "memory": 1000, "versions": {}}
NESTED = "[" * 100_000
MALFORMED = {
    "measurements.jsonl": ["{}\n", "\x00\n", f"{NESTED}\n", '{"schema":2,"key":7}\n', "[1]\n"],
    "config.json": ["", "[]", NESTED, "{}", '{"plan":7}', '{"plan":{"blocks":[1]}}', '{"plan":{}}'],
    "environment.json": [
        "",
        "7",
        NESTED,
        "{}",
        '{"cpu":"X","cores":2,"load":"much","memory":1000}',
        '{"cpu":"X","cores":"two","memory":"all"}',
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = {"code": "abc", "plan": {"blocks": []}, "profile": None}
    with RunDirectory.create(tmp_path / "run", config, ENVIRONMENT) as directory:
        directory.append(call("m", 0))
        directory.append(failure("m", 1, label="=m", cause="a\x1b]0;title\x07 b\ud83d"))
    return tmp_path / "run"


def commands(run: Path, other: Path) -> list[list[str]]:
    return [
        ["compare", str(run), str(other)],
        ["export", str(run), str(other.parent / "x.csv")],
        ["merge", str(other), str(run), "--out", str(other.parent / "merged")],
        ["replay", str(run), "m 1"],
        ["run", "--resume", "--out", str(run)],
    ]


@pytest.mark.parametrize(
    ("name", "content"), [(name, text) for name, texts in MALFORMED.items() for text in texts]
)
def test_malformed_files_are_one_clear_line(
    run: Path, tmp_path: Path, name: str, content: str
) -> None:
    with RunDirectory.create(tmp_path / "other", {"code": "abc"}, ENVIRONMENT) as directory:
        directory.append(call("m", 0))
    (run / name).write_text(content, encoding="utf-8")
    errors = [CliRunner().invoke(cli, c).exception for c in commands(run, tmp_path / "other")]
    with contextlib.suppress(BenchError):
        load_inputs(run)  # the first thing that a report does
    assert any(errors)
    for error in errors:
        if error is not None and not isinstance(error, SystemExit):
            assert isinstance(error, BenchError), repr(error)
            assert "\n" not in str(error)


def test_nothing_is_written_through_links(run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (run / "report").symlink_to(victim)
    error = CliRunner().invoke(cli, ["report", str(run)]).exception
    assert isinstance(error, BenchError)
    assert "is a link" in str(error)
    with pytest.raises(BenchError, match="is a link"):
        RunDirectory.resume(run, json.loads((run / "config.json").read_text()), ENVIRONMENT)
    assert not any(victim.iterdir())
