"""The file cache of references: hits, keys, and files that are not to be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bpqp_bench import Instance, Registry, Size
from bpqp_bench.reference import NoReferenceError, ReferenceCache, compute_reference
from bpqp_bench.reference import cache as cache_module


@pytest.fixture
def instance():
    return Registry().family("qp-active").draw(Size(12, 4), 0)


@pytest.fixture
def calls(monkeypatch):
    """Instances whose reference was computed and not read."""
    seen = []

    def counted(instance, upstream, wrt):
        seen.append(instance.sha256)
        return compute_reference(instance, upstream, wrt)

    monkeypatch.setattr(cache_module, "compute_reference", counted)
    return seen


def assert_same(left, right):
    assert left.certificate == right.certificate
    assert left.objective == right.objective
    for name in ("z", "nu", "lam", "mu"):
        assert np.array_equal(getattr(left, name), getattr(right, name))
    assert left.gradients.keys() == right.gradients.keys()
    for name, gradient in left.gradients.items():
        other = right.gradients[name]
        assert sp.issparse(gradient) == sp.issparse(other)
        if sp.issparse(gradient):
            gradient, other = gradient.toarray(), other.toarray()  # noqa: PLW2901
        assert np.array_equal(gradient, other, equal_nan=True)


def test_second_call_reads_the_file(tmp_path, instance, calls):
    v, wrt = np.ones(12), ("P", "q", "A", "b", "G", "h")
    first = ReferenceCache(tmp_path / "new" / "folder").get(instance, v, wrt)
    second = ReferenceCache(tmp_path / "new" / "folder").get(instance, v, wrt)
    assert len(calls) == 1
    assert_same(first, second)
    assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".npz"]


def test_sparse_gradients_and_nan_survive(tmp_path, calls):
    G = sp.csc_matrix(np.vstack([np.eye(2), -np.eye(2)]))
    lp = Instance(
        P=sp.csc_matrix((2, 2)),
        q=np.array([1.0, 0.0]),
        A=sp.csc_matrix((0, 2)),
        b=np.zeros(0),
        G=G,
        h=np.array([1.0, 1.0, 0.0, 0.0]),
        problem_class="lp",
    )
    cache = ReferenceCache(tmp_path)
    first = cache.get(lp, np.ones(2), ("q", "G"))
    assert np.isnan(first.gradients["q"]).all()
    assert_same(first, cache.get(lp, np.ones(2), ("q", "G")))
    assert len(calls) == 1


def test_key_holds_instance_upstream_and_parameters(tmp_path, instance, calls):
    cache = ReferenceCache(tmp_path)
    v = np.ones(12)
    other = Registry().family("qp-active").draw(Size(12, 4), 1)
    for arguments in ((instance, v), (instance, 2 * v), (other, v), (instance, v, ("q", "b"))):
        cache.get(*arguments)
    assert len(calls) == 4
    assert cache.path(instance, v, ("q", "b")) == cache.path(instance, v, ("b", "q"))


def test_another_version_of_the_code_finds_nothing(tmp_path, instance, calls, monkeypatch):
    cache = ReferenceCache(tmp_path)
    cache.get(instance, np.ones(12))
    monkeypatch.setattr(cache_module, "_code_version", lambda: "changed")
    cache.get(instance, np.ones(12))
    assert len(calls) == 2


def flip_a_byte_of_z(data):
    # The checksum of the zip format guards this; the next case does not rely on it.
    at = data.index(b"z.npy") + 200
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"not a reference",
        flip_a_byte_of_z,
    ],
    ids=["empty", "cut", "garbage", "flipped"],
)
def test_a_corrupt_file_is_computed_anew(tmp_path, instance, calls, damage):
    cache, v = ReferenceCache(tmp_path), np.ones(12)
    sound = cache.get(instance, v)
    path = cache.path(instance, v)
    path.write_bytes(damage(path.read_bytes()))
    assert_same(sound, cache.get(instance, v))
    assert len(calls) == 2
    assert_same(sound, cache.get(instance, v))
    assert len(calls) == 2


def test_a_well_formed_file_with_other_numbers_is_computed_anew(tmp_path, instance, calls):
    cache, v = ReferenceCache(tmp_path), np.ones(12)
    sound = cache.get(instance, v)
    path = cache.path(instance, v)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["z"] = arrays["z"] + 1e-12
    np.savez(path, **arrays)
    assert_same(sound, cache.get(instance, v))
    assert len(calls) == 2


def test_failures_are_not_cached(tmp_path):
    unbounded = Instance(
        P=np.zeros((1, 1)),
        q=np.ones(1),
        A=np.zeros((0, 1)),
        b=np.zeros(0),
        G=np.ones((1, 1)),
        h=np.ones(1),
        problem_class="lp",
    )
    with pytest.raises(NoReferenceError, match="unbounded"):
        ReferenceCache(tmp_path).get(unbounded, np.ones(1))
    assert list(tmp_path.iterdir()) == []
