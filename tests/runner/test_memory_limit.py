"""How much memory a run may take inside a container, from made-up control groups."""

import psutil
import pytest

from bpqp_bench.runner.memory_limit import free_memory, total_memory

MIB = 2**20


def _group(folder, names, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [("4:memory:/a/b", "sys/fs/cgroup/memory", V1), ("0::/a/b", "sys/fs/cgroup", V2)],
)
def test_the_tightest_group_decides_and_file_cache_is_free(tmp_path, line, top, names):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"9:cpu:/\n{line}\n")
    _group(tmp_path / top / "a/b", names, 90 * MIB, 30 * MIB, 10 * MIB)
    _group(tmp_path / top / "a", names, 80 * MIB, 60 * MIB, 5 * MIB)
    assert total_memory(tmp_path) == 80 * MIB
    assert free_memory(tmp_path) == 25 * MIB


def test_a_container_that_sees_its_group_as_the_root_is_held_to_it(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/docker/0123\n")
    _group(tmp_path / "sys/fs/cgroup", V2, 64 * MIB, 16 * MIB, 0)
    assert total_memory(tmp_path) == 64 * MIB
    assert free_memory(tmp_path) == 48 * MIB


def test_without_a_limit_the_machine_decides(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    _group(tmp_path / "sys/fs/cgroup", V2, "max", 16 * MIB, 0)
    assert total_memory(tmp_path) == psutil.virtual_memory().total
    assert total_memory(tmp_path / "no Linux") == psutil.virtual_memory().total


def test_a_group_that_is_over_its_limit_has_nothing_free(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    _group(tmp_path / "sys/fs/cgroup", V2, 16 * MIB, 17 * MIB, 0)
    assert free_memory(tmp_path) == 0
