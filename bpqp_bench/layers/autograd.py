"""The QP layer as autograd sees it: first derivatives, `torch.func` transforms, no second ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.passes import Passes
from bpqp_bench.layers.problem import Phase

_NDIM = (2, 1, 2, 1, 2, 1)
_APART = 6  # the bit after those of the six arguments

_FIRST_ONLY = (
    "this layer has first derivatives only; a second one was asked for (create_graph=True, a "
    "Hessian, or a gradient penalty)"
)

Solver = Callable[..., Passes]


class Call:
    """One call of a layer on its way through autograd.

    Attributes
    ----------
    solver
        From P, q, A, b, G, h to `Passes`.
    clock
        Returns the clock of the moment.
    passes
        What the forward pass left.
    below
        Under `torch.vmap`, the call on the whole batch that stands for this one.
    """

    def __init__(self, solver: Solver, given: Sequence[Any], clock: Callable[[], Phase]) -> None:
        self.solver, self.clock = solver, clock
        # Constants without derivatives (SciPy matrices) stay here, tensors go to autograd.
        self.constants = {
            k: value
            for k, value in enumerate(given)
            if not (value is None or isinstance(value, Tensor))
        }
        self.passes: Passes | None = None
        self.below: Call | None = None

    @property
    def solved(self) -> Passes:
        """What the forward pass left, here or below."""
        passes = self.passes if self.below is None else self.below.solved
        assert passes is not None
        return passes

    def run(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Solve; z* in the type and on the device of q, in memory of its own."""
        given: Sequence[Any] = tensors
        if self.constants:
            given = [self.constants.get(k, value) for k, value in enumerate(tensors)]
        self.passes = self.solver(*given)
        q = tensors[1]
        assert q is not None
        z = self.passes.solution()
        return z if _alike(z, q) else z.to(q)


def _alike(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors have one type and device; comparing devices takes three times as long."""
    return x.dtype is y.dtype and ((x.is_cpu and y.is_cpu) or x.device == y.device)


def solve(call: Call, given: Sequence[Any]) -> Tensor:
    """Return z* with its derivatives; ``call.solved`` has the rest."""
    plain = not _transformed()
    apply: Any = _Plain.apply if plain else _Solve.apply  # autograd's own is untyped
    constants = call.constants
    if constants:
        given = [None if k in constants else value for k, value in enumerate(given)]
    z: Tensor = apply(call, *given)
    return z


class OneProblemLayer(torch.nn.Module):
    """A layer that solves one problem a call.

    Parameters
    ----------
    clock
        As in `BPQP`.

    Attributes
    ----------
    last_info, multipliers, clock
        As in `BPQP`.
    """

    def __init__(self, clock: Phase) -> None:
        super().__init__()
        self.clock = clock
        self.last_info: list[dict[str, object]] = []
        self.multipliers: tuple[Tensor, ...] = ()

    def solve(self, solver: Solver, given: Sequence[Any]) -> Tensor:
        """Return z* with its derivatives, and keep what there is to say of it."""
        call = Call(solver, given, lambda: self.clock)
        z = solve(call, given)
        outcome = call.solved.outcome
        self.last_info = outcome.facts()
        self.multipliers = tuple(torch.tensor(dual) for dual in outcome.duals)
        return z


def _transformed() -> bool:
    """Whether a `torch.func` transform, or a vmap over losses, is at work."""
    active: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or bool(active())


class _Plain(torch.autograd.Function):
    """What `_Solve` and `_Adjoint` do, without what only transforms and second derivatives need.

    torch binds the arguments of a function that has ``setup_context`` by `inspect.signature`, at
    every call: a tenth of a millisecond, more than the adjoint of a small problem takes.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor | None) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        return call.run(tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled() or _transformed():
            return _Solve.backward(ctx, *upstream)
        needed = ctx.needs_input_grad[1:]
        tensors = ctx.saved_tensors  # raises if one was changed in place
        call: Call = ctx.call
        passes = call.solved
        found = passes.pullback(upstream[0], needed, call.clock())
        if passes.native:
            return None, *found
        return None, *(
            part if part is None or _alike(part, like) else part.to(like)
            for part, like in zip(found, tensors, strict=True)
        )


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(call: Call, *tensors: Tensor | None) -> Tensor:
        return call.run(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call = inputs[0]
        # Saved also so that autograd notices if a caller changes the data in between.
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[1:]
        apply: Any = _Adjoint.apply
        bits = sum(1 << k for k, need in enumerate(needed) if need)
        found = iter(apply(ctx.call, bits, upstream[0], *ctx.saved_tensors))
        return None, *(next(found) if need else None for need in needed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Call, *tensors: Any) -> tuple[Tensor, int]:
        flat, inner = _flatten(info.batch_size, in_dims[1:], tensors)
        call.below = Call(call.solver, (), call.clock)
        call.below.constants = call.constants
        apply: Any = _Solve.apply
        z: Tensor = apply(call.below, *flat)
        return (z if inner is None else z.reshape(-1, inner, z.shape[-1])), 0


class _Adjoint(torch.autograd.Function):
    """The backward pass; ``bits`` say for which arguments, and whether for each instance apart."""

    @staticmethod
    def forward(
        call: Call, bits: int, upstream: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        passes, needed = call.solved, [bool(bits >> k & 1) for k in range(_APART)]
        apart, v, clock = bool(bits >> _APART & 1), upstream.detach(), call.clock()
        if v.ndim == passes.z.ndim:
            found = passes.pullback(v, needed, clock, apart)
        else:  # several losses at once
            leading = v.shape[: v.ndim - passes.z.ndim]
            each = [
                passes.pullback(one, needed, clock, apart) for one in v.reshape(-1, *passes.z.shape)
            ]
            found = [
                torch.stack(parts).reshape(*leading, *parts[0].shape)
                if parts[0] is not None
                else None
                for parts in zip(*each, strict=True)
            ]
        return tuple(
            part if _alike(part, like) else part.to(like)
            for part, like in ((p, t) for p, t in zip(found, tensors, strict=True) if p is not None)
            if like is not None
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        raise RuntimeError(_FIRST_ONLY)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: Call, bits: int, upstream: Tensor, *tensors: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        apply: Any = _Adjoint.apply
        where = in_dims[2]
        v = (
            upstream.expand(info.batch_size, *upstream.shape)
            if where is None
            else upstream.movedim(where, 0)
        )
        data_dims = in_dims[3:]
        if all(dim is None for dim in data_dims):
            found = apply(call, bits, v, *tensors)
            return found, tuple(0 for _ in found)
        flat, inner = _flatten(info.batch_size, data_dims, tensors)
        assert call.below is not None
        # The losses' own leading dimensions stay in front, ours joins the batch.
        v = v.movedim(0, -2 if inner is None else -3)
        if inner is not None:
            v = v.flatten(-3, -2)
        leading = v.ndim - 2
        found = apply(call.below, bits | 1 << _APART, v, *flat)
        wanted = [k for k in range(_APART) if bits >> k & 1]
        joined = []
        for k, part in zip(wanted, found, strict=True):
            if inner is not None:
                part = part.unflatten(leading, (-1, inner))  # noqa: PLW2901
                logical = tensors[k].ndim - (data_dims[k] is not None)
                if logical == _NDIM[k]:
                    part = part.sum(leading + 1)  # noqa: PLW2901
            joined.append(part)
        return tuple(joined), tuple(leading for _ in joined)


def first_only(gradients: Sequence[Tensor | None], *inputs: Tensor) -> tuple[Tensor | None, ...]:
    """Return gradients that raise where a second derivative is asked of them.

    Only `torch.autograd.function.once_differentiable` would not do: its error does not depend on
    the inputs, so that torch takes the second derivative for zero.
    """
    if not torch.is_grad_enabled():
        return tuple(gradients)
    apply: Any = _FirstOnly.apply
    there = [part for part in gradients if part is not None]
    found = iter(apply(len(there), *there, *inputs))
    return tuple(part if part is None else next(found) for part in gradients)


class _FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        del ctx
        return tuple(part.clone() for part in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        raise RuntimeError(_FIRST_ONLY)


def _flatten(
    size: int, dims: Sequence[int | None], tensors: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], int | None]:
    """Join the mapped dimension with the batch dimension of each tensor, which may be missing."""
    inner = None
    for k, (dim, value) in enumerate(zip(dims, tensors, strict=True)):
        if value is not None and value.ndim - (dim is not None) == _NDIM[k] + 1:
            inner = value.shape[1 if dim == 0 else 0]
    flat: list[Tensor | None] = []
    for k, (dim, value) in enumerate(zip(dims, tensors, strict=True)):
        if value is None:
            flat.append(None)
            continue
        if dim is not None and value.layout is not torch.strided:
            raise InstanceError("torch.vmap cannot map over sparse matrices")
        own = value.ndim - (dim is not None) == _NDIM[k] + 1
        front = value if dim is None else value.movedim(dim, 0)
        if inner is None or (dim is None and not own):
            flat.append(front)
            continue
        if dim is None:
            front = front.expand(size, *front.shape)
        if not own:
            front = front.unsqueeze(1).expand(size, inner, *front.shape[1:])
        flat.append(front.flatten(0, 1))
    return flat, inner


for _function in (_Solve, _Adjoint):
    # torch asks for it at every call, and finding it out takes longer than a small QP.
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010
