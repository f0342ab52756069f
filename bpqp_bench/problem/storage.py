"""An instance as a mapping of plain arrays: what files and messages between processes hold."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.errors import ResultsError
from bpqp_bench.problem.instance import DATA_NAMES, Instance, Matrix, SecondOrderCone, Size

Arrays = dict[str, Any]
_PARTS = ("data", "indices", "indptr", "shape")


def put(arrays: Arrays, name: str, value: Matrix) -> None:
    """Add an array, or the parts of a sparse matrix in CSC."""
    if sp.issparse(value):
        stored = value.tocsc()
        arrays |= {f"{name}.{part}": np.asarray(getattr(stored, part)) for part in _PARTS}
    else:
        arrays[name] = np.asarray(value)


def get(arrays: Mapping[str, Any], name: str) -> Matrix:
    """Read what `put` added."""
    if name in arrays:
        return arrays[name]
    *parts, shape = (arrays[f"{name}.{part}"] for part in _PARTS)
    return sp.csc_matrix(tuple(parts), shape=tuple(int(size) for size in shape))


def to_arrays(instance: Instance) -> Arrays:
    """Return data and identity of an instance; what was planted is left out."""
    arrays: Arrays = {}
    for name in DATA_NAMES:
        put(arrays, name, getattr(instance, name))
    if instance.upstream is not None:
        put(arrays, "upstream", instance.upstream)
    for index, cone in enumerate(instance.cones):
        for name in ("F", "g", "c", "d"):
            put(arrays, f"cone{index}.{name}", getattr(cone, name))
    facts = (instance.problem_class, instance.family, str(instance.size), str(instance.seed))
    return arrays | {"facts": np.array(facts)}


def from_arrays(arrays: Mapping[str, Any], sha256: str = "") -> Instance:
    """Return the instance of `to_arrays`; its hash is computed unless it is given."""
    count = len({name.partition(".")[0] for name in arrays if name.startswith("cone")})
    problem_class, family, size, seed = (str(text) for text in arrays["facts"])
    return Instance(
        **{name: get(arrays, name) for name in DATA_NAMES},
        cones=tuple(
            SecondOrderCone(
                F=get(arrays, f"cone{index}.F"),
                g=arrays[f"cone{index}.g"],
                c=arrays[f"cone{index}.c"],
                d=float(arrays[f"cone{index}.d"]),
            )
            for index in range(count)
        ),
        problem_class=problem_class,  # type: ignore[arg-type]
        family=family,
        size=Size.parse(size),
        seed=int(seed),
        sha256=sha256,
        upstream=arrays.get("upstream"),
    )


def save_instance(instance: Instance, path: Path) -> None:
    """Write the data of an instance as npz, bit by bit."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **to_arrays(instance))
    temporary.replace(path)


def load_instance(path: Path) -> Instance:
    """Read what `save_instance` wrote.

    Raises
    ------
    ResultsError
        If it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return from_arrays({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
