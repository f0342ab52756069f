"""What commands print."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bpqp_bench.cli.listing import list_plugins
from bpqp_bench.cli.main import cli, main
from bpqp_bench.cli.output import overview_table, printable
from bpqp_bench.errors import SpecError
from bpqp_bench.method.phase_clock import PassTime
from bpqp_bench.problem.files import read_npz
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.results.compare import different_loads
from bpqp_bench.results.measurement import Measurement, Status
from bpqp_bench.results.merge import merge_runs
from bpqp_bench.results.overview import all_failed, overview
from bpqp_bench.results.run_directory import RunDirectory, load_measurements, read_config


def call(method: str, seed: int, **changes: Any) -> Measurement:
    whole = 1e-3 * (seed + 1)
    seconds = PassTime(call=whole, prepare=0, setup=0, solve=whole, extract=0, other=0)
    made: dict[str, Any] = {
        **{"key": f"{method} {seed}", "method": method, "label": method, "family": "qp"},
        **{"problem_class": "qp", "size": "10x5", "n": 10, "m": 5, "seed": seed},
        **{"instance": f"hash {seed}", "role": "measured", "status": Status.OK},
        "forward": seconds,
        "backward": seconds,
        "accuracy": {"q": Accuracy(one_minus_cos=1e-12, rel_l2=1e-8, l2=1e-8, norm=1.0)},
        "reference": Reference(
            degenerate=False, why="", n_active=2, margin=0.1, condition=1.0, residual=0.0
        ),
    }
    return Measurement(**made | changes)


def failure(method: str, seed: int, status: Status = Status.ERROR, **changes: Any) -> Measurement:
    nothing = {"forward": None, "backward": None, "accuracy": {}, "reference": None}
    return call(method, seed, status=status, **{"cause": "ValueError: no"} | nothing | changes)


WRONG = {"q": Accuracy(one_minus_cos=0.5, rel_l2=1.0, l2=1.0, norm=1.0)}
ZERO = {"q": Accuracy(one_minus_cos=0.5, rel_l2=1e30, l2=1e-14, norm=1e-40)}


def test_overview_ranks_right_methods_by_their_median_time() -> None:
    fast = [call("fast", seed, accuracy=WRONG) for seed in range(3)]
    slow = [call("slow", seed + 5) for seed in range(3)]
    some = [call("some", 8), failure("some", 9), call("some", 0, role="first")]
    rows = overview([*fast, *slow, *some])
    assert [row.method for row in rows] == ["slow", "some", "fast"]
    assert [row.right for row in rows] == [True, True, False]
    assert rows[0].total_s == pytest.approx(2 * 7e-3)
    assert (rows[1].n, rows[1].failed, rows[1].key) == (1, ((Status.ERROR, 1),), "some 9")


def test_zero_and_degenerate_gradients_are_never_wrong() -> None:
    degenerate = Reference(
        degenerate=True, why="", n_active=2, margin=0.0, condition=1.0, residual=0.0
    )
    odd = [call("m", 0, accuracy=ZERO), call("m", 1, accuracy=WRONG, reference=degenerate)]
    (row,) = overview(odd)
    assert (row.right, row.one_minus_cos, row.n) == (None, None, 2)
    assert overview([*odd, call("m", 2)])[0].right is True


def test_methods_of_which_nothing_works_are_named() -> None:
    bad = [failure("bad", seed, size=size) for seed, size in enumerate(("10x5", "50x10"))]
    slow = [failure("slow", 0, Status.TIMEOUT)]
    assert all_failed(overview([*bad, *slow, call("good", 0)])) == [
        "bad: every call failed: ValueError: no"
    ]
    assert all_failed(overview([*bad, call("bad", 5)])) == []


def test_nothing_is_cut_off_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    with redirect_stdout(stream):
        overview_table(overview([failure("a-long-name", 0, label="\x1b]0;title\x07 A label")]))
    shown = stream.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "\x1b" not in shown
    for part in ("1 error", "ValueError", "no", "(replay"):
        assert part in shown
    listed = CliRunner().invoke(list_plugins, ["methods"], env={"COLUMNS": "80"}).output
    assert max(map(len, listed.splitlines())) <= 80
    assert "…" not in listed


def test_control_characters_are_shown_not_sent() -> None:
    assert printable("a\x1b[2Jb\x9bc\td\n") == "a�[2Jb�c\td\n"


def test_list_as_json() -> None:
    found = json.loads(CliRunner().invoke(list_plugins, ["--json"]).output)
    names = {entry["name"]: entry for entry in found["methods"]}
    assert names["bpqp"]["classes"] == ["LP", "QP", "SOCP"]
    assert "SOCP" in names["altdiff"]["why_not"]
    assert {"qp", "own"} <= {entry["name"] for entry in found["families"]}


def test_what_tasks_left_is_in_a_merged_run(tmp_path: Path) -> None:
    shards = [run_of(tmp_path / "a", range(2)), run_of(tmp_path / "b", range(1, 4))]
    left = {
        "a/portfolio/results.jsonl": "first",
        "b/portfolio/results.jsonl": "second",
        "b/inputs/1.npz": "data",
        "b/report/index.html": "a page of b alone",
    }
    for name, text in left.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    merge_runs(shards, tmp_path / "out")
    assert (tmp_path / "out/portfolio/results.jsonl").read_text() == "first"
    assert (tmp_path / "out/inputs/1.npz").read_text() == "data"
    assert not (tmp_path / "out/report").exists()


def test_a_busier_machine_is_named() -> None:
    assert different_loads({"load": 0.1, "cores": 2}, {"load": 0.2, "cores": 2}) is None
    assert "load 0.1 in A and 4 in B" in (
        different_loads({"load": 0.1, "cores": 2}, {"load": 4.0, "cores": 2}) or ""
    )
    assert different_loads({}, {"load": 4.0}) is None


def run_of(path: Path, seeds: range, cpu: str = "X", code: str = "abc", method: str = "m") -> Path:
    config = {"code": code, "plan": {"blocks": [{"family": "qp", "seeds": list(seeds)}]}}
    with RunDirectory.create(path, config, {"cpu": cpu, "cores": 2}) as directory:
        for seed in seeds:
            directory.append(call(method, seed))
    return path


def test_shards_merge_to_one_run(tmp_path: Path) -> None:
    shards = [run_of(tmp_path / "a", range(2)), run_of(tmp_path / "b", range(1, 4))]
    assert merge_runs(shards, tmp_path / "out") == 4
    assert [m.seed for m in load_measurements(tmp_path / "out")] == [0, 1, 2, 3]
    assert len(read_config(tmp_path / "out")["plan"]["blocks"]) == 2
    other = run_of(tmp_path / "c", range(9, 10), cpu="Y")
    invoked = CliRunner().invoke(cli, ["merge", str(shards[0]), str(other), "--out", "x"])
    assert "different machines" in str(invoked.exception)
    assert merge_runs([shards[0], other], tmp_path / "both", across_machines=True) == 3
    newer = run_of(tmp_path / "d", range(9, 10), code="def")
    invoked = CliRunner().invoke(cli, ["merge", str(shards[0]), str(newer), "--out", "x"])
    assert "different versions of the code" in str(invoked.exception)
    # No cell is of two versions of the code: the first run that has it counts for all of it.
    assert merge_runs([shards[0], newer], tmp_path / "mixed", across_code=True) == 2
    other = run_of(tmp_path / "e", range(9, 10), code="def", method="other")
    assert merge_runs([shards[0], newer, other], tmp_path / "three", across_code=True) == 3
    environment = json.loads((tmp_path / "three" / "environment.json").read_text())
    assert environment["other_code"] == {"unknown": ["other"]}


def problem(**changes: Any) -> dict[str, Any]:
    n = 4
    data = {"P": np.eye(n), "q": -np.arange(n), "A": np.ones((1, n)), "b": np.ones(1)}
    return data | {"G": -np.eye(n), "h": np.zeros(n)} | changes


def test_a_batch_is_read_problem_by_problem(tmp_path: Path) -> None:
    path = tmp_path / "my.npz"
    np.savez(path, **problem(q=np.arange(12).reshape(3, 4), h=np.array([0, np.inf, 0, 0])))
    problems = read_npz(path)
    assert [list(p.q) for p in problems] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert {(p.neq, p.nineq) for p in problems} == {(1, 3)}
    np.savez(path, q=np.ones(4))
    (bare,) = read_npz(path)
    assert (bare.neq, bare.nineq, bare.P.any()) == (0, 0, False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"q": np.ones((2, 2, 2))}, "q has shape (2, 2, 2)"),
        ({"q": np.ones((2, 4)), "h": np.zeros((3, 4))}, "batches of [2, 3]"),
        ({"extra": np.ones(1)}, "holds extra"),
        ({"P": np.ones((3, 3))}, "P"),
        ({"q": np.array(["a"] * 4)}, "not an npz file of numbers"),
        ({"q": np.full(4, np.nan)}, "q"),
    ],
)
def test_bad_data_are_one_sentence(
    tmp_path: Path,
    changes: dict[str, Any],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "my.npz"
    np.savez(path, **problem(**changes))
    monkeypatch.delenv("BPQP_BENCH_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["bpqp-bench", "recommend", "--data", str(path)])
    with pytest.raises(SystemExit) as left:
        main()
    monkeypatch.delenv("BPQP_BENCH_DATA", raising=False)
    stderr = capsys.readouterr().err
    assert left.value.code == 2
    assert says in stderr
    assert stderr.count("\n") == 1


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(SpecError, match="not an npz file"):
        read_npz(tmp_path / "my.npz")


def test_layers_are_compared_on_arrays() -> None:
    from bpqp_bench import compare_layers

    frame = compare_layers(**problem(q=-np.ones(4)), methods=["exact", "bpqp"], instances=2)
    assert set(frame["method"]) == {"exact", "bpqp"}
    assert (frame["calls"] == 2).all()
    assert (frame["total_ms"] > 0).all()
    assert "<table" in frame._repr_html_()
