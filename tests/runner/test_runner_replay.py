"""Failed calls can be made again; a user's family, and one that cannot be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from places import ADAPTERS

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Size
from bpqp_bench.problem.storage import load_instance, save_instance
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.plan import Request, make_plan
from bpqp_bench.runner.replay import replay_call
from bpqp_bench.runner.schedule import Options
from bpqp_bench.runner.time_split import RunSummary

FOLDERS = ((ADAPTERS,), (ADAPTERS / "families",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    path = tmp_path_factory.mktemp("replay") / "run"
    registry = Registry(*FOLDERS)
    methods = ("hostile[mode=raise]", "hostile[mode=nan]", "steady")
    plan = make_plan(
        [
            Request(methods, ("mine", "qp"), ("6x2",), 2, call_limit_s=10.0),
            Request(("steady",), ("mine",), ("7x2", "8x2", "9x2"), 1, call_limit_s=10.0),
        ],
        registry,
    )
    options = Options(cache=path.parent / "references")
    with open_run(path, plan, registry, options=options) as directory:
        return path, execute(plan, directory, FOLDERS, options=options)


def key_of(path: Path, method: str, family: str, seed: int) -> str:
    (found,) = [
        m.key
        for m in load_measurements(path)
        if (m.method, m.family, m.seed, m.role, m.size) == (method, family, seed, "measured", "6x2")
    ]
    return found


@pytest.mark.parametrize("family", ["mine", "qp"])
def test_failure_is_made_again(run: tuple[Path, RunSummary], family: str) -> None:
    path, _ = run
    text = replay_call(path, key_of(path, "hostile[mode=raise]", family, 1), FOLDERS)
    told = "error (forward: ValueError: first line)"
    assert f"then: {told}" in text
    assert f"now:  {told}" in text
    assert "second line" in text  # its traceback


def test_success_is_made_again_with_its_accuracy(run: tuple[Path, RunSummary]) -> None:
    path, _ = run
    text = replay_call(path, key_of(path, "steady", "mine", 0)[:20], FOLDERS)
    assert "now:  ok" in text
    assert "1 - cos of q" in text


def test_inputs_are_kept_only_of_failures_that_cannot_be_drawn_again(
    run: tuple[Path, RunSummary],
) -> None:
    path, _ = run
    kept = {file.stem for file in (path / "inputs").iterdir()}
    assert kept == {m.instance for m in load_measurements(path)
                    if m.family == "mine" and m.status in ("error", "non-finite")}  # fmt: skip
    assert len(kept) == 1  # both methods failed on the same instance
    instance = load_instance(path / "inputs" / f"{kept.pop()}.npz")
    assert instance.seed == 1
    assert instance.sha256 == Registry(*FOLDERS).family("mine").draw(instance.size, 1).sha256


def test_instances_that_cannot_be_drawn_cost_only_their_block(
    run: tuple[Path, RunSummary],
) -> None:
    path, summary = run
    lost, refused = summary.problems
    assert "mine 7x2" in refused
    assert "cannot be drawn at size 7x2" in refused
    assert "mine 8x2" in lost
    assert "exit status 3" in lost
    measurements = load_measurements(path)
    assert not [m for m in measurements if m.size in ("7x2", "8x2")]
    (after,) = [m for m in measurements if m.size == "9x2" and m.role == "measured"]
    assert after.status == "ok"
    assert after.reference is not None


@pytest.mark.parametrize(("key", "says"), [("zzz", "holds no measurement"), ("", "no measurement")])
def test_unknown_key_is_refused(run: tuple[Path, RunSummary], key: str, says: str) -> None:
    with pytest.raises(ResultsError, match=says):
        replay_call(run[0], key, FOLDERS)


@pytest.mark.parametrize("family", ["qp", "socp-robust"])
@pytest.mark.parametrize("sparse", [False, True])
def test_kept_instance_is_the_same_bits(tmp_path: Path, family: str, sparse: bool) -> None:
    registry = Registry()
    drawn = replace(registry.family(family).draw(Size(10, 5), 3), planted=None)
    if sparse:
        drawn = replace(drawn, P=sp.csc_matrix(drawn.P), G=sp.csc_matrix(drawn.G), sha256="")
    save_instance(drawn, tmp_path / "x.npz")
    read = load_instance(tmp_path / "x.npz")
    assert read.sha256 == drawn.sha256
    assert (read.family, read.size, read.seed) == (drawn.family, drawn.size, drawn.seed)
    assert len(read.cones) == len(drawn.cones)
    assert np.array_equal(read.q, drawn.q)
    (tmp_path / "x.npz").write_bytes(b"nonsense")
    with pytest.raises(ResultsError, match="cannot be read"):
        load_instance(tmp_path / "x.npz")
