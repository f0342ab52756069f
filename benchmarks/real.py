"""The default layer on every problem of a collection: solved, refused, how right, how long.

Every problem gets a process of its own and ``--seconds`` of its processor's time; the layer has one
thread. On a machine with other work, ``--patience`` is how many times longer the clock may run.
Data are sparse beyond 700 variables. A point is right if it meets the KKT conditions to 1e-6, every
sum relative to its own terms, so that neither units nor a solver's word count; by convexity it is
then optimal.

Run ``python benchmarks/real.py maros-meszaros [--data-dir DIR] [--names A B]`` or ``… cutest``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp
import torch

from bpqp_bench import Instance
from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers import BPQP
from bpqp_bench.plugins.registry import Registry

_DENSE = 700
_RIGHT = 1e-6


def kkt_error(i: Instance, z: np.ndarray, nu: np.ndarray, lam: np.ndarray) -> float:
    """Largest residual of the KKT conditions, each over the size of its own terms.

    Terms that vanish at the solution count as a billionth of the largest, and those of a row as a
    billionth of what they would be if all entries of z were as large as the largest, so that
    rounding there (a bound z ≥ 0 that is met by −1e-16) is none of the layer's errors.
    """

    def over(off: np.ndarray, terms: np.ndarray, *possible: np.ndarray) -> float:
        floor = 1e-9 * max(float(part.max(initial=0.0)) for part in (terms, *possible)) or 1.0
        return float((off / np.maximum(terms, floor)).max(initial=0.0))

    finite = np.isfinite(i.h)
    G, h, lam = sp.csr_matrix(i.G)[finite], i.h[finite], lam[finite]
    reach, push = np.abs(z), abs(i.P) @ np.abs(z) + np.abs(i.q)
    everywhere = np.full(len(z), reach.max(initial=0.0))
    slope = i.P @ z + i.q + i.A.T @ nu + G.T @ lam
    push = push + abs(i.A).T @ np.abs(nu) + abs(G).T @ lam
    rows, possible = abs(G) @ reach + np.abs(h), abs(G) @ everywhere
    slack, most = h - G @ z, max(float(np.abs(lam).max(initial=0.0)), 1e-300)
    return max(
        over(np.abs(slope), push),
        over(np.abs(i.A @ z - i.b), abs(i.A) @ reach + np.abs(i.b), abs(i.A) @ everywhere),
        over(np.maximum(-slack, 0.0), rows, possible),
        over(np.abs(lam * slack), rows * most, possible * most),
    )


def measure(family: str, name: str, limit: float) -> dict[str, object]:
    """Solve one problem forward and backward."""
    choice = Registry().family(f"{family}[name={name}]")
    assert choice.size is not None
    i = choice.draw(choice.size, 0)
    sparse = i.n > _DENSE

    def matrix(M: Any) -> object:
        if sparse:
            return sp.csc_matrix(M)
        return torch.from_numpy(M.toarray() if sp.issparse(M) else np.array(M))

    q, b, h = (torch.from_numpy(np.array(part)) for part in (i.q, i.b, i.h))
    q.requires_grad_()
    layer = BPQP(time_limit=limit)
    found: dict[str, object] = {"name": name, "n": i.n, "neq": i.neq, "nineq": i.nineq}
    torch.set_num_threads(1)
    begin, clock = time.process_time(), time.perf_counter()
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            z = layer(matrix(i.P), q, matrix(i.A), b, matrix(i.G), h)
            v = torch.from_numpy(np.random.default_rng(0).standard_normal(i.n))
            z.backward(v)
    except (InstanceError, MethodError) as why:
        return found | {"outcome": "refused", "why": str(why), "s": time.process_time() - begin}
    took = {"s": time.process_time() - begin, "wall": time.perf_counter() - clock}
    nu, lam = (part.numpy() for part in layer.multipliers[:2])
    error = kkt_error(i, z.detach().numpy(), nu, lam)
    facts = layer.last_info[0]
    flagged = facts["status"] != "solved"
    outcome = "right" if error <= _RIGHT else "wrong, flagged" if flagged else "wrong silently"
    keys = ("forward", "status", "gradient", "adjoint_residual")
    return found | {"outcome": outcome, "kkt": error} | took | {k: facts.get(k) for k in keys}


def _tell(pipe: Connection, family: str, name: str, limit: float) -> None:
    pipe.send(measure(family, name, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--data-dir")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--patience", type=float, default=1.0)
    given = parser.parse_args()
    if given.data_dir:
        os.environ["BPQP_BENCH_DATA"] = given.data_dir
    limit = given.seconds * given.patience
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bpqp_bench.layers.forward", "bpqp_bench.plugins.registry"])
    members = Registry().family(given.family).family.members
    assert members is not None
    counts: Counter[str] = Counter()
    print("| name | n | neq | nineq | outcome | KKT | by | status | gradient | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in given.names or [str(member["name"]) for member in members()]:
        there, pipe = context.Pipe()
        child = context.Process(target=_tell, args=(pipe, given.family, name, limit), daemon=True)
        child.start()
        pipe.close()
        said: dict[str, Any] = {"outcome": "timeout"}
        if there.poll(limit + 20.0):
            try:
                said = there.recv()
            except EOFError:
                said = {"outcome": "crash"}
        child.kill()
        if float(said.get("s", 0.0)) > given.seconds:
            said["outcome"] = "timeout"
        counts[said["outcome"]] += 1
        cells = (
            *(name, said.get("n"), said.get("neq"), said.get("nineq"), said["outcome"]),
            f"{said['kkt']:.0e}" if "kkt" in said else said.get("why", ""),
            *(said.get("forward"), said.get("status"), said.get("gradient")),
            f"{float(said.get('s', 0.0)):.2f}",
        )
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
    print(", ".join(f"{outcome}: {count}" for outcome, count in counts.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
