"""Plant a regression in a checkout, to see that it is found.

``python benchmarks/plant.py FOLDER slow`` makes the backward pass of one adapter take 20 % longer,
``turn`` and ``scale`` give its gradient a relative error of 1e-3 in direction or in length. Never
run it on a checkout that you want to keep: it appends to the adapter's file.

The slow-down is in proportion to what the pass took this time, and it is waited for with a busy
loop: passes take tens of microseconds, less than what a sleeping process oversleeps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

_HEAD = """

def _planted(original):
    import time

    import numpy as np

    directions = {{}}

    def backward(self, upstream, clock):
        start = time.perf_counter()
        gradients = dict(original(self, upstream, clock))
"""
_SLOW = """\
        end = start + (time.perf_counter() - start) * (1.0 + {amount!r})
        while time.perf_counter() < end:
            pass
"""
_TURN = """\
        g = np.asarray(gradients["q"])
        # Drawn once per size: a wrong gradient must not be found by the time that it takes.
        if g.size not in directions:
            drawn = np.random.default_rng(0).standard_normal(g.size)
            directions[g.size] = drawn / np.linalg.norm(drawn)
        gradients["q"] = g + {amount!r} * np.linalg.norm(g) * directions[g.size]
"""
_SCALE = """\
        gradients["q"] = np.asarray(gradients["q"]) * (1.0 + {amount!r})
"""
_TAIL = """\
        return gradients

    return backward


{cls}.backward = _planted({cls}.backward)
"""
KINDS = {"slow": (_SLOW, 0.2), "turn": (_TURN, 1e-3), "scale": (_SCALE, 1e-3)}


def plant(
    folder: Path,
    kind: str,
    amount: float | None = None,
    adapter: str = "methods/bpqp.py",
    cls: str = "BPQP",
) -> Path:
    """Append the regression to an adapter; return its file."""
    body, default = KINDS[kind]
    path = folder / adapter
    text = path.read_text()
    if f"class {cls}(" not in text:
        raise SystemExit(f"{path} has no class {cls}; name another one with --adapter and --class")
    chosen = default if amount is None else amount
    path.write_text(text + _HEAD.format() + body.format(amount=chosen) + _TAIL.format(cls=cls))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--amount", type=float, help="0.2 for slow, 1e-3 for turn and scale")
    parser.add_argument("--adapter", default="methods/bpqp.py", help="file under FOLDER")
    parser.add_argument("--class", dest="cls", default="BPQP", help="class in that file")
    given = parser.parse_args()
    print(f"planted in {plant(given.folder, given.kind, given.amount, given.adapter, given.cls)}")


if __name__ == "__main__":
    main()
