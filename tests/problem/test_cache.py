"""The one folder of files that can be made again."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from bpqp_bench.problem.cache import cache_directory


def test_the_variable_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPQP_BENCH_CACHE", str(tmp_path))
    assert cache_directory("references") == tmp_path / "references"
    monkeypatch.delenv("BPQP_BENCH_CACHE")
    assert cache_directory("dc3") == platformdirs.user_cache_path("bpqp_bench") / "dc3"
