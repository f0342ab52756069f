"""The method contract: what a file in ``methods/`` declares.

A method is a class with a few declarations and three verbs: `build` once per family and size,
`forward` and `backward` once per measured call. It is the only inheritance of the project.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from bpqp_bench.errors import SpecError
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.family import FamilyChoice
from bpqp_bench.problem.instance import DATA_NAMES, Array, Instance, Matrix
from bpqp_bench.problem.parameters import Parameters, format_spec, typed_parameters
from bpqp_bench.problem.solution import Solution

__all__ = ["Method", "Variant"]

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_PARAMETERS: Parameters = MappingProxyType({})


@dataclass(frozen=True)
class Variant:
    """A named setting of a method's parameters with its own line in the tables.

    Attributes
    ----------
    label
        Printed name.
    parameters
        What differs from the method's defaults.
    caveats
        By problem class: why this setting is known to answer badly there. The paper's own loose
        tolerances are measured as they are; ``bpqp-bench check`` then reports the accuracy with
        this reason and does not demand it.
    costly
        True if building takes minutes; ``bpqp-bench check`` runs it only when named.
    """

    label: str
    parameters: Parameters
    caveats: Mapping[str, str] = field(default_factory=dict)
    costly: bool = False


class Method(ABC):
    """Base class of the method adapters.

    A worker process creates the object once, then for each family and size calls ``build`` and,
    per instance, ``forward`` followed by ``backward``. Heavy libraries are imported inside the
    methods, never at the top of the plug-in file; the worker imports ``requires`` before anything
    is timed.

    Parameters
    ----------
    wrt
        Parameters whose gradient ``backward`` must return, a subset of `DATA_NAMES`.
    device
        "cpu", or a torch device.
    **parameters
        Overrides of ``parameters``, as typed values or as text.

    Attributes
    ----------
    name, label, reference
        Key, name printed in tables, citation.
    problem_classes
        Subset of {"qp", "lp", "socp"}.
    why_not
        For every class not in ``problem_classes``: why, in one line.
    requires
        Import names of the libraries that the adapter needs.
    phases_split
        False if the library's call cannot be split and is all "solve".
    parameters
        Parameters with their defaults; all can be set from the command line.
    variants
        Named settings, by key.
    find_family
        Looks up a family by its text, the user's own included; None for a method that was made
        without a registry. For methods that train on a family's data in ``build``.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    reference: ClassVar[str]
    problem_classes: ClassVar[frozenset[str]]
    why_not: ClassVar[Mapping[str, str]] = _NOTHING
    requires: ClassVar[tuple[str, ...]] = ()
    phases_split: ClassVar[bool] = True
    parameters: ClassVar[Parameters] = _NO_PARAMETERS
    variants: ClassVar[Mapping[str, Variant]] = MappingProxyType({})
    find_family: Callable[[str], FamilyChoice] | None = None

    def __init__(
        self, wrt: tuple[str, ...] = ("q",), device: str = "cpu", **parameters: object
    ) -> None:
        unknown = set(wrt) - set(DATA_NAMES)
        if unknown:
            raise SpecError(f"no gradient with respect to {', '.join(sorted(unknown))}")
        changed = typed_parameters(f"method {self.name}", parameters, self.parameters)
        self.wrt = wrt
        self.device = device
        self.options: dict[str, object] = dict(self.parameters) | changed
        self.key = format_spec(self.name, changed)

    def unsupported(self, instance: Instance) -> str | None:
        """Return why this method cannot take the instance, or None if it can."""
        if instance.problem_class in self.problem_classes:
            return None
        reason = self.why_not.get(instance.problem_class, "not supported")
        return f"{instance.problem_class.upper()}: {reason}"

    def poses(self, instance: Instance) -> Instance:
        """Return the problem that this method really solves; the reference is taken of that one.

        Overridden only by variants that the paper ran on another problem (its LP with ε = 0).
        """
        return instance

    @abstractmethod
    def build(self, template: Instance) -> None:
        """Do what is done once per family and size: canonicalize, compile, train.

        ``template`` is an instance of the same family and size, never one that is measured.
        """

    @abstractmethod
    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """Solve the problem; mark the phases with ``with clock("solve")`` and so on."""

    @abstractmethod
    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array | Matrix]:
        """Return {name: ∇ of L} for every name in ``wrt``, for the problem last solved.

        Parameters
        ----------
        upstream
            v = ∂L/∂z*, shape (n,).
        clock
            The clock of this pass.
        """
