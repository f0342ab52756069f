"""Quadratic programs in the field's files: MAT (as OSQP's benchmark stores them) and QPS."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp

from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.two_sided import DENSE_UP_TO, one_sided

__all__ = ["DATA_VARIABLE", "data_folders", "read_mat", "read_qps"]

# Names a folder of problem files; the command line's --data-dir sets it.
DATA_VARIABLE = "BPQP_BENCH_DATA"


def data_folders(name: str) -> tuple[Path, ...]:
    """Return where files of the collection ``name`` may lie: the named folder and one inside it."""
    given = os.environ.get(DATA_VARIABLE, "")
    return (Path(given), Path(given) / name) if given else ()


def read_mat(path: Path) -> Instance:
    """Read minimize ½xᵀPx + qᵀx subject to l ≤ Ax ≤ u from a MATLAB file.

    Raises
    ------
    SpecError
        If the file cannot be read or lacks one of P, q, A, l, u.
    """
    try:
        found = scipy.io.loadmat(path)
        P, A = sp.csc_matrix(found["P"], dtype=float), sp.csr_matrix(found["A"], dtype=float)
        q, lower, upper = (np.asarray(found[key], dtype=float).ravel() for key in ("q", "l", "u"))
    except (OSError, ValueError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise SpecError(f"{path} is not a MATLAB file that can be read: {error}") from None
    except KeyError as error:
        raise SpecError(f"{path} has no {error}; it needs P, q, A, l and u") from None
    return _instance(P, q, A, lower, upper)


def read_qps(path: Path) -> Instance:
    """Read a QPS file (MPS with QUADOBJ or QMATRIX), by HiGHS' reader.

    Raises
    ------
    SpecError
        If the file cannot be read.
    """
    import highspy  # noqa: PLC0415

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    with tempfile.TemporaryDirectory() as folder:
        # The reader goes by the ending and knows MPS only under this one.
        renamed = Path(folder) / "problem.mps"
        try:
            renamed.symlink_to(path.resolve(strict=True))
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error}") from None
        if solver.readModel(str(renamed)) == highspy.HighsStatus.kError:
            raise SpecError(f"{path} is not a QPS file that can be read; check its format")
    model = solver.getModel()
    lp, n = model.lp_, model.lp_.num_col_
    solver.ensureColwise()
    A = sp.csc_matrix(
        (lp.a_matrix_.value_, lp.a_matrix_.index_, lp.a_matrix_.start_), shape=(lp.num_row_, n)
    )
    P = sp.csc_matrix((n, n))
    if model.hessian_.dim_:
        stored = model.hessian_
        half = sp.csc_matrix((stored.value_, stored.index_, stored.start_), shape=(n, n))
        P = half + sp.tril(half, -1).T  # HiGHS keeps the lower triangle
    sign = -1.0 if lp.sense_ == highspy.ObjSense.kMaximize else 1.0
    bounds = (np.array(lp.col_lower_, dtype=float), np.array(lp.col_upper_, dtype=float))
    q = np.array(lp.col_cost_, dtype=float)
    lower, upper = np.array(lp.row_lower_, dtype=float), np.array(lp.row_upper_, dtype=float)
    return _instance(sign * P, sign * q, A, lower, upper, *bounds)


def _instance(
    P: sp.csc_matrix,
    q: np.ndarray,
    rows: sp.csc_matrix,
    lower: np.ndarray,
    upper: np.ndarray,
    least: np.ndarray | None = None,
    most: np.ndarray | None = None,
) -> Instance:
    dense = q.size <= DENSE_UP_TO
    P = sp.csc_matrix(0.5 * (P + P.T))
    P.sort_indices()
    return Instance(
        P=P.toarray() if dense else P,
        q=q,
        **one_sided(rows, lower, upper, least, most, dense=dense),
        problem_class="qp",
    )
