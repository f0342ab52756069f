"""Torch arguments of a QP layer: read, checked, and their sparse gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from scipy.linalg import lapack

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.dense_data import DenseData
from bpqp_bench.layers.problem import ConvexQP
from bpqp_bench.problem.instance import Array, Matrix, SecondOrderCone

NAMES = ("P", "q", "A", "b", "G", "h")
# A tensor, or a SciPy sparse matrix, which has no types of its own.
Argument: TypeAlias = Any

_NDIM = {"P": 2, "q": 1, "A": 2, "b": 1, "G": 2, "h": 1}
_SMALL = 64
_RESTARTS = 100
_SPARSE_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


@dataclass(frozen=True, eq=False)
class Batch:
    """Arguments of one call in float64, and which of them have a batch dimension.

    ``own`` has the names of the arguments that vary over the batch; ``rounding`` is the precision
    of the type that they came in; ``cones`` are the same for all.
    """

    values: dict[str, Matrix]
    own: frozenset[str]
    count: int
    rounding: float
    cones: tuple[SecondOrderCone, ...] = ()

    @classmethod
    def of(cls, data: DenseData) -> Batch:
        """Take dense arguments to NumPy, P to its symmetric part."""
        values = {
            name: part.detach().cpu().numpy() for name, part in zip(NAMES, data.parts, strict=True)
        }
        P = values["P"]
        values["P"] = 0.5 * (P + P.swapaxes(-1, -2))
        own = frozenset(name for name, own in zip(NAMES, data.own, strict=True) if own)
        return cls(values, own, data.count, data.rounding)

    @property
    def batched(self) -> bool:
        """Whether any argument has a batch dimension."""
        return bool(self.own)

    def instance(self, i: int) -> ConvexQP:
        """Return the data of instance i."""
        P, q, A, b, G, h = (self.part(name, i) for name in NAMES)
        return ConvexQP(P, q, A, b, G, h, self.cones)

    def part(self, name: str, i: int) -> Matrix:
        """Return one argument of instance i."""
        value = self.values[name]
        return value[i] if name in self.own else value


def read_batch(
    P: Argument,
    q: Argument,
    A: Argument,
    b: Argument,
    G: Argument,
    h: Argument,
    cones: Sequence[SecondOrderCone] = (),
) -> Batch:
    """Convert to NumPy and CSC in float64, P to its symmetric part; check shapes.

    Raises
    ------
    InstanceError
        If shapes or batch sizes do not fit.
    """
    if not isinstance(q, torch.Tensor):
        raise InstanceError(f"q is a {type(q).__name__}, not a tensor")
    for matrix, vector, names in ((A, b, "A and b"), (G, h, "G and h")):
        if (matrix is None) != (vector is None):
            raise InstanceError(f"{names} go together: give both or neither")
    n = q.shape[-1] if q.ndim else 0
    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h}
    sparse = any(_is_sparse(value) for value in given.values())
    values, own, sizes = {}, set(), {}
    for name, value in given.items():
        if value is None:
            values[name] = _nothing(name, n, sparse)
            continue
        values[name] = _read(name, value)
        if value.ndim == _NDIM[name] + 1:
            own.add(name)
            sizes[name] = value.shape[0]
        elif value.ndim != _NDIM[name]:
            raise InstanceError(
                f"{name} has {value.ndim} dimensions; expected {_NDIM[name]}, or one more for a "
                "batch"
            )
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise InstanceError(f"batch sizes differ ({listed})")
    _check_shapes(values, n)
    batch = Batch(
        values,
        frozenset(own),
        next(iter(sizes.values()), 1),
        float(torch.finfo(q.dtype).eps),
        tuple(_read_cone(i, cone, n) for i, cone in enumerate(cones)),
    )
    P = values["P"]
    values["P"] = (
        sp.csc_matrix((P + P.T) * 0.5) if sp.issparse(P) else 0.5 * (P + P.swapaxes(-1, -2))
    )
    return batch


def _read_cone(i: int, cone: SecondOrderCone, n: int) -> SecondOrderCone:
    F, g, c = (
        _read(name, part)
        if isinstance(part, torch.Tensor) or sp.issparse(part)
        else np.asarray(part, dtype=np.float64)
        for name, part in (("P", cone.F), ("q", cone.g), ("q", cone.c))
    )
    if F.shape != (g.shape[0], n) or c.shape != (n,):
        raise InstanceError(
            f"cone {i} has F, g and c of shapes {F.shape}, {g.shape} and {c.shape}; expected "
            f"(k, {n}), (k,) and ({n},)"
        )
    return SecondOrderCone(F, g, c, float(cone.d))


def _is_sparse(value: Argument) -> bool:
    if isinstance(value, torch.Tensor):
        return value.layout in _SPARSE_LAYOUTS
    return bool(sp.issparse(value))


def _nothing(name: str, n: int, sparse: bool) -> Matrix:
    if _NDIM[name] == 1:
        return np.zeros(0)
    return sp.csc_matrix((0, n)) if sparse else np.zeros((0, n))


def _read(name: str, value: Argument) -> Matrix:
    if sp.issparse(value):
        return sp.csc_matrix(value, dtype=np.float64)
    if not isinstance(value, torch.Tensor):
        raise InstanceError(
            f"{name} is a {type(value).__name__}, not a tensor"
            + (" or a SciPy sparse matrix" if _NDIM[name] == 2 else "")
        )
    if not value.dtype.is_floating_point:
        raise InstanceError(f"{name} is {value.dtype}; expected a floating-point tensor")
    if value.layout == torch.strided:
        return value.detach().to(device="cpu", dtype=torch.float64).numpy()
    if value.ndim != 2 or value.layout not in _SPARSE_LAYOUTS:
        raise InstanceError(f"sparse {name} must be a matrix in COO, CSR or CSC, without a batch")
    if value.requires_grad and value.layout == torch.sparse_csc:
        raise InstanceError(
            f"{name} requires a gradient, which torch cannot hold in CSC; use COO or CSR"
        )
    rows, columns, entries = _triplets(value)
    return sp.csc_matrix((entries, (rows, columns)), shape=tuple(value.shape))


def _triplets(value: torch.Tensor) -> tuple[Array, Array, Array]:
    """Row, column and value of every stored entry, in the order of the tensor's values."""
    value = value.detach()
    if value.layout == torch.sparse_coo:
        # Entries that repeat are summed by SciPy, and each gets the same derivative.
        rows, columns = value._indices().cpu().numpy()
        return rows, columns, value._values().cpu().double().numpy()
    if value.layout == torch.sparse_csr:
        pointers, columns = value.crow_indices().cpu().numpy(), value.col_indices().cpu().numpy()
        rows = np.repeat(np.arange(value.shape[0]), np.diff(pointers))
    else:
        pointers, rows = value.ccol_indices().cpu().numpy(), value.row_indices().cpu().numpy()
        columns = np.repeat(np.arange(value.shape[1]), np.diff(pointers))
    return rows, columns, value.values().cpu().double().numpy()


def _check_shapes(values: dict[str, Matrix], n: int) -> None:
    rows = {name: values[name].shape[-1] for name in ("b", "h")}
    expected = {"P": (n, n), "q": (n,), "A": (rows["b"], n), "G": (rows["h"], n)}
    for name, shape in expected.items():
        found = values[name].shape[-len(shape) :]
        if found != shape or n == 0:
            raise InstanceError(
                f"{name} has shape {tuple(values[name].shape)}; expected {shape} (n = {n} from q, "
                "rows from b and h), with or without a leading batch dimension"
            )


def check_data(
    batch: Batch, indices: Sequence[int] | None = None, convex: bool = True
) -> dict[int, InstanceError]:
    """Look for instances whose data are not finite, or whose P is not positive semidefinite.

    h may be infinite. P counts as semidefinite to within the rounding of its type. Dense matrices
    are tested by Cholesky; of sparse ones, the smallest eigenvalue is looked for by Lanczos, which
    refuses what it finds negative but proves nothing.

    Parameters
    ----------
    batch, indices
        The data, and the instances to look at, all by default.
    convex
        Whether to test P.
    """
    found: dict[int, InstanceError] = {}
    which = list(range(batch.count) if indices is None else indices)
    for name, value in batch.values.items():
        bad = np.isnan if name == "h" else _not_finite
        own = name in batch.own
        if not bad(value.data if sp.issparse(value) else value).any():
            continue
        shared = batch.batched and not own
        for i in which:
            if shared or bad(batch.part(name, i)).any():
                where = "" if shared else f" of instance {i}"
                message = f"{name}{where} has entries that are not finite"
                found.setdefault(i, InstanceError(message))
    if convex:
        _check_convex(batch, [i for i in which if i not in found], found)
    return found


def _not_finite(value: Matrix) -> Any:
    return ~np.isfinite(value.data if sp.issparse(value) else value)


def _check_convex(batch: Batch, which: Sequence[int], found: dict[int, InstanceError]) -> None:
    own = "P" in batch.own
    for i in which if own else which[:1]:
        if not _is_semidefinite(batch.part("P", i), batch.rounding):
            where = "" if batch.batched and not own else f" of instance {i}"
            error = InstanceError(
                f"P{where} is not positive semidefinite: the problem is not convex"
            )
            found.update(dict.fromkeys([i] if own else which, error))


def _is_semidefinite(P: Matrix, rounding: float) -> bool:
    n = P.shape[0]
    size = float(abs(P).sum(axis=0).max())
    if size == 0.0:
        return True
    shift = max(8.0 * rounding * np.sqrt(n), 1e-12) * size
    if sp.issparse(P):
        # No factorization: on an irregular pattern it could fill up. A Ritz value is an upper bound
        # of the smallest eigenvalue, so that nothing is refused that is semidefinite.
        if n <= _SMALL:
            return bool(np.linalg.eigvalsh(P.toarray())[0] >= -shift)
        diagonal = P.diagonal()
        if (2.0 * diagonal >= np.asarray(abs(P).sum(axis=1)).ravel()).all():
            return True  # diagonally dominant
        start = np.random.default_rng(0).standard_normal(n)
        try:
            lowest = spla.eigsh(P, 1, which="SA", v0=start, tol=1e-2, maxiter=_RESTARTS)[0]
        except spla.ArpackNoConvergence as error:
            lowest = error.eigenvalues
        return not (lowest < -shift).any()
    shifted = np.array(P, order="F")
    shifted[np.diag_indices(n)] += shift
    return bool(lapack.dpotrf(shifted, lower=1, clean=0, overwrite_a=1)[1] == 0)


def sparse_gradient(
    like: torch.Tensor, factors: Sequence[tuple[Array, Array, Array, Array]]
) -> torch.Tensor:
    """Σ abᵀ + cdᵀ at the stored entries of a sparse tensor, in its own layout and type."""
    if like.layout == torch.sparse_coo:
        # Each entry once: torch would add up the derivatives of entries that repeat.
        like = like.detach().coalesce()
    rows, columns, _ = _triplets(like)
    total = np.zeros(len(rows))
    for a, b, c, d in factors:
        total += a[rows] * b[columns] + c[rows] * d[columns]
    values = torch.from_numpy(total).to(dtype=like.dtype, device=like.device)
    like = like.detach()
    # The indices are those of a valid tensor: no need to check them again.
    if like.layout == torch.sparse_coo:
        return torch.sparse_coo_tensor(
            like._indices(),
            values,
            like.shape,
            check_invariants=False,
            is_coalesced=True,
        )
    return torch.sparse_csr_tensor(
        like.crow_indices(), like.col_indices(), values, like.shape, check_invariants=False
    )
