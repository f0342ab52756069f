"""Fuzz the layer by hand: ``python -m tests.fuzz --problems 100000`` (or ``make fuzz N=100000``).

Problems are solved in processes of their own, with a time limit each: one that hangs is killed and
counted. The counts by kind and solvers, and the seeds of all faults, are printed and written as
JSON; ``--render`` makes docs/robustness.md of one or more of those files.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from .judge import FAULTS, PAIRS
from .kinds import KINDS
from .pool import fuzz
from .render import page, tables

ROOT = Path(__file__).parents[2]
CHUNK = 50
BY_HAND = "<!-- by hand from here -->"  # what is not generated, at the end of the page
KEPT = 200  # faults whose seeds are written down, by kind and solvers


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def _run(given: argparse.Namespace) -> int:
    kinds = given.kinds.split(",") if given.kinds else list(KINDS)
    pairs = PAIRS if given.solvers == "all" else tuple(given.solvers.split(","))
    each = -(-given.problems // len(kinds))
    tasks = [
        (pair, kind, range(first, min(first + CHUNK, given.seed + each)))
        for first in range(given.seed, given.seed + each, CHUNK)
        for pair in pairs
        for kind in kinds
    ]
    counts: dict[tuple[str, str], Counter[str]] = {}
    solvers: dict[tuple[str, str], Counter[str]] = {}
    faults: list[dict[str, object]] = []
    kept: Counter[tuple[str, str, str]] = Counter()
    begun, total = time.monotonic(), each * len(pairs) * len(kinds)
    found = fuzz(tasks, given.jobs, given.limit)
    done = 0
    try:
        for done, (pair, kind, seed, (outcome, why, by)) in enumerate(found, start=1):
            counts.setdefault((pair, kind), Counter())[outcome] += 1
            solvers.setdefault((pair, kind), Counter())[by] += 1
            if outcome in FAULTS or outcome == "undecided":
                kept[pair, kind, outcome] += 1
                if kept[pair, kind, outcome] <= KEPT:
                    if outcome in FAULTS:
                        print(
                            f"{pair} {kind} {seed}: {outcome}: {why}", file=sys.stderr, flush=True
                        )
                    faults.append(
                        {
                            "solvers": pair,
                            "kind": kind,
                            "seed": seed,
                            "outcome": outcome,
                            "why": why,
                        }
                    )
            if done % 1000 == 0:
                print(f"{done} of {total}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"broken off after {done} of {total}; what there is counts", file=sys.stderr)
    command = f"make fuzz N={given.problems} SOLVERS={given.solvers} SEED={given.seed}"
    result = {
        "command": command
        + (f", {given.kinds}" if given.kinds else "")
        + (f" (broken off after {done} problems)" if done < total else ""),
        "commit": _commit(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seconds": round(time.monotonic() - begun),
        "limit": given.limit,
        "counts": [
            {
                "solvers": pair,
                "kind": kind,
                "outcomes": dict(counts[pair, kind]),
                "by": dict(solvers[pair, kind]),
            }
            for pair in pairs
            for kind in kinds
            if (pair, kind) in counts
        ],
        "faults": sorted(faults, key=lambda f: (f["solvers"], f["kind"], f["outcome"], f["seed"])),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(tables([result]))
    for fault in result["faults"]:  # type: ignore[attr-defined]
        if fault["outcome"] in FAULTS:
            print("{solvers} {kind} {seed}: {outcome}: {why}".format(**fault))
    print(f"written to {given.out}")
    return int(any(fault["outcome"] in FAULTS for fault in faults))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--problems", type=int, default=2000, help="for each pair of solvers")
    parser.add_argument(
        "--solvers", default="active-set/direct", help='forward/backward,... or "all"'
    )
    parser.add_argument("--kinds", default="", help="all by default")
    parser.add_argument("--seed", type=int, default=0, help="the first one, of every kind")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one problem")
    parser.add_argument("--out", type=Path, default=ROOT / "results/runs/fuzz.json")
    parser.add_argument(
        "--render", type=Path, nargs="+", help="print docs/robustness.md from results"
    )
    given = parser.parse_args()
    if given.render:
        published = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
        by_hand = published[published.index(BY_HAND) :]
        print(page([json.loads(path.read_text()) for path in given.render]) + by_hand, end="")
        return 0
    return _run(given)


if __name__ == "__main__":
    raise SystemExit(main())
