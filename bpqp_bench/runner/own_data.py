"""Which layer for my problem? Every layer is measured on given data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.files import DATA_VARIABLE, read_npz
from bpqp_bench.results.overview import Row, overview, rank
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.plan import Plan, Request, make_plan
from bpqp_bench.runner.time_left import TimeLeft
from bpqp_bench.runner.worker_client import Folders

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def compare_layers(
    P: ArrayLike,
    q: ArrayLike,
    A: ArrayLike | None = None,
    b: ArrayLike | None = None,
    G: ArrayLike | None = None,
    h: ArrayLike | None = None,
    *,
    methods: Iterable[str] | None = None,
    instances: int | None = None,
    time_limit_s: float = 10.0,
    budget_s: float = 2.0,
    batch: int = 1,
) -> pd.DataFrame:
    """Measure layers on minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

    Each runs in a process of its own, forward and backward, on the problems given and on
    neighbours of them, as ``bpqp-bench run`` does; gradients of q are compared with a reference.

    Parameters
    ----------
    P, q, A, b, G, h
        Arrays with the shapes of one problem, (n, n), (n,), (neq, n), (neq,), (nineq, n) and
        (nineq,), or with a leading dimension for several problems.
    methods
        Names as `bpqp-bench list` prints them; by default every layer that is installed.
    instances
        How many calls a method; by default one for each problem or batch given, and at least 5.
    time_limit_s, budget_s
        On one pass, and on all counted calls of one method.
    batch
        Problems a call; those that take one at a time are called so often.

    Returns
    -------
    pandas.DataFrame
        One row a method, right ones first, fastest first: ``method``, ``label``, ``forward_ms``,
        ``backward_ms``, ``total_ms`` (medians for one problem), ``one_minus_cos``, ``right``,
        ``calls``, ``failures``. A notebook shows it as a table;
        ``frame.plot.barh(x="label", y="total_ms")`` draws it.

    Raises
    ------
    SpecError
        If the arrays do not fit together, or a method is not known.
    """
    import pandas as pd  # noqa: PLC0415  # takes a second, and the command line needs none of it

    given = {"P": P, "q": q, "A": A, "b": b, "G": G, "h": h}
    arrays: dict[str, Any] = {
        name: np.asarray(value, dtype=float) for name, value in given.items() if value is not None
    }
    before = os.environ.get(DATA_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.npz"
        np.savez(path, **arrays)
        try:
            registry = Registry()
            plan = plan_layers(path, registry, methods, instances, time_limit_s, budget_s, batch)
            rows = measure_layers(plan, Path(folder) / "run", registry)
        finally:
            os.environ.pop(DATA_VARIABLE)
            if before is not None:
                os.environ[DATA_VARIABLE] = before
    return pd.DataFrame(
        [
            {
                "method": row.method,
                "label": row.label,
                **{
                    f"{name}_ms": None if seconds is None else 1e3 * seconds
                    for name, seconds in (
                        ("forward", row.forward_s),
                        ("backward", row.backward_s),
                        ("total", row.total_s),
                    )
                },
                "one_minus_cos": row.one_minus_cos,
                "right": row.right,
                "calls": row.n,
                "failures": ", ".join(f"{count} {status}" for status, count in row.failed),
            }
            for row in rows
        ]
    )


def plan_layers(
    path: Path,
    registry: Registry,
    methods: Iterable[str] | None = None,
    instances: int | None = None,
    time_limit_s: float = 10.0,
    budget_s: float = 2.0,
    batch: int = 1,
) -> Plan:
    """Plan the measurement of layers on the problems of a file; see `compare_layers`."""
    family = data_family(path)
    given = len(read_npz(path)) if path.suffix.lower() == ".npz" else 1
    request = Request(
        methods=tuple(methods) if methods else layers_here(registry),
        families=(family,),
        sizes=(),
        instances=instances or max(given // batch, 5),
        batch=batch,
        call_limit_s=time_limit_s,
        build_limit_s=3.0 * time_limit_s,
        cell_budget_s=budget_s,
    )
    return make_plan([request], registry)


def measure_layers(
    plan: Plan,
    out: Path,
    registry: Registry,
    folders: Folders = ((), ()),
    time_left: TimeLeft | None = None,
) -> list[Row]:
    """Carry out such a plan; returns the methods ranked: right ones first, fastest first."""
    with open_run(out, plan, registry) as directory:
        execute(plan, directory, folders, time_left)
        return sorted(overview(directory.measurements), key=rank)


def data_family(path: Path) -> str:
    """Name the family of a file's problems, and where the file is, for this and its workers."""
    path = path.resolve()
    os.environ[DATA_VARIABLE] = str(path.parent)
    return f"own[file={path.name}]"


def layers_here(registry: Registry) -> tuple[str, ...]:
    """Return the methods for QPs whose libraries are installed and that need no long training."""
    choices = {name: registry.method(name) for name in registry.method_names()}
    return tuple(
        name
        for name, choice in choices.items()
        if "qp" in choice.cls.problem_classes
        and choice.missing() is None
        and not (choice.variant is not None and choice.variant.costly)
    )
