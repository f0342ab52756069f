"""The method contract: what a file in ``methods/`` declares.

A method is a class with a few declarations and three verbs: `build` once per family and size,
`forward` and `backward` once per measured call. Adapters inherit from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

from bpqp_bench.errors import SpecError
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.family import FamilyChoice
from bpqp_bench.problem.instance import (
    DATA_NAMES,
    Instance,
    ProblemClass,
    SecondOrderCone,
    Size,
)
from bpqp_bench.problem.parameters import Parameters, format_spec, typed_parameters
from bpqp_bench.problem.solution import Solution

Framework = Literal["numpy", "torch", "jax"]
# np.ndarray, torch.Tensor or jax.Array; sparse matrices are SciPy CSC, or torch CSR.
FrameworkArray: TypeAlias = Any

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


@dataclass(frozen=True, eq=False)
class Data:
    """One problem, or a batch of them, as a training step has it.

    The arrays are those of the method's framework, on its device and in its type, made outside the
    clock (`bpqp_bench.method.data.make_data`).

    Attributes
    ----------
    P, q, A, b, G, h
        Shapes (n, n), (n,), (neq, n), (neq,), (nineq, n), (nineq,), zero rows where a kind of
        constraint is absent. Where ``batch`` > 1, every one has a leading dimension of that length.
        Torch tensors named in the method's ``wrt`` require a gradient. Sparse matrices are SciPy
        CSC for "numpy" and CSR tensors for "torch".
    cones
        Second-order cones with arrays of the same framework; problems with cones, and sparse ones,
        come one at a time.
    problem_class, family, size
        What kind of problem it is.
    batch
        B, the number of problems.
    """

    P: FrameworkArray
    q: FrameworkArray
    A: FrameworkArray
    b: FrameworkArray
    G: FrameworkArray
    h: FrameworkArray
    cones: tuple[SecondOrderCone, ...] = ()
    problem_class: ProblemClass = "qp"
    family: str = "custom"
    size: Size = field(default=Size(1, 0))
    batch: int = 1

    @property
    def name(self) -> str:
        """Readable name for messages, for example ``qp-100x20``."""
        return f"{self.family}-{self.size}"

    @property
    def n(self) -> int:
        """Number of variables."""
        return int(self.q.shape[-1])

    @property
    def neq(self) -> int:
        """Number of equalities."""
        return int(self.b.shape[-1])

    @property
    def nineq(self) -> int:
        """Number of linear inequalities."""
        return int(self.h.shape[-1])


class Method(ABC):
    """Base class of the method adapters.

    A worker process creates the object once, then for each family and size calls ``build`` and,
    per instance or batch, ``forward`` followed by ``backward``. Both go through the public
    interface that a user of the library calls, with its checks: what is timed is what a training
    step pays. Heavy libraries are imported inside the methods, never at the top of the plug-in
    file; the worker imports ``requires`` before anything is timed.

    Parameters
    ----------
    wrt
        Parameters whose gradient ``backward`` must return, a subset of `DATA_NAMES`.
    device
        "cpu", "cuda" or "cuda:1"; its kind must be one of ``devices``.
    dtype
        One of ``dtypes``.
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
    install
        What to know where one of them is missing: another Python, an own index.
    group
        "paper" (compared in the paper), "modern" (today's maintained layers), "ours" or "user".
    framework
        Whose arrays `forward` and `backward` take and return.
    devices, dtypes
        Where, and in which types, the method really computes.
    batched
        Whether one call takes a batch; otherwise the harness calls once per problem, and says so.
    phases_split
        False if the library's call cannot be split and is all "solve".
    parameters
        Parameters with their defaults; all can be set from the command line.
    variants
        Named settings, by key.
    find_family
        Looks up a family by its text, the user's own included; None for a method that was made
        without a registry. For methods that train on a family's data in ``build``.
    batch
        Problems per call that it will be given, known before `build`, for methods that compile.
    caveats
        By problem class: why the method is known to answer badly there, as in `Variant`.
    tolerance
        The parameter that trades accuracy for time, or None: what a work-precision curve sweeps.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    reference: ClassVar[str]
    problem_classes: ClassVar[frozenset[str]]
    why_not: ClassVar[Mapping[str, str]] = _NOTHING
    requires: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""
    group: ClassVar[str] = "user"
    framework: ClassVar[Framework] = "numpy"
    devices: ClassVar[frozenset[str]] = frozenset({"cpu"})
    dtypes: ClassVar[frozenset[str]] = frozenset({"float64"})
    batched: ClassVar[bool] = False
    phases_split: bool = True  # of the class, or of an instance whose parameters decide
    parameters: ClassVar[Parameters] = _NO_PARAMETERS
    variants: ClassVar[Mapping[str, Variant]] = MappingProxyType({})
    find_family: Callable[[str], FamilyChoice] | None = None
    caveats: ClassVar[Mapping[str, str]] = _NOTHING
    tolerance: ClassVar[str | None] = None

    def __init__(
        self,
        wrt: tuple[str, ...] = ("q",),
        device: str = "cpu",
        dtype: str = "float64",
        **parameters: object,
    ) -> None:
        unknown = set(wrt) - set(DATA_NAMES)
        if unknown:
            raise SpecError(f"no gradient with respect to {', '.join(sorted(unknown))}")
        if reason := self.refuses(device, dtype):
            raise SpecError(reason)
        changed = typed_parameters(f"method {self.name}", parameters, self.parameters)
        self.wrt = wrt
        self.device = device
        self.dtype = dtype
        self.batch = 1
        self.options: dict[str, Any] = dict(self.parameters) | changed
        self.key = format_spec(self.name, changed)

    @classmethod
    def refuses(cls, device: str, dtype: str) -> str | None:
        """Return why the method does not compute on this device or in this type, or None."""
        for what, asked, declared in (
            ("on", device.partition(":")[0], cls.devices),
            ("in", dtype, cls.dtypes),
        ):
            if asked not in declared:
                known = " and ".join(sorted(declared))
                return f"{cls.name} does not compute {what} {asked}, only {what} {known}"
        return None

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

    @classmethod
    def load(cls) -> None:
        """Do what is done once a process: the worker calls it when ``requires`` is imported.

        For kernels that are compiled, or read from disk, whatever the problem is; the time that it
        takes belongs to no cell.
        """
        return

    @abstractmethod
    def build(self, template: Instance) -> None:
        """Do what is done once per family and size: canonicalize, compile, train.

        ``template`` is an instance of the same family and size in NumPy, never one that is
        measured. What was compiled for other data of these shapes is not compiled again.
        """

    @abstractmethod
    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; mark the phases with ``with clock("solve")`` and so on, where they can be seen.

        The solution has arrays of the framework, with a leading dimension B where ``data`` has one;
        ``status`` may then be a tuple of B. What a training step does not ask for (multipliers,
        status, info) may be left to `describe`.
        """

    def describe(self, solution: Solution) -> Solution:
        """Add what costs time to look up; called outside the clock, after the backward pass."""
        return solution

    @abstractmethod
    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Return {name: ∇ of L} for every name in ``wrt``, for the data last solved.

        Parameters
        ----------
        upstream
            v = ∂L/∂z*, of the shape of z.
        clock
            The clock of this pass.

        Returns
        -------
        mapping
            Arrays of the framework, of the shapes of the data. The gradient of P is the symmetric
            one, or that of any matrix: the harness takes its symmetric part.
        """
