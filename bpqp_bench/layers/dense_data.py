"""Dense torch arguments of a QP layer, kept on their device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError

_NAMES = ("P", "q", "A", "b", "G", "h")
_NDIM = (2, 1, 2, 1, 2, 1)


@dataclass(frozen=True, eq=False, slots=True)
class DenseData:
    """Arguments of one call: float64 on one device; used where autograd records nothing.

    ``own`` says of each of P, q, A, b, G, h whether it has a batch dimension; ``count`` is the
    number of instances, ``batched`` whether any argument has one, ``neq`` the number of equalities,
    and ``rounding`` the coarsest precision of the types that they came in.
    """

    parts: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    own: tuple[bool, ...]
    count: int
    batched: bool
    neq: int
    rounding: float

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, b, h with a batch dimension each."""
        q, b, h = (
            self.parts[k] if self.own[k] else self.parts[k].expand(self.count, -1)
            for k in (1, 3, 5)
        )
        return q, b, h

    def without_infinite_rows(self) -> DenseData:
        """Put 0ᵀz ≤ 1 in the place of rows whose bound is +∞, so that their gradients vanish."""
        P, q, A, b, G, h = self.parts
        free = h.isposinf()
        G = torch.where(free.unsqueeze(-1), 0.0, G)
        parts = (P, q, A, b, G, torch.where(free, 1.0, h))
        own = (*self.own[:4], self.own[4] or self.own[5], self.own[5])
        return replace(self, parts=parts, own=own)


def rows_of_bounds(
    q: Tensor,
    G: Any,
    h: Tensor | None,
    l: Tensor | None,  # noqa: E741
    lb: Tensor | None,
    ub: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Write l ≤ Gz ≤ h, lb ≤ z ≤ ub as one Gz ≤ h, by operations that autograd knows.

    Raises
    ------
    InstanceError
        If G is sparse, l comes without G, or a bound has another length than it should.
    """
    n = q.shape[-1]
    if G is not None and (not isinstance(G, Tensor) or G.layout is not torch.strided):
        raise InstanceError("l, lb and ub take dense data; write sparse bounds as rows of G")
    if l is not None and G is None:
        raise InstanceError("l bounds Gz from below: give G and h, too (h may be infinite)")
    eye = torch.eye(n, dtype=q.dtype, device=q.device)
    blocks: list[tuple[Tensor, Tensor]] = []
    if G is not None and h is not None:
        blocks.append((G, h))
        if l is not None:
            blocks.append((-G, -l))
    if ub is not None:
        blocks.append((eye, ub))
    if lb is not None:
        blocks.append((-eye, -lb))
    for rows, side in blocks:
        if side.ndim == 0 or side.shape[-1] != rows.shape[-2]:
            raise InstanceError(
                f"a bound has shape {tuple(side.shape)}; expected {rows.shape[-2]} entries, with "
                "or without a leading batch dimension"
            )

    def joined(parts: list[Tensor], ndim: int) -> Tensor:
        counts = {part.shape[0] for part in parts if part.ndim > ndim}
        if len(counts) > 1:
            raise InstanceError(f"batch sizes differ ({sorted(counts)})")
        shape = tuple(counts)
        wide = [part.expand(*shape, *part.shape[-ndim:]) for part in parts]
        return torch.cat(wide, dim=-ndim)

    return joined([rows for rows, _ in blocks], 2), joined([side for _, side in blocks], 1)


def read_dense(P: Any, q: Any, A: Any, b: Any, G: Any, h: Any) -> DenseData | None:
    """Read the arguments; None if any is sparse.

    Shapes are checked here; that entries are finite and P semidefinite shows in the solution.

    Raises
    ------
    InstanceError
        If an argument is of a wrong kind, or shapes or batch sizes do not fit.
    """
    given = (P, q, A, b, G, h)
    if not isinstance(q, Tensor):
        raise InstanceError(f"q is a {type(q).__name__}, not a tensor")
    if (A is None) != (b is None):
        raise InstanceError("A and b go together: give both or neither")
    if (G is None) != (h is None):
        raise InstanceError("G and h go together: give both or neither")
    parts: list[Tensor] = []
    rounding, on_cpu = 0.0, q.is_cpu
    for k, value in enumerate(given):
        if value is None:
            shape = (0, q.shape[-1] if q.ndim else 0) if _NDIM[k] == 2 else (0,)
            value = torch.zeros(shape, dtype=torch.float64, device=q.device)  # noqa: PLW2901
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            return None
        if value.dtype is not torch.float64:
            value, precision = _converted(_NAMES[k], value)  # noqa: PLW2901
            rounding = max(rounding, precision)
        if not (value.is_cpu and on_cpu) and value.device != q.device:
            raise InstanceError(
                f"{_NAMES[k]} is on {value.device} and q on {q.device}; move them to one device"
            )
        parts.append(value.resolve_neg() if value.is_neg() else value)
    layout = _read_shapes(tuple([part.shape for part in parts]))
    six: Any = tuple(parts)
    return DenseData(six, *layout, rounding or 2.0**-52)


def _converted(name: str, value: Tensor) -> tuple[Tensor, float]:
    if not value.dtype.is_floating_point:
        raise InstanceError(f"{name} is {value.dtype}; expected a floating-point tensor")
    return value.double(), float(torch.finfo(value.dtype).eps)


@lru_cache(maxsize=1024)
def _read_shapes(shapes: tuple[torch.Size, ...]) -> tuple[tuple[bool, ...], int, bool, int]:
    """Check shapes; which arguments have a batch dimension, instances, whether any has, and neq.

    A training loop asks for the same again and again, and checks take longer than finding it.
    """
    sizes: dict[str, int] = {}
    for name, ndim, shape in zip(_NAMES, _NDIM, shapes, strict=True):
        if len(shape) == ndim + 1:
            sizes[name] = shape[0]
        elif len(shape) != ndim:
            raise InstanceError(
                f"{name} has {len(shape)} dimensions; expected {ndim}, or one more for a batch"
            )
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise InstanceError(f"batch sizes differ ({listed})")
    n, neq, nineq = (shapes[k][-1] for k in (1, 3, 5))
    for k, expected in ((0, (n, n)), (2, (neq, n)), (4, (nineq, n))):
        if tuple(shapes[k][-2:]) != expected or n == 0:
            raise InstanceError(
                f"{_NAMES[k]} has shape {tuple(shapes[k])}; expected {expected} (n = {n} from q, "
                "rows from b and h), with or without a leading batch dimension"
            )
    own = tuple(name in sizes for name in _NAMES)
    return own, next(iter(sizes.values()), 1), bool(sizes), neq
