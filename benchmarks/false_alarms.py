"""How often does the regression check raise an alarm where nothing changed, or miss a planted one?

``python benchmarks/false_alarms.py --times 20`` compares this checkout with an identical copy
twenty times; ``--plant slow`` (or ``turn``, ``scale``) with a copy that has a planted regression.
Any cell's alarm counts. Run it on the machine, and under the load, that the check is to stand.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bpqp_bench.tracking.regression import RegressionConfig, alarms, check_regression

sys.path.insert(0, str(Path(__file__).parent))
from plant import KINDS, plant  # type: ignore[import-not-found]

_PARTS = ("bpqp_bench", "problems", "methods")


def copy_checkout(source: Path, target: Path) -> Path:
    """Copy what runs, with what Python and Numba have compiled of it: copies keep their times."""
    for part in _PARTS:
        shutil.copytree(source / part, target / part)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--plant", choices=KINDS)
    parser.add_argument("--method", action="append")
    parser.add_argument("--family", action="append")
    given = parser.parse_args()
    default = RegressionConfig()
    config = RegressionConfig(
        methods=tuple(given.method or default.methods),
        families=tuple(given.family or default.families),
    )
    source = Path(__file__).resolve().parent.parent
    raised = remeasured = cells = 0
    with tempfile.TemporaryDirectory() as folder:
        base = copy_checkout(source, Path(folder) / "base")
        head = copy_checkout(source, Path(folder) / "head")
        if given.plant:
            plant(head, given.plant)
        for number in range(given.times):
            start = time.perf_counter()
            verdicts = check_regression(base, head, config, seed=number)
            found = alarms(verdicts)
            raised += bool(found)
            cells += len(verdicts)
            remeasured += sum(verdict.remeasured for verdict in verdicts)
            print(
                f"comparison {number}: {len(found)} alarms, {time.perf_counter() - start:.0f} s, "
                f"load {os.getloadavg()[0]:.1f}",
                *found,
                sep="\n  ",
                flush=True,
            )
    print(
        f"{raised} of {given.times} comparisons raised an alarm; "
        f"{remeasured} of {cells} cells were measured twice"
    )


if __name__ == "__main__":
    main()
