"""Any method of the benchmark as a torch layer: the same passes, driven by autograd.

>>> from bpqp_bench import Registry
>>> from bpqp_bench.method.torch_module import MethodLayer
>>> layer = MethodLayer(Registry().method("bpqp-fast"), template)  # doctest: +SKIP
>>> z = layer(q=q)  # doctest: +SKIP
>>> loss(z).backward()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bpqp_bench.errors import MethodError, SpecError
from bpqp_bench.method.contract import Method
from bpqp_bench.method.data import from_numpy, make_data, synchronizer, to_numpy
from bpqp_bench.method.measure import judged_status
from bpqp_bench.method.phase_clock import PassTime, PhaseClock
from bpqp_bench.problem.instance import DATA_NAMES, Array, Instance, Matrix


class Choice(Protocol):
    """What makes a method: a `bpqp_bench.plugins.registry.MethodChoice`, or anything alike."""

    @property
    def label(self) -> str:
        """Name for messages."""

    def create(self, wrt: tuple[str, ...] = ("q",), device: str = "cpu") -> Method:
        """Instantiate the method."""

    def missing(self) -> str | None:
        """Return why the method cannot run here, or None."""


@dataclass(frozen=True)
class LayerTimes:
    """Times of the passes since they were last taken, in order, and of `build`, in seconds.

    ``repeated`` counts forward passes that were run again because another problem had been solved
    before this one's backward pass; their times are in ``forward``.
    """

    forward: tuple[PassTime, ...]
    backward: tuple[PassTime, ...]
    build_s: float
    repeated: int


class MethodLayer(nn.Module):
    """Differentiable map from problem data to z*, computed by a benchmark method.

    One problem a call. The layer adds nothing to the method's own forward and backward pass but
    the conversion between tensors and arrays.

    Parameters
    ----------
    choice
        The method, as `Registry.method` returns it.
    template
        Supplies every parameter that a call does not give, and the shapes for `Method.build`. A
        call with other shapes builds anew.
    wrt
        Parameters that gradients are wanted of, among P, q, A, b, G and h.
    device
        Where the method computes. Solutions come back on the device of the tensors given.

    Attributes
    ----------
    statuses
        How often the method reported which status; one that is not "solved" is no exception here,
        as in the benchmark.

    Raises
    ------
    MethodError
        If the method's library is missing, or the method cannot take the problem.
    """

    def __init__(
        self,
        choice: Choice,
        template: Instance,
        wrt: tuple[str, ...] = ("q",),
        device: str = "cpu",
    ) -> None:
        super().__init__()
        if missing := choice.missing():
            raise MethodError(f"{choice.label} cannot run here: {missing}")
        self.choice = choice
        self.wrt = wrt
        self.statuses: Counter[str] = Counter()
        self._template = template
        self._device = device
        self._clock = PhaseClock(synchronizer(device))
        self._method: Method | None = None
        self._shape: tuple[int, int, int] | None = None
        self._tokens = itertools.count()
        self._last = -1
        self._forward: list[PassTime] = []
        self._backward: list[PassTime] = []
        self._build_s = 0.0
        self._repeated = 0

    def forward(self, **data: Tensor | Matrix) -> Tensor:
        """Solve the template's problem with the given data in place of its own.

        Parameters
        ----------
        **data
            Any of P, q, A, b, G, h as tensors, arrays or SciPy matrices. Those in ``wrt`` that are
            tensors get gradients; of the others, tensors are read as constants.

        Returns
        -------
        Tensor
            z*, shape (n,), float64.
        """
        unknown = set(data) - set(DATA_NAMES)
        if unknown:
            raise SpecError(f"a problem has no data named {', '.join(sorted(unknown))}")
        names = tuple(name for name in self.wrt if isinstance(data.get(name), Tensor))
        tensors = [data[name] for name in names]
        arrays = {name: _array(value) for name, value in data.items()}
        # A name in place of the hash, which nobody asks for here and which costs time.
        problem = replace(self._template, planted=None, sha256="layer", **arrays)
        solution: Tensor = _Solve.apply(self, problem, names, *tensors)  # type: ignore[no-untyped-call]
        return solution

    def warm_up(self) -> None:
        """Build, and run both passes once on the template, so that no later call pays for it.

        Libraries are imported and functions compiled on first use; the times of these passes are
        not kept, and ``build_s`` then holds the build alone.
        """
        template = self._template
        for name in getattr(getattr(self.choice, "cls", None), "requires", ()):
            importlib.import_module(name)
        _, token = self.solve(template)
        self.pull_back(template, token, np.ones(template.n))
        self._forward, self._backward = [], []
        self.statuses.clear()

    def take_times(self) -> LayerTimes:
        """Return the times of all passes since the last call, and forget them."""
        taken = LayerTimes(
            tuple(self._forward), tuple(self._backward), self._build_s, self._repeated
        )
        self._forward, self._backward = [], []
        self._build_s, self._repeated = 0.0, 0
        return taken

    def solve(self, problem: Instance) -> tuple[Array, int]:
        """Run the method's forward pass; the token names it to `pull_back`."""
        method = self._ready(problem)
        (data,) = make_data([problem], method)
        # Inside of an autograd function gradients are off; a method that relies on autograd itself
        # needs them, as in the benchmark.
        with torch.enable_grad():
            solution, spent = self._clock.measure(lambda: method.forward(data, self._clock))
        self._forward.append(spent)
        z = to_numpy(solution.z)
        self.statuses[judged_status(method.describe(replace(solution, z=z)), problem)] += 1
        self._last = next(self._tokens)
        return z, self._last

    def pull_back(self, problem: Instance, token: int, upstream: Array) -> Mapping[str, Matrix]:
        """Run the method's backward pass for the forward pass that returned ``token``."""
        if token != self._last:
            # The method remembers one problem only.
            self._repeated += 1
            self.solve(problem)
        method = self._ready(problem)
        v = from_numpy(upstream, method)
        with torch.enable_grad():
            found, spent = self._clock.measure(lambda: method.backward(v, self._clock))
        self._backward.append(spent)
        return {name: to_numpy(value) for name, value in found.items()}

    def _ready(self, problem: Instance) -> Method:
        shape = (problem.n, problem.neq, problem.nineq)
        if self._method is None or shape != self._shape:
            start = time.perf_counter()
            method = self.choice.create(self.wrt, self._device)
            if reason := method.unsupported(problem):
                raise MethodError(f"{self.choice.label}: {reason}")
            template = self._template
            fits = (template.n, template.neq, template.nineq) == shape
            method.build(template if fits else problem)
            self._build_s += time.perf_counter() - start
            self._method, self._shape = method, shape
            self._last = -1
        return self._method


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layer: MethodLayer, problem: Instance, names: tuple[str, ...], *tensors: Tensor
    ) -> Tensor:
        z, ctx.token = layer.solve(problem)
        ctx.layer, ctx.problem, ctx.names = layer, problem, names
        ctx.like = [(tensor.device, tensor.dtype) for tensor in tensors]
        device = tensors[0].device if tensors else torch.device("cpu")
        return torch.tensor(z, dtype=torch.float64, device=device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        v = upstream.detach().cpu().numpy().astype(np.float64)
        found = ctx.layer.pull_back(ctx.problem, ctx.token, v)
        gradients = [
            torch.tensor(_dense(found[name]), dtype=dtype, device=device)
            for name, (device, dtype) in zip(ctx.names, ctx.like, strict=True)
        ]
        return (None, None, None, *gradients)


def _array(value: Tensor | Matrix) -> Matrix:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().astype(np.float64)
    return value


def _dense(value: Matrix) -> Array:
    return np.asarray(value.toarray() if sp.issparse(value) else value)
