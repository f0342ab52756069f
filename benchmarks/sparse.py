"""Sparse problems in 100,000 variables through the torch layer: time, memory and residuals.

``python benchmarks/sparse.py`` runs every case in a process of its own, prints a table, and fails
if a case takes more than 1 GiB, in total or beyond what the process held before the passes, or if
its solution or its gradients are wrong. ``python benchmarks/sparse.py "random osqp/direct scipy"``
asks for any other pair of solvers; ``--seconds`` and ``--gib`` say when to give up.

The solution is planted, so that no second solver is needed to judge the first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import scipy.sparse as sp
from scipy.sparse.linalg import lsqr

if __name__ == "__main__":
    # The repository's root and not this folder, whose file names are those of other packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.cells import QUICK, registry
from bpqp_bench import Size
from bpqp_bench.method.phase_clock import PhaseClock

# "pattern forward/backward layout". SciPy matrices are constants, those in torch's CSR get
# gradients. On an irregular pattern factorizations fill up: only solvers without get through.
CASES = [
    "banded piqp/direct csr",
    "banded piqp/direct scipy",
    "banded osqp/direct csr",
    "banded osqp/osqp csr",
    "banded clarabel/direct csr",
    "random scs-indirect/minres csr",
    "random scs-indirect/minres scipy",
    "qp-active scs-indirect/minres csr",
]
TRACKED = CASES[:1] if QUICK else CASES
PATTERNS = ("banded", "random", "qp-active")
LAYOUTS = ("csr", "scipy")
N = 100_000
LIMIT = 2**30
TOLERANCE = 1e-6
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, eq=False)
class Planted:
    """A sparse QP with its only solution and multipliers, and the upstream gradient v."""

    P: sp.csr_matrix
    q: np.ndarray
    A: sp.csr_matrix
    b: np.ndarray
    G: sp.csr_matrix
    h: np.ndarray
    z: np.ndarray
    nu: np.ndarray
    lam: np.ndarray
    v: np.ndarray

    @property
    def nnz(self) -> int:
        """Stored entries of P, A and G."""
        return int(self.P.nnz + self.A.nnz + self.G.nnz)


def draw(pattern: str, n: int = N, seed: int = 0) -> Planted:
    """Plant a solution of a problem with three entries a row; half of the inequalities bind.

    "banded": P is tridiagonal, rows of A and G take three neighbours; n/10 equalities, n/5
    inequalities. "random": the same with columns drawn at random. "qp-active": the suite's family,
    n/10 of both. No row binds weakly.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"no pattern {pattern!r}; there are {', '.join(PATTERNS)}")
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(n)
    if pattern == "qp-active":
        family = registry().family(f"qp-active[density={3 / n!r}]")
        instance = family.draw(Size(n, n // 10), seed)
        at = instance.planted
        assert at is not None
        assert at.z is not None
        assert at.nu is not None
        assert at.lam is not None
        P, A, G = (sp.csr_matrix(getattr(instance, name)) for name in ("P", "A", "G"))
        # Vectors that torch can share: an instance's own are read-only.
        q, b, h = (np.array(getattr(instance, name)) for name in ("q", "b", "h"))
        return Planted(P, q, A, b, G, h, at.z, at.nu, at.lam, v)

    # Each row has a first column of its own, and most of its weight there: rows that bind are then
    # independent, and the multipliers unique. Freely drawn, four rows can share three columns.
    first = rng.choice(n - 2, n // 10 + n // 5, replace=False)
    if pattern == "banded":
        others = first[:, None] + np.arange(1, 3)
    else:
        others = rng.integers(0, n, (len(first), 2))
    columns = np.column_stack([first, others])
    values = np.asarray(rng.uniform(-1.0, 1.0, columns.shape))
    values[:, 0] += 3.0
    places = (np.repeat(np.arange(len(first)), 3), columns.ravel())
    rows = sp.csr_matrix((values.ravel(), places), shape=(len(first), n))
    A, G = rows[: n // 10], rows[n // 10 :]

    right = np.arange(1, n) if pattern == "banded" else rng.integers(0, n, n - 1)
    half = sp.csr_matrix((np.full(n - 1, -0.9), (np.arange(n - 1), right)), shape=(n, n))
    beside = half + half.T
    P = sp.csr_matrix(beside + sp.diags(np.asarray(abs(beside).sum(axis=1)).ravel() + 0.2))
    z, nu = rng.standard_normal(n), rng.standard_normal(n // 10)
    lam = np.where(rng.random(n // 5) < 0.5, rng.uniform(0.5, 1.0, n // 5), 0.0)
    slack = np.where(lam > 0, 0.0, rng.uniform(0.5, 1.0, n // 5))
    q = -(P @ z) - A.T @ nu - G.T @ lam
    return Planted(P, q, A, A @ z, G, G @ z + slack, z, nu, lam, v)


class Prepared:
    """A case's arguments and layer, ready for its passes."""

    def __init__(self, case: str, n: int = N) -> None:
        # Not at the top: asv imports all benchmarks into the process that it forks, and torch would
        # count in the memory of those that do without.
        import torch  # noqa: PLC0415

        from bpqp_bench.layers import BPQP  # noqa: PLC0415

        pattern, solvers, layout = case.split()
        if layout not in LAYOUTS:
            raise ValueError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
        self.qp = draw(pattern, n)
        self.arguments: dict[str, Any] = {}
        for name in ("P", "q", "A", "b", "G", "h"):
            value = getattr(self.qp, name)
            if not sp.issparse(value):
                self.arguments[name] = torch.from_numpy(value).requires_grad_()
            elif layout == "scipy":
                self.arguments[name] = value
            else:
                with warnings.catch_warnings():  # torch says once that CSR is in beta
                    warnings.simplefilter("ignore", UserWarning)
                    self.arguments[name] = torch.sparse_csr_tensor(
                        torch.from_numpy(value.indptr),
                        torch.from_numpy(value.indices),
                        torch.from_numpy(value.data),
                        value.shape,
                    ).requires_grad_()
        self.v = torch.from_numpy(self.qp.v)
        self.layer = BPQP(*solvers.split("/"))

    def run(self) -> tuple[np.ndarray, float, float]:
        """Do both passes; return z and the seconds of each, gradients lie in the arguments."""
        clock = PhaseClock()
        z, forward = clock.measure(lambda: self.layer(**self.arguments))
        _, backward = clock.measure(lambda: z.backward(self.v))
        return z.detach().numpy(), forward.call, backward.call

    @property
    def statuses(self) -> tuple[str, ...]:
        """What both solvers said, and the kind of gradient."""
        facts = self.layer.last_info[0]
        return tuple(str(facts[key]) for key in ("status", "backward_status", "gradient"))

    def kkt_residual(self, z: np.ndarray) -> float:
        """Violation of the KKT conditions, with the multipliers that suit the point best."""
        slack = self.qp.h - self.qp.G @ z
        primal = max(np.abs(self.qp.A @ z - self.qp.b).max(), -slack.min())
        force = self.qp.P @ z + self.qp.q
        nu, lam = self._multipliers(slack < TOLERANCE, force)
        dual = np.abs(force + self.qp.A.T @ nu + self.qp.G.T @ lam).max()
        return float(max(primal, dual, -lam.min()))

    def gradient_residual(self) -> float:
        """Violation of the adjoint equations, and difference of the other gradients from theirs."""
        qp, zt = self.qp, self.arguments["q"].grad.numpy()
        binding = qp.lam > 0
        nu, lam = self._multipliers(binding, qp.P @ zt + qp.v)
        stationary = qp.P @ zt + qp.v + qp.A.T @ nu + qp.G.T @ lam
        # Theorem 1 of the paper, with the planted solution.
        expected = {
            "P": (0.5 * zt, qp.z, qp.z, 0.5 * zt),
            "A": (nu, qp.z, qp.nu, zt),
            "G": (lam, qp.z, qp.lam, zt),
        }
        wrong = [stationary, qp.A @ zt, (qp.G @ zt)[binding]]
        wrong += [self.arguments[name].grad.numpy() + y for name, y in (("b", nu), ("h", lam))]
        for name, (a, b, c, d) in expected.items():
            if sp.issparse(self.arguments[name]):
                continue
            rows, columns = getattr(qp, name).tocoo().coords
            found = self.arguments[name].grad.values().numpy()
            wrong.append(found - (a[rows] * b[columns] + c[rows] * d[columns]))
        return float(max(np.abs(part).max() for part in wrong))

    def _multipliers(self, binding: np.ndarray, force: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        C = sp.vstack([self.qp.A, self.qp.G[np.flatnonzero(binding)]], format="csr")
        y = lsqr(C.T, -force, atol=1e-14, btol=1e-14, iter_lim=10_000)[0]
        lam = np.zeros(len(binding))
        lam[binding] = y[len(self.qp.b) :]
        return y[: len(self.qp.b)], lam


def memory() -> tuple[int, int]:
    """Resident memory of this process now and at its peak, bytes."""
    text = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


def measure_here(case: str, n: int = N) -> dict[str, Any]:
    """Run a case in this process."""
    Prepared(case, 1000).run()  # what solvers import and allocate once is not the problem's
    prepared = Prepared(case, n)
    # Forget the peak of drawing. Not getrusage: its peak includes that of the starting process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, _ = memory()
    z, forward, backward = prepared.run()
    _, peak = memory()
    found = {
        "forward_s": forward,
        "backward_s": backward,
        "nnz": prepared.qp.nnz,
        "before": before,
        "peak": peak,
        "status": "/".join(prepared.statuses),
        "kkt": prepared.kkt_residual(z),
        "error": float(np.abs(z - prepared.qp.z).max()),
        "gradient": prepared.gradient_residual(),
    }
    found["problems"] = _problems(found)
    return found


def _problems(found: dict[str, Any]) -> list[str]:
    problems = []
    if found["peak"] > LIMIT:
        problems.append("more than 1 GiB in total")
    if found["peak"] - found["before"] > LIMIT:
        problems.append("grew by more than 1 GiB")
    if found["status"] != "solved/solved/exact":
        problems.append(found["status"])
    problems += [key for key in ("kkt", "error", "gradient") if not found[key] < TOLERANCE]
    return problems


def measure(case: str, seconds: float = 600.0, limit: int = 4 * LIMIT) -> dict[str, Any]:
    """Run a case in a process of its own, and end it when it takes too long or too much."""
    command = [sys.executable, str(Path(__file__).resolve()), "--here", case]
    environment = os.environ | dict.fromkeys(_THREADS, "1")
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start, peak, ended = time.monotonic(), 0, ""
        with subprocess.Popen(command, stdout=out, stderr=err, env=environment) as child:
            while child.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    peak = max(peak, psutil.Process(child.pid).memory_info().rss)
                spent = time.monotonic() - start
                if peak > limit or spent > seconds:
                    what = f"{limit / 2**30:.1f} GiB" if peak > limit else f"{seconds:.0f} s"
                    ended = f"ended beyond {what}, after {spent:.0f} s with {_mib(peak)} MiB"
                    child.kill()
                    break
                time.sleep(0.05)
        err.seek(0)
        out.seek(0)
        said = err.read().strip().splitlines() or [f"exit status {child.returncode}"]
        if ended or child.returncode != 0:
            return {"problems": [ended or said[-1]]}
        found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        return found


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f}"


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "forward s": lambda f: f"{f['forward_s']:.2f}",
    "backward s": lambda f: f"{f['backward_s']:.2f}",
    "entries": lambda f: str(f["nnz"]),
    "MiB before": lambda f: _mib(f["before"]),
    "peak": lambda f: _mib(f["peak"]),
    "growth": lambda f: _mib(f["peak"] - f["before"]),
    "status": lambda f: f["status"],
    "KKT residual": lambda f: f"{f['kkt']:.0e}",
    "error of z": lambda f: f"{f['error']:.0e}",
    "gradient residual": lambda f: f"{f['gradient']:.0e}",
}


class SparseMemory:
    """Peak resident memory of a process that draws a problem and runs both passes."""

    params = [TRACKED]
    param_names = ["case"]
    timeout = 300

    def setup(self, case: str) -> None:
        self.prepared = Prepared(case)

    def peakmem_passes(self, case: str) -> None:
        self.prepared.run()


class Sparse:
    """The script's figures, each case measured once."""

    params = [TRACKED]
    param_names = ["case"]
    timeout = 60

    def setup_cache(self) -> dict[str, dict[str, Any]]:
        found = {case: measure(case) for case in TRACKED}
        for case, figures in found.items():
            if figures["problems"]:
                print(f"{case}: {'; '.join(figures['problems'])}", file=sys.stderr)
        return found

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def track_forward(self, found: dict[str, dict[str, Any]], case: str) -> float:
        return float(found[case].get("forward_s", "nan"))

    track_forward.unit = "seconds"  # type: ignore[attr-defined]

    def track_backward(self, found: dict[str, dict[str, Any]], case: str) -> float:
        return float(found[case].get("backward_s", "nan"))

    track_backward.unit = "seconds"  # type: ignore[attr-defined]

    def track_growth(self, found: dict[str, dict[str, Any]], case: str) -> float:
        figures = found[case]
        return float(figures.get("peak", "nan")) - float(figures.get("before", 0))

    track_growth.unit = "bytes"  # type: ignore[attr-defined]

    def track_residual(self, found: dict[str, dict[str, Any]], case: str) -> float:
        return max(float(found[case].get(key, "nan")) for key in ("kkt", "gradient"))

    track_residual.unit = "residual"  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", help='like "banded osqp/direct csr"; default: all')
    parser.add_argument("--seconds", type=float, default=600.0, help="end a case after so long")
    parser.add_argument("--gib", type=float, default=4.0, help="end a case beyond so much")
    parser.add_argument("--here", metavar="CASE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measure_here(given.here)))
        return
    print("| case |", " | ".join(_COLUMNS), "|")
    print("| --- " * (1 + len(_COLUMNS)) + "|")
    failed = []
    for case in given.case or CASES:
        found = measure(case, given.seconds, int(given.gib * 2**30))
        if "peak" in found:
            cells = [column(found) for column in _COLUMNS.values()]
        else:
            cells = ["; ".join(found["problems"]) if c == "status" else "" for c in _COLUMNS]
        print(f"| {case} |", " | ".join(cells), "|", flush=True)
        failed += [f"{case}: {problem}" for problem in found["problems"]]
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
