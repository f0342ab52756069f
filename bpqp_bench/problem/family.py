"""Problem families: what a file in ``problems/`` declares, and how an instance is drawn from it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array, Instance, ProblemClass, Size
from bpqp_bench.problem.parameters import Parameters, format_spec, typed_parameters

# Seed of the instance given to `Method.build`; measured seeds stay below it.
TEMPLATE_SEED = 2**31


@dataclass(frozen=True)
class Family:
    """A distribution of problem instances; a plug-in file binds one to the name ``FAMILY``.

    Attributes
    ----------
    name
        Key on the command line.
    label
        Name printed in tables ("QP").
    problem_class
        "qp", "lp" or "socp".
    source
        Paper and equation, or "this suite".
    generate
        ``generate(size, rng, **parameters) -> Instance``. Takes all its randomness from ``rng``;
        identity fields (family, size, seed) are filled in by `draw`.
    parameters
        Parameters of the family with their defaults.
    redraw_q
        ``redraw_q(instance, rng) -> q``: a fresh q for which the other data of the instance stay
        feasible and bounded, shape (n,). It gives the family the parameter ``fixed``: with
        ``fixed=true`` all seeds share P, A, b, G, h and only q varies, which is what a method that
        learns from a distribution of instances (DC3) needs. None where q cannot vary alone.
    size_of
        ``size_of(**parameters) -> Size``: the one size that the parameters leave, for a family
        whose size follows from them (a published instance, a horizon). None where any size may be
        asked for.
    neighbour
        ``neighbour(instance, rng) -> q``: makes a family of one published instance. Seed 0 is what
        `generate` returns, without randomness; any other seed is that instance with this q, near
        the published one and such that the problem stays bounded.
    upstream
        ``upstream(instance, rng) -> v``: upstream gradient ∂L/∂z* of the instance, shape (n,).
        None for ones (L = 1ᵀz*), which says nothing where 1ᵀz is constant on the feasible set.
    pick
        ``pick(seed, rng, **parameters) -> Instance``: instance number ``seed`` of a family that is
        a list of given problems, in place of `generate`. None where instances are drawn.
    members
        ``members() -> parameters``: every choice of parameters that this machine can draw and a
        table may want, empty where the data are not here. None for a family that needs no list.
    """

    name: str
    label: str
    problem_class: ProblemClass
    source: str
    generate: Callable[..., Instance]
    parameters: Parameters = field(default_factory=lambda: MappingProxyType({}))
    redraw_q: Callable[[Instance, np.random.Generator], Array] | None = None
    size_of: Callable[..., Size] | None = None
    neighbour: Callable[[Instance, np.random.Generator], Array] | None = None
    upstream: Callable[[Instance, np.random.Generator], Array] | None = None
    members: Callable[[], Iterable[Parameters]] | None = None
    pick: Callable[..., Instance] | None = None

    @property
    def all_parameters(self) -> Parameters:
        """The family's own parameters and, where q can vary alone, ``fixed``."""
        fixed = {} if self.redraw_q is None else {"fixed": False}
        return dict(self.parameters) | fixed


def draw(
    family: Family, size: Size, seed: int, parameters: Mapping[str, object] | None = None
) -> Instance:
    """Draw the instance that (family, size, seed) names, bit-identical every time.

    Raises
    ------
    SpecError
        If the seed is negative, a parameter is unknown, or the parameters leave another size.
    """
    if seed < 0:
        raise SpecError(f"seed {seed} is negative; seeds are 0, 1, 2, …")
    changed = typed_parameters(f"family {family.name}", parameters or {}, family.all_parameters)
    spec = format_spec(family.name, changed)
    chosen = dict(family.parameters) | {k: v for k, v in changed.items() if k != "fixed"}
    if family.size_of is not None and size != (own := family.size_of(**chosen)):
        raise SpecError(f"{spec} has the size {own} and no other, not {size}; leave the size out")
    fixed = bool(changed.get("fixed", False))
    rng = _generator(spec, size, 0 if fixed else seed, stream=0)
    if family.pick is not None:
        drawn = family.pick(seed, rng, **chosen)
    else:
        drawn = family.generate(size, rng, **chosen)
    if fixed and family.redraw_q is not None:
        q = family.redraw_q(drawn, _generator(spec, size, seed, stream=1))
        drawn = replace(drawn, q=q, planted=None, sha256="")
    if family.neighbour is not None and seed > 0:
        q = family.neighbour(drawn, _generator(spec, size, seed, stream=1))
        drawn = replace(drawn, q=q, planted=None, sha256="")
    if family.upstream is not None:
        v = family.upstream(drawn, _generator(spec, size, seed, stream=2))
        drawn = replace(drawn, upstream=v, sha256="")
    return replace(drawn, family=spec, size=size, seed=seed)


def _generator(spec: str, size: Size, seed: int, stream: int) -> np.random.Generator:
    # crc32 and not hash(): the latter is salted per process.
    entropy = (zlib.crc32(spec.encode()), size.n, size.m, seed, stream)
    return np.random.default_rng(np.random.SeedSequence(entropy))


@dataclass(frozen=True)
class FamilyChoice:
    """A family with parameters; ``key`` names it in results."""

    family: Family
    parameters: Parameters
    key: str

    @property
    def size(self) -> Size | None:
        """The one size that the parameters leave, or None where any may be asked for."""
        if self.family.size_of is None:
            return None
        chosen = {k: v for k, v in self.parameters.items() if k != "fixed"}
        return self.family.size_of(**dict(self.family.parameters) | chosen)

    def draw(self, size: Size, seed: int) -> Instance:
        """Draw the instance of this size and seed."""
        return draw(self.family, size, seed, self.parameters)
