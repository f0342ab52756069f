"""A user's own problems, from an npz file (P, q, A, b, G, h) or a QPS file."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from bpqp_bench import Family, Instance, Size, nearby_q
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.files import DATA_VARIABLE, data_folders, read_npz, read_qps


def generate(size: Size, rng: np.random.Generator, file: str) -> Instance:
    """Return the first problem of the file."""
    return pick(0, rng, file)


def pick(seed: int, rng: np.random.Generator, file: str) -> Instance:
    """Return the problems of the file in turn, and after the last one neighbours of them."""
    problems = _read(_path(file))
    chosen = problems[seed % len(problems)]
    if seed < len(problems):
        return chosen
    return Instance(
        **{name: getattr(chosen, name) for name in ("P", "A", "b", "G", "h")},
        q=nearby_q(chosen, rng),
        problem_class="qp",
    )


def size_of(file: str) -> Size:
    """Size of the problems in the file."""
    found = _read(_path(file))[0]
    return Size.of(found.n, found.neq, found.nineq)


def _path(file: str) -> Path:
    if not file:
        raise SpecError("own needs a file, for example own[file=my.npz], or --data my.npz")
    for folder in (*data_folders("own"), Path()):
        if (folder / file).is_file():
            return folder / file
    raise SpecError(f"own finds no {file}; name its folder with --data-dir or {DATA_VARIABLE}")


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Instance, ...]:
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    return (read_qps(path),)


FAMILY = Family(
    name="own",
    label="Own data",
    problem_class="qp",
    source="a file of the user's",
    generate=generate,
    parameters={"file": ""},
    size_of=size_of,
    pick=pick,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
)
