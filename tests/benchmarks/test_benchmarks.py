"""asv: benchmarks are found and run, steps are detected, the published site opens in a browser."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import ROOT

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
_TIME = "passes.BackwardCall.time_pass"
_ERROR = "accuracy.Accuracy.track_relative_error"
_COMMITS = 13
_PLANTED = 7  # the first commit that is slower

pytest.importorskip("asv", reason="asv is not installed")


def _load(name: str, folder: Path = ROOT) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Project:
    """A repository of its own with this one's benchmarks, and asv in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        # asv keeps what it knows of the machine in the home folder.
        home = folder / "home"
        home.mkdir()
        self.environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"}
        # What asv makes the PYTHONPATH of the processes that it measures in.
        self.environment["ASV_PYTHONPATH"] = str(ROOT)
        shutil.copytree(ROOT / "benchmarks", self.folder / "benchmarks")
        shutil.copy(ROOT / "asv.conf.json", self.folder)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", ".")
        for number in range(_COMMITS):
            # A day apart: asv orders by date.
            date = f"2026-01-{number + 1:02d}T12:00:00+00:00"
            self.environment |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
            self.git("commit", "--quiet", "--allow-empty", "-m", f"commit {number}")
        self.commits = self.git("log", "--reverse", "--format=%H").split()
        self.asv("machine", "--yes", "--machine", "somewhere")

    def git(self, *arguments: str) -> str:
        return self._run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments)

    def asv(self, *arguments: str) -> str:
        return self._run(sys.executable, "-m", "asv", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Measure one cell at the first commit, for real."""
    project = Project(tmp_path_factory.mktemp("asv"))
    project.asv(
        *("run", "--quick", "--machine", "somewhere", "--set-commit-hash", project.commits[0]),
        *("--environment", f"existing:{sys.executable}"),
        *("--bench", r"(BackwardCall|relative_error)\b.*'bpqp-direct', 'qp-active'"),
    )
    return project


@pytest.fixture(scope="module")
def measured(project: Project) -> Path:
    (path,) = (project.folder / ".asv/results/somewhere").glob(f"{project.commits[0][:8]}-*.json")
    return path


def _values(result: dict[str, Any], name: str) -> list[float]:
    return [x for x in result["results"][name][0] if isinstance(x, float) and math.isfinite(x)]


@pytest.mark.slow
def test_everything_that_is_tracked_is_found(project: Project) -> None:
    found = json.loads((project.folder / ".asv/results/benchmarks.json").read_text())
    passes = {
        f"passes.{pass_}{protocol}.time_pass"
        for pass_ in ("Forward", "Backward")
        for protocol in ("Call", "Solver")
    }
    accuracy = {
        f"accuracy.Accuracy.track_{name}"
        for name in ("one_minus_cos", "relative_error", "kkt_residual", "iterations")
    }
    machinery = {
        "machinery.Reference.time_reference",
        "machinery.Runner.track_overhead_per_measurement",
        "machinery.Runner.track_overhead_share",
        "machinery.Runner.track_start_of_workers",
    }
    sparse = {
        "sparse.SparseMemory.peakmem_passes",
        *(f"sparse.Sparse.track_{name}" for name in ("forward", "backward", "growth", "residual")),
    }
    assert set(found) - {"version"} == (
        passes
        | accuracy
        | machinery
        | sparse
        | {"accuracy.Memory.peakmem_passes", "layer.Layer.time_both_passes"}
    )
    assert all(found[name]["param_names"] == ["method", "family", "size"] for name in passes)


@pytest.mark.slow
def test_one_cell_is_measured(measured: Path) -> None:
    result = json.loads(measured.read_text())
    (seconds,) = _values(result, _TIME)
    (error,) = _values(result, _ERROR)
    assert 1e-6 < seconds < 1.0
    assert error < 1e-9


def _write_history(project: Project, measured: Path) -> None:
    template = json.loads(measured.read_text())
    for number, commit in enumerate(project.commits):
        result = json.loads(json.dumps(template))
        dated = int(project.git("show", "-s", "--format=%ct", commit)) * 1000
        result |= {"commit_hash": commit, "date": dated}
        for name, before, after in ((_TIME, 1e-4, 1.2e-4), (_ERROR, 1e-15, 1e-3)):
            # Wanders by two percent, as it does on a machine in use.
            value = (after if number >= _PLANTED else before) * (1.0 + 0.02 * (number % 3 - 1))
            old = result["results"][name][0]
            result["results"][name][0] = [
                value if isinstance(x, float) and math.isfinite(x) else x for x in old
            ]
        target = measured.with_name(measured.name.replace(project.commits[0][:8], commit[:8]))
        target.write_text(json.dumps(result))


@pytest.fixture(scope="module")
def site(project: Project, measured: Path) -> Path:
    _write_history(project, measured)
    project.asv("publish")
    return project.folder / ".asv/html"


@pytest.mark.slow
def test_asv_lists_the_planted_regressions_at_their_commit(project: Project, site: Path) -> None:
    listed = json.loads((site / "regressions.json").read_text())["regressions"]
    revisions = json.loads((site / "index.json").read_text())["revision_to_hash"]
    found = {entry[0]: entry[6] for entry in listed}
    cell = "('bpqp-direct', 'qp-active', '50x10')"
    assert set(found) == {_TIME + cell, _ERROR + cell}
    for jumps in found.values():
        ((_, revision, before, after),) = jumps
        assert revisions[str(revision)] == project.commits[_PLANTED]
        assert after > 1.1 * before


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@pytest.mark.slow
@pytest.mark.skipif(_BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm to fetch what asv's page loads")
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("", "track_relative_error"),
        ("#/regressions", "BackwardCall.time_pass('bpqp-direct', 'qp-active', '50x10')"),
    ],
)
def test_site_opens_in_a_browser(site: Path, tmp_path: Path, page: str, shown: str) -> None:
    offline = _load("offline_site")
    if not (site / "vendor").is_dir():
        try:
            placed = offline.make_offline(site, ROOT / ".asv" / "vendor")
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("npm cannot reach its registry")
        assert len(placed) == 10
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            *(str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}", "--dump-dom"),
            "--virtual-time-budget=8000",
            f"http://127.0.0.1:{server.server_port}/index.html{page}",
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
        server.shutdown()
    assert shown in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_changed_page_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script src="https://cdn.localhost/new.js"></script>')
    with pytest.raises(SystemExit, match=r"new\.js, which is not known"):
        _load("offline_site").make_offline(tmp_path, tmp_path / "cache")


def test_lock_leaves_the_versions_under_test_alone() -> None:
    locked = _load("install_locked").locked
    everything = locked(ROOT / "requirements.lock", set())
    rest = locked(ROOT / "requirements.lock", {"osqp", "torch"})
    assert {pin.partition("==")[0] for pin in set(everything) - set(rest)} == {"osqp", "torch"}
    assert all("==" in pin for pin in everything)


@pytest.mark.parametrize("kind", ["slow", "turn", "scale"])
def test_plants_do_what_they_say(kind: str, tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "methods").mkdir()
    source = """
import time
import numpy as np
class BPQP():
    def backward(self, upstream, clock):
        end = time.perf_counter() + 5e-3
        while time.perf_counter() < end:
            pass
        return {"q": np.arange(1.0, 5.0)}
"""
    (tmp_path / "methods/bpqp.py").write_text(source)
    _load("plant").plant(tmp_path, kind)
    namespace: dict[str, Any] = {}
    exec((tmp_path / "methods/bpqp.py").read_text(), namespace)
    import time

    start = time.perf_counter()
    gradient = namespace["BPQP"]().backward(np.ones(4), None)["q"]
    taken = time.perf_counter() - start
    exact = np.arange(1.0, 5.0)
    error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
    assert error == pytest.approx(0.0 if kind == "slow" else 1e-3, rel=1e-9)
    cosine = gradient @ exact / np.linalg.norm(gradient) / np.linalg.norm(exact)
    assert (1.0 - cosine > 1e-8) == (kind == "turn")
    if kind == "slow":
        assert taken >= 6e-3
