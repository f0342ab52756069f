"""Compare a run's ratios between three layers with those of a plain loop, and fill docs/clock.md.

``python benchmarks/clock_page.py RUN`` runs `plain_loop` and prints both side by side; ``--write``
puts script and table into the page. RUN is a survey, or what `bpqp-bench run` measured of the same
cells. Do both on one machine with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bpqp_bench import Registry
from bpqp_bench.report.inputs import load_inputs
from bpqp_bench.report.tables._survey import by_batch
from bpqp_bench.report.tables.batches import CLOCK_METHODS, CLOCK_SIZES
from bpqp_bench.runner.worker_client import worker_environment

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "clock.md"
BATCHES = (1, 64)
WITHIN = 1.2
_BASE = "bpqp"
_FAMILY = "qp-active"
# Rounds of the plain loop, fewer where they take long.
_ROUNDS = {"500x100": 7}
_MOST_ROUNDS = 30

Plain = Mapping[tuple[str, int], Mapping[str, list[float]]]


@dataclass(frozen=True)
class Pair:
    """Time of one layer over BPQP's, in the run and in the plain loop."""

    size: str
    batch: int
    method: str
    suite: float
    plain: float
    calls: int

    @property
    def apart(self) -> float:
        """The larger of the two ratios over the smaller."""
        return max(self.suite / self.plain, self.plain / self.suite)

    @property
    def agrees(self) -> bool:
        """Whether the two are within the limit; no for a ratio that was not measured."""
        return self.apart <= WITHIN


def measure_plain() -> Plain:
    """Run the plain loop at every size and batch, in the environment of the suite's workers."""
    folder = Path(__file__).parent
    cells = [(s, b, _ROUNDS.get(s, _MOST_ROUNDS)) for s in CLOCK_SIZES for b in BATCHES]
    code = f"import json, plain_loop as p; print(json.dumps([p.measure(*c) for c in {cells}]))"
    environment = dict(os.environ) | worker_environment(threads=1)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), str(folder))))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    return {
        (size, batch): seconds for (size, batch, _), seconds in zip(cells, measured, strict=True)
    }


def pairs(run: Path, plain: Plain) -> Iterator[Pair]:
    """Yield both ratios at every size and batch: medians over problems, paired by problem."""
    registry = Registry()
    inputs = load_inputs(run, registry)
    suite = by_batch(inputs)
    for (size, batch), seconds in plain.items():
        for method in CLOCK_METHODS:
            if method == _BASE:
                continue
            ratio, calls = float("nan"), 0
            if (cells := suite.get(batch)) is not None:
                mine, base = (
                    cells.times(_FAMILY, size, registry.method(name).key, "total", "call")
                    for name in (method, _BASE)
                )
                both = (mine / base).dropna()
                ratio, calls = float(both.median()), len(both)
            loop = float(np.median(np.array(seconds[method]) / np.array(seconds[_BASE])))
            yield Pair(size, batch, method, ratio, loop, calls)


def table(found: list[Pair]) -> str:
    """Print the ratios as a Markdown table."""
    lines = [
        "| size | batch | time of | in the run | calls | plain loop | apart | within 1.2 |",
        "| :--- | ---: | :--- | ---: | ---: | ---: | ---: | :--- |",
    ]
    for one in found:
        said = "yes" if one.agrees else "not measured" if one.calls == 0 else "**no**"
        lines.append(
            f"| {one.size} | {one.batch} | {one.method} / {_BASE} | {one.suite:.2f} | {one.calls} "
            f"| {one.plain:.2f} | {one.apart:.2f} | {said} |"
        )
    agree = sum(one.agrees for one in found)
    return "\n".join([*lines, "", f"{agree} of {len(found)} ratios agree within {WITHIN:g}."])


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the two comments of a name."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    head, _, rest = text.partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise SystemExit(f"the page has no place for {name}")
    return f"{head}{begin}{content}\n{end}{tail}"


def script() -> str:
    """Return the plain loop as the page shows it."""
    source = (Path(__file__).parent / "plain_loop.py").read_text(encoding="utf-8")
    return f"```python\n{source}```"


def machine(run: Path) -> str:
    """Name what the run was measured by and on."""
    found = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    commit = str(found.get("git_commit") or "unknown")[:10]
    return f"Run of commit {commit} on {found.get('cpu')}, {found.get('cores')} cores."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--write", action="store_true", help="Fill docs/clock.md.")
    given = parser.parse_args()
    found = list(pairs(given.run, measure_plain()))
    print(table(found))
    if given.write:
        text = fill(PAGE.read_text(encoding="utf-8"), "script", script())
        text = fill(text, "ratios", f"{machine(given.run)}\n\n{table(found)}")
        PAGE.write_text(text, encoding="utf-8")
    sys.exit(not all(one.agrees for one in found))


if __name__ == "__main__":
    main()
