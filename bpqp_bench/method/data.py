"""From instances to the arrays of a method's framework, and from its answers back to NumPy.

Both ways lie outside the clock: a training step has its data in its own framework already.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from bpqp_bench.method.contract import Data, FrameworkArray, Method
from bpqp_bench.problem.instance import DATA_NAMES, Array, Instance, Matrix


def make_data(instances: Sequence[Instance], method: Method) -> list[Data]:
    """Return what a method is called with: one element a call.

    Parameters
    ----------
    instances
        The problems of one batch, of equal shapes.
    method
        Decides framework, device, type and which tensors require a gradient.

    Returns
    -------
    list of Data
        All problems stacked in one where the method takes batches and there are several; else one
        each.
    """
    first = instances[0]
    if not method.batched or len(instances) == 1 or first.is_sparse or first.cones:
        return [_data([instance], method) for instance in instances]
    return [_data(instances, method)]


def make_upstream(instances: Sequence[Instance], method: Method) -> list[FrameworkArray]:
    """Return v = ∂L/∂z* for every element of `make_data`, of the shape of its z."""
    vectors = [instance.loss_gradient for instance in instances]
    first = instances[0]
    if not method.batched or len(instances) == 1 or first.is_sparse or first.cones:
        return [from_numpy(vector, method) for vector in vectors]
    return [from_numpy(np.stack(vectors), method)]


def _data(instances: Sequence[Instance], method: Method) -> Data:
    first, count = instances[0], len(instances)
    arrays = {
        name: from_numpy(
            getattr(first, name)
            if count == 1
            else np.stack([getattr(instance, name) for instance in instances]),
            method,
            gradient=name in method.wrt,
        )
        for name in DATA_NAMES
    }
    cones = tuple(
        replace(cone, **{name: from_numpy(getattr(cone, name), method) for name in ("F", "g", "c")})
        for cone in first.cones
    )
    return Data(
        **arrays,
        cones=cones,
        problem_class=first.problem_class,
        family=first.family,
        size=first.size,
        batch=count,
    )


def from_numpy(value: Matrix, method: Method, *, gradient: bool = False) -> FrameworkArray:
    """Copy an array or a SciPy matrix to the method's framework, device and type.

    Sparse matrices stay sparse, except for JAX, whose own are experimental.
    """
    if method.framework == "numpy":
        return value.astype(method.dtype, copy=True)
    if method.framework == "torch":
        torch: Any = importlib.import_module("torch")
        kind = {"dtype": getattr(torch, method.dtype), "device": method.device}
        if sp.issparse(value):
            rows = value.tocsr()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "Sparse CSR tensor support is beta"
                # SciPy's own arrays, so there is nothing to check.
                made = torch.sparse_csr_tensor(
                    rows.indptr, rows.indices, rows.data, rows.shape, check_invariants=False, **kind
                )
        else:
            made = torch.tensor(value, **kind)
        return made.requires_grad_(gradient)
    jax: Any = importlib.import_module("jax")
    where, _, number = method.device.partition(":")
    device = jax.devices("gpu" if where == "cuda" else where)[int(number or 0)]
    dense = value.toarray() if sp.issparse(value) else value
    return jax.block_until_ready(jax.device_put(dense.astype(method.dtype), device))


def to_numpy(value: FrameworkArray) -> Matrix:
    """Return a copy in NumPy, float64 if it holds numbers; CSC for a sparse matrix.

    Parameters
    ----------
    value
        Array of any framework, on any device; a list is none.

    Raises
    ------
    TypeError
        If it is no array.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.layout) != "torch.strided":
            rows = value.to_sparse_csr()
            parts = (rows.values(), rows.col_indices(), rows.crow_indices())
            value = sp.csr_matrix(tuple(p.numpy() for p in parts), shape=tuple(rows.shape))
        else:
            value = value.resolve_conj().resolve_neg().numpy()
    if sp.issparse(value):
        return value.tocsc().astype(np.float64, copy=True)
    if not hasattr(value, "__array__") or not hasattr(value, "shape"):
        raise TypeError(f"it is a {type(value).__name__}, not an array")
    array: Array = np.array(value)
    return array.astype(np.float64) if array.dtype.kind in "fiu" else array


def synchronizer(device: str) -> Any:
    """Return what waits for a device's queue; None on the CPU, which has none."""
    if not device.startswith("cuda"):
        return None
    torch: Any = importlib.import_module("torch")
    return lambda: torch.cuda.synchronize(device)
