"""One side of a regression check: a process that runs cells of one checkout on request.

Run as a file, not as a module, with the checkout under test first on ``PYTHONPATH``: the head's
copy of this file then drives the base's package, so that both sides are measured by the same code.
It uses only what has to stay stable: registry, draw, the method contract and the phase clock.
Requests and answers are one JSON object a line on standard input and output.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

_TEMPLATE_SEED = 2**31


class Side:
    """Built adapters of one checkout, by (method, family, size)."""

    def __init__(self) -> None:
        # Imported here: this file also serves checkouts whose package is another version.
        from bpqp_bench import Registry

        self._registry = Registry()
        self._built: dict[tuple[str, str, str], Any] = {}

    def run(self, method: str, family: str, size: str, seed: int) -> dict[str, Any]:
        """Measure one forward and backward pass; times in seconds, z and the gradient of q."""
        from bpqp_bench import Size
        from bpqp_bench.method.data import make_data, make_upstream
        from bpqp_bench.method.measure import clock_for, measure_call

        parsed = Size.parse(size)
        key = (method, family, size)
        if key not in self._built:
            adapter = self._registry.method(method).create()
            adapter.build(self._registry.family(family).draw(parsed, _TEMPLATE_SEED))
            self._built[key] = adapter
            # Imports leave a million objects behind, which no collection need look at again.
            gc.collect()
            gc.freeze()
        adapter = self._built[key]
        instance = self._registry.family(family).draw(parsed, seed)
        data, upstream = make_data([instance], adapter), make_upstream([instance], adapter)
        call = measure_call(adapter, data, upstream, clock_for(adapter))
        return {
            "instance": instance.sha256,
            "forward": call.forward.call,
            "backward": call.backward.call,
            "solution": call.solution.z.tolist(),
            "gradient": call.gradients["q"].tolist(),
        }


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until the input ends; an error is an answer."""
    side = Side()
    for line in requests:
        try:
            answer = side.run(**json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on standard input and output, of which only this file may write the latter."""
    # A file that is run has its own folder first on the path, which is the head's package.
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != own]
    # Solvers print; their text must not end up between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
