"""Quadratic programs in the field's files: MAT (as OSQP's benchmark stores them) and QPS."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp

from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.two_sided import DENSE_UP_TO, one_sided

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


def read_npz(path: Path) -> tuple[Instance, ...]:
    """Read minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h, one problem or a batch of them.

    Arrays by name: ``q``, and as far as there are any ``P``, ``A``, ``b``, ``G``, ``h``, with the
    shapes of one problem or a leading dimension for several. A row of G with h = inf is no row.

    Raises
    ------
    SpecError
        If the file cannot be read, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            given = {name: np.asarray(file[name], dtype=float) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path} is not an npz file of numbers: {error}") from None
    plain = {"q": 1, "P": 2, "A": 2, "b": 1, "G": 2, "h": 1}
    if unknown := sorted(set(given) - set(plain)):
        raise SpecError(f"{path} holds {', '.join(unknown)}; the names are {', '.join(plain)}")
    if "q" not in given or ("A" in given) != ("b" in given) or ("G" in given) != ("h" in given):
        raise SpecError(f"{path} needs q, and A with b, G with h; it has {', '.join(given)}")
    if wrong := [k for k, v in given.items() if v.ndim not in (plain[k], plain[k] + 1)]:
        raise SpecError(f"{path}: {wrong[0]} has shape {given[wrong[0]].shape}")
    batches = {len(v) for k, v in given.items() if v.ndim > plain[k]} or {1}
    if len(batches) > 1 or 0 in batches:
        raise SpecError(f"{path}: its arrays are batches of {sorted(batches)} problems")
    n = given["q"].shape[-1]
    empty = {"P": np.zeros((n, n)), "A": np.zeros((0, n)), "b": np.zeros(0)}
    problems: list[Instance] = []
    for index in range(batches.pop()):
        one = {k: v[index] if v.ndim > plain[k] else v for k, v in given.items()}
        data = empty | {"G": np.zeros((0, n)), "h": np.zeros(0)} | one
        rows = ~np.isposinf(data["h"])
        data["G"], data["h"] = (
            (data["G"][rows], data["h"][rows]) if rows.shape == data["G"].shape[:1]
            else (data["G"], data["h"])
        )  # fmt: skip
        problems.append(Instance(**data, problem_class="qp"))
    if len({(p.neq, p.nineq) for p in problems}) > 1:
        raise SpecError(f"{path}: its problems have different numbers of rows")
    return tuple(problems)


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
