"""What a run says about machine, libraries and code."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import pytest

import bpqp_bench
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.compare import MACHINE_FIELDS
from bpqp_bench.results.environment import code_hash, describe_environment
from bpqp_bench.runner.execute import required_libraries
from bpqp_bench.runner.memory_limit import total_memory
from bpqp_bench.runner.plan import Request, make_plan

METHOD = """
from bpqp_bench import Method

class Mine(Method):
    name = "mine"
    label = "Mine"
    reference = "none"
    problem_classes = frozenset({"qp"})
    requires = ("json", "a_library_that_is_not_installed")

    def build(self, template): ...
    def forward(self, problem, clock): ...
    def backward(self, upstream, clock): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(METHOD)
    return tmp_path


def described(registry: Registry, *methods: str) -> dict[str, Any]:
    plan = make_plan([Request(methods, ("qp",), ("10x5",), 1, call_limit_s=1.0)], registry)
    return describe_environment(required_libraries(plan, registry), (1,), total_memory())


def test_environment_says_what_a_reader_needs(folder: Path) -> None:
    registry = Registry((folder,))
    environment = described(registry, "mine", "exact")
    assert json.loads(json.dumps(environment)) == environment
    for field in (*MACHINE_FIELDS, "os", "python", "blas", "git_commit", "git_dirty", "command"):
        assert field in environment
    assert environment["cpu"]
    assert environment["cores"] == len(os.sched_getaffinity(0))
    assert environment["memory"] > 2**28
    assert environment["threads"] == 1
    assert any(blas["user_api"] == "blas" for blas in environment["blas"])
    versions = environment["versions"]
    assert versions["osqp"] == importlib.metadata.version("osqp")
    assert versions["numpy"] == importlib.metadata.version("numpy")
    assert versions["a_library_that_is_not_installed"] is None
    assert "json" not in versions


def test_only_libraries_of_the_plan_count(folder: Path) -> None:
    registry = Registry((folder,))
    versions = described(registry, "mine")["versions"]
    assert "osqp" not in versions


def test_code_hash_follows_what_measures_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    for stage in ("runner", "cli"):
        (package / stage).mkdir(parents=True)
        (package / stage / "file.py").write_text("before")
    monkeypatch.setattr(bpqp_bench, "__file__", str(package / "__init__.py"))
    registry = Registry((folder,))
    before = code_hash(registry)
    (package / "cli" / "file.py").write_text("after")
    assert code_hash(registry) == before
    (package / "runner" / "file.py").write_text("after")
    assert code_hash(registry) != before


def test_code_hash_follows_the_methods_sources(folder: Path) -> None:
    before = code_hash(Registry((folder,)))
    assert code_hash(Registry((folder,))) == before
    assert code_hash(Registry()) != before
    (folder / "mine.py").write_text(METHOD + "# changed\n")
    assert code_hash(Registry((folder,))) != before
