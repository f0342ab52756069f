"""The regression check: planted regressions are found, noise and unchanged code are not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from places import ROOT

from bpqp_bench import Registry, Size
from bpqp_bench.cli.regress import regress
from bpqp_bench.errors import BenchError, ResultsError
from bpqp_bench.problem.instance import Array
from bpqp_bench.reference import compute_reference
from bpqp_bench.tracking import regression
from bpqp_bench.tracking.checkouts import checkout
from bpqp_bench.tracking.regression import (
    CellVerdict,
    RegressionConfig,
    alarms,
    check_regression,
)


def _script(name: str) -> ModuleType:
    # Scripts, not modules of an installed package: loaded by path.
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _copy(folder: Path) -> Path:
    copied: Path = _script("false_alarms").copy_checkout(ROOT, folder)
    return copied


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CellVerdict]:
    """Check a copy in which BPQP is slower and the exact method wrong; Alt-Diff is as it was."""
    folder = tmp_path_factory.mktemp("checkouts")
    base, head = _copy(folder / "base"), _copy(folder / "head")
    plant = _script("plant").plant
    plant(head, "slow")
    plant(head, "turn", adapter="methods/exact.py", cls="Exact")
    # As many pairs of processes as the check takes by default: of a single pair, one process can be
    # a third slower as a whole, which hides a fifth.
    config = RegressionConfig(
        methods=("bpqp-direct", "exact-solve", "altdiff"), families=("qp-active",)
    )
    return {verdict.method: verdict for verdict in check_regression(base, head, config)}


@pytest.mark.slow
def test_a_backward_pass_that_takes_a_fifth_longer_is_caught(
    verdicts: dict[str, CellVerdict],
) -> None:
    verdict = verdicts["bpqp-direct"]
    assert any(alarm.startswith("backward pass") for alarm in verdict.alarms), verdict
    assert verdict.remeasured
    assert verdict.backward is not None
    assert verdict.backward.median == pytest.approx(1.2, abs=0.08)


@pytest.mark.slow
def test_a_gradient_error_of_one_in_a_thousand_is_caught(
    verdicts: dict[str, CellVerdict],
) -> None:
    verdict = verdicts["exact-solve"]
    # Making the gradient wrong takes a while too, so the pass may rightly be called slower as well.
    found = [alarm for alarm in verdict.alarms if "relative error of the gradient" in alarm]
    assert [alarm.split()[0] for alarm in found] == ["median", "worst"], verdict
    assert verdict.head_error == pytest.approx(1e-3, rel=1e-6)
    assert verdict.base_error < 1e-9


@pytest.mark.slow
def test_what_did_not_change_raises_no_alarm(verdicts: dict[str, CellVerdict]) -> None:
    assert verdicts["altdiff"].alarms == ()
    assert verdicts["altdiff"].head_error == verdicts["altdiff"].base_error


class _Simulated:
    """Stands for a side's process: true gradients and times that a test makes up."""

    truth: dict[int, tuple[Array, Array]]
    time: Callable[[str, int], float]
    edit: Callable[[str, dict[str, Any]], dict[str, Any]]

    def __init__(self, folder: Path) -> None:
        self._name = folder.name

    def __enter__(self) -> _Simulated:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ask(self, method: str, family: str, size: str, seed: int) -> dict[str, Any]:
        cls = type(self)
        z, gradient = cls.truth[seed]
        answer = {
            "forward": cls.time(self._name, seed),
            "backward": cls.time(self._name, seed),
            "solution": z.tolist(),
            "gradient": gradient.tolist(),
        }
        return cls.edit(self._name, answer)


_SIMULATED = RegressionConfig(
    methods=("bpqp-direct",), families=("qp-active",), sizes=("10x5",), instances=12
)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> type[_Simulated]:
    family = Registry().family("qp-active")
    truth = {}
    for seed in range(_SIMULATED.instances + 1):
        instance = family.draw(Size(10, 5), seed)
        reference = compute_reference(instance, np.ones(instance.n))
        truth[seed] = (reference.z, reference.gradients["q"])

    class Simulated(_Simulated):
        pass

    Simulated.truth = truth
    Simulated.time = staticmethod(lambda name, seed: 1e-3)
    Simulated.edit = staticmethod(lambda name, answer: answer)
    monkeypatch.setattr(regression, "SideProcess", Simulated)
    return Simulated


def _check(seed: int = 0) -> list[str]:
    return alarms(check_regression(Path("base"), Path("head"), _SIMULATED, seed))


def _noisy(rng: np.random.Generator, factor: float) -> Callable[[str, int], float]:
    def time(name: str, seed: int) -> float:
        # Instances differ, every call scatters by 15 %, and one in four is interrupted for long.
        scatter = float(rng.lognormal(0.0, 0.15))
        interrupted = 5.0 * float(rng.random()) if rng.random() < 0.25 else 0.0
        slower = factor if name == "head" else 1.0
        return 1e-3 * (1.0 + seed) * (slower * scatter + interrupted)

    return time


def test_noise_raises_no_alarm(simulated: type[_Simulated]) -> None:
    simulated.time = staticmethod(_noisy(np.random.default_rng(1), 1.0))
    assert [_check(seed) for seed in range(20)] == [[]] * 20


def test_a_slowdown_is_seen_through_noise(simulated: type[_Simulated]) -> None:
    simulated.time = staticmethod(_noisy(np.random.default_rng(1), 1.5))
    found = [_check(seed) for seed in range(5)]
    assert all(len(lines) == 2 for lines in found), found


@pytest.mark.parametrize(("extensions", "found"), [(0, False), (2, True)])
def test_whole_processes_that_are_slow_do_not_hide_a_fifth(
    simulated: type[_Simulated], extensions: int, found: bool
) -> None:
    rng = np.random.default_rng(1)
    config = replace(_SIMULATED, extensions=extensions)
    a_round = 2 * (config.instances + 1) * config.repeats  # readings of the clock, two passes each
    readings = {"base": 0, "head": 0}

    def time(name: str, seed: int) -> float:
        pair = readings[name] // a_round
        readings[name] += 1
        # Half of the first three pairs: one process, and another one from its middle on.
        struck = pair == 0 or (pair == 1 and seed >= config.instances // 2)
        slow = 1.35 if name == "base" and struck else 1.0
        return 1e-3 * float(rng.lognormal(0.0, 0.03)) * (1.2 if name == "head" else slow)

    simulated.time = staticmethod(time)
    lines = alarms(check_regression(Path("base"), Path("head"), config))
    assert [line.split(": ")[1].split()[0] for line in lines] == ["backward", "forward"] * found


def test_an_alarm_that_fresh_processes_do_not_repeat_is_dropped(
    simulated: type[_Simulated],
) -> None:
    calls = {"head": 0}
    first = _SIMULATED.rounds * (_SIMULATED.instances + 1) * _SIMULATED.repeats

    def time(name: str, seed: int) -> float:
        # The clock is read for each of the two passes; the head is slow in the first measurement.
        calls["head"] += name == "head"
        return 2e-3 if name == "head" and calls["head"] <= 2 * first else 1e-3

    simulated.time = staticmethod(time)
    verdict = check_regression(Path("base"), Path("head"), _SIMULATED)[0]
    assert verdict.remeasured
    assert verdict.alarms == ()
    assert calls["head"] == 4 * first


def test_less_exact_by_a_factor_of_three_is_an_alarm(simulated: type[_Simulated]) -> None:
    def blur(name: str, answer: dict[str, Any]) -> dict[str, Any]:
        gradient = np.array(answer["gradient"])
        return answer | {"gradient": gradient * (1.0 + (3e-5 if name == "head" else 1e-5))}

    simulated.edit = staticmethod(blur)
    assert _check() == [
        "bpqp-direct on qp-active 10x5: median relative error of the gradient 3.0e-05, was 1.0e-05"
    ]


def test_an_inexact_solution_is_an_alarm(simulated: type[_Simulated]) -> None:
    def blur(name: str, answer: dict[str, Any]) -> dict[str, Any]:
        wrong = 1e-6 if name == "head" else 0.0
        return answer | {"solution": (np.array(answer["solution"]) * (1 + wrong)).tolist()}

    simulated.edit = staticmethod(blur)
    assert all("of the solution 1.0e-06" in line for line in _check())
    assert len(_check()) == 2


def test_a_gradient_that_is_not_finite_is_an_alarm(simulated: type[_Simulated]) -> None:
    def lost(name: str, answer: dict[str, Any]) -> dict[str, Any]:
        return answer if name == "base" else answer | {"gradient": [float("nan")] * 10}

    simulated.edit = staticmethod(lost)
    assert any("error of the gradient inf" in line for line in _check())


def test_a_side_that_fails_is_an_alarm(simulated: type[_Simulated]) -> None:
    simulated.edit = staticmethod(
        lambda name, answer: {"error": "MethodError: lost"} if name == "head" else answer
    )
    assert _check() == ["bpqp-direct on qp-active 10x5: head fails: MethodError: lost"]


def test_nothing_to_compare_is_said() -> None:
    config = RegressionConfig(methods=("qpth",), families=("socp",))
    with pytest.raises(BenchError, match="nothing to compare"):
        check_regression(Path("base"), Path("head"), config)


def test_a_process_that_dies_is_said_with_its_last_words(tmp_path: Path) -> None:
    package = tmp_path / "bpqp_bench"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('this checkout is broken')\n")
    with pytest.raises(BenchError, match=r"died at .*this checkout is broken"):
        check_regression(tmp_path, tmp_path, _SIMULATED)


def test_revisions_are_checked_out_and_removed_again(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost"]
        return subprocess.run(
            [*command, *arguments], check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet", "--initial-branch=main")
    (tmp_path / "file").write_text("old")
    git("add", "file")
    git("commit", "--quiet", "-m", "old")
    (tmp_path / "file").write_text("new")
    with checkout("HEAD", tmp_path) as folder:
        assert (folder / "file").read_text() == "old"
    assert not folder.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    with (
        pytest.raises(ResultsError, match="'nowhere' is neither a folder nor a revision"),
        checkout("nowhere", tmp_path),
    ):
        pass
    with pytest.raises(ResultsError, match="holds no bpqp_bench"), checkout(str(tmp_path), ROOT):
        pass


def test_exit_status_and_message_of_the_command(
    simulated: type[_Simulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--method", "bpqp-direct", "--family", "qp-active", "--size", "10x5"]
    unchanged = CliRunner().invoke(regress, [".", ".", *options])
    assert unchanged.exit_code == 0, unchanged.output
    assert "no regression in 1 cells" in unchanged.output
    simulated.edit = staticmethod(
        # Both sides are this folder, so both are wrong; only failing tells them apart here.
        lambda name, answer: {"error": "MethodError: lost"}
    )
    failed = CliRunner().invoke(regress, [".", ".", *options])
    assert failed.exit_code == 1
    assert "REGRESSION bpqp-direct on qp-active 10x5: base fails" in failed.output
