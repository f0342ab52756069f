"""References on disk, by content: instance, upstream gradient, parameters and code version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from bpqp_bench.problem.instance import Array, Instance, Matrix
from bpqp_bench.reference.compute import compute_reference
from bpqp_bench.reference.solution import Certificate, ReferenceSolution

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class ReferenceCache:
    """Directory of references, one npz file each with arrays and certificate (JSON).

    A file is written under another name and then renamed, so that readers never see half of one.
    A file that cannot be read, or whose content does not match its checksum, is computed anew.

    Parameters
    ----------
    directory
        Made if missing.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)

    def path(self, instance: Instance, upstream: Array, wrt: Sequence[str] = ("q",)) -> Path:
        """Return the path of the file for these inputs, which need not exist."""
        digest = hashlib.sha256()
        digest.update(instance.sha256.encode())
        digest.update(np.ascontiguousarray(upstream, dtype=np.float64).tobytes())
        digest.update(json.dumps(sorted(set(wrt))).encode())
        digest.update(_code_version().encode())
        return self.directory / f"{digest.hexdigest()[:40]}.npz"

    def get(
        self, instance: Instance, upstream: Array, wrt: Sequence[str] = ("q",)
    ) -> ReferenceSolution:
        """Return the reference, read from its file where that exists and is intact.

        Raises
        ------
        NoReferenceError
            As `compute_reference`; failures are not cached.
        """
        path = self.path(instance, upstream, wrt)
        if path.exists():
            try:
                return _read(path)
            except _UNREADABLE:
                path.unlink(missing_ok=True)
        solution = compute_reference(instance, upstream, wrt)
        with contextlib.suppress(OSError):  # the next run computes it again
            _write(path, solution)
        return solution


def _write(path: Path, solution: ReferenceSolution) -> None:
    arrays: dict[str, Array] = {name: getattr(solution, name) for name in ("z", "nu", "lam", "mu")}
    shapes: dict[str, list[int]] = {}
    for name, gradient in solution.gradients.items():
        if sp.issparse(gradient):
            shapes[name] = list(gradient.shape)
            for part in ("data", "indices", "indptr"):
                arrays[f"gradient.{name}.{part}"] = getattr(gradient, part)
        else:
            arrays[f"gradient.{name}"] = gradient
    facts = {
        "certificate": asdict(solution.certificate),
        "objective": solution.objective,
        "wrt": list(solution.gradients),
        "sparse": shapes,
        "checksum": _checksum(arrays),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> ReferenceSolution:
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        arrays = {name: file[name] for name in file.files if name != "facts"}
    if _checksum(arrays) != facts["checksum"]:
        raise ValueError("checksum")
    gradients: dict[str, Matrix] = {}
    for name in facts["wrt"]:
        key = f"gradient.{name}"
        if name in facts["sparse"]:
            parts = tuple(arrays[f"{key}.{part}"] for part in ("data", "indices", "indptr"))
            gradients[name] = sp.csc_matrix(parts, shape=tuple(facts["sparse"][name]))
        else:
            gradients[name] = arrays[key]
    return ReferenceSolution(
        z=arrays["z"],
        nu=arrays["nu"],
        lam=arrays["lam"],
        mu=arrays["mu"],
        objective=float(facts["objective"]),
        gradients=gradients,
        certificate=Certificate(**facts["certificate"]),
    )


def _checksum(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


@cache
def _code_version() -> str:
    """Hash of the sources that a reference depends on: a changed formula finds no old file."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in (*sorted(package.glob("*.py")), package.parent / "problem" / "instance.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()
