"""The Maros-Meszaros collection of convex QPs, read from a folder of MAT or QPS files."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from bpqp_bench import Family, Instance, Size, nearby_q
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.files import DATA_VARIABLE, data_folders, read_mat, read_qps

_READERS = {".mat": read_mat, ".qps": read_qps, ".sif": read_qps}
_REMEDY = (
    "get the collection as MAT files (github.com/qpsolvers/maros_meszaros_qpbenchmark) or QPS "
    f"files and name their folder with --data-dir or {DATA_VARIABLE}"
)


def generate(size: Size, rng: np.random.Generator, name: str) -> Instance:
    """Return the published problem; nothing about it is random.

    Parameters
    ----------
    size, rng
        Not used: the size is the problem's, and neighbours are drawn by `Family.neighbour`.
    name
        Name of the file without its ending, for example CVXQP1_S.
    """
    return _read(_path(name))


def size_of(name: str) -> Size:
    """Size of the problem in the file."""
    found = _read(_path(name))
    return Size.of(found.n, found.neq, found.nineq)


def members() -> Iterable[dict[str, object]]:
    """All problems in the folder; none where there is no folder."""
    return [{"name": name} for name in sorted(_files())]


def _files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in data_folders("maros_meszaros"):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in _READERS:
                    found.setdefault(path.stem, path)
    return found


def _path(name: str) -> Path:
    files = _files()
    if not files:
        raise SpecError(f"maros-meszaros finds no problems: {_REMEDY}")
    if not name:
        first = min(files)
        raise SpecError(f"maros-meszaros needs a name, for example maros-meszaros[name={first}]")
    if name not in files:
        raise SpecError(f"maros-meszaros has no {name!r} among its {len(files)} files; {_REMEDY}")
    return files[name]


@lru_cache(maxsize=4)
def _read(path: Path) -> Instance:
    return _READERS[path.suffix.lower()](path)


FAMILY = Family(
    name="maros-meszaros",
    label="Maros-Meszaros",
    problem_class="qp",
    source="Maros and Meszaros, Optim. Methods Softw. 11 (1999)",
    generate=generate,
    parameters={"name": ""},
    size_of=size_of,
    neighbour=nearby_q,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
    members=members,
)
