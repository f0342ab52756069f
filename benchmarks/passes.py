"""Time of the passes, by protocol, read off the phase clock and not off asv's.

asv lets a benchmark bring its own timer, a function that returns seconds which never decrease. The
ledger below is one: it holds the seconds of the pass and protocol under test, and grows only by
what `PhaseClock` measured. asv keeps its samples and statistics, and there is one way of timing.
"""

from __future__ import annotations

from benchmarks.cells import FAMILIES, METHODS, SIZES, prepared

# A sample is the shortest of so many calls: interference only ever adds time, and asv's detection
# of steps overlooks a slow-down of a fifth in a series that scatters by a twentieth.
_CALLS = 5


class Ledger:
    """Seconds of one pass under one protocol, summed over the calls of this process."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class _Pass:
    params = (METHODS, FAMILIES, SIZES)
    param_names = ("method", "family", "size")
    timeout = 120
    # asv may not repeat the call between two readings of the timer more often than it counts.
    number = 1
    repeat = (5, 20, 2.0)
    rounds = 2
    warmup_time = 0.0
    direction = "forward"
    protocol = "call"

    def setup(self, method: str, family: str, size: str) -> None:
        self.cell = prepared(method, family, size)

    def spend(self, ledger: Ledger) -> None:
        runs = [self.cell.run() for _ in range(_CALLS)]
        times = [run.forward if self.direction == "forward" else run.backward for run in runs]
        ledger.seconds += min(t.call if self.protocol == "call" else t.solve for t in times)


_FORWARD_CALL, _FORWARD_SOLVER = Ledger(), Ledger()
_BACKWARD_CALL, _BACKWARD_SOLVER = Ledger(), Ledger()


class ForwardCall(_Pass):
    """Everything that a training step pays for the forward pass."""

    timer = _FORWARD_CALL

    def time_pass(self, method: str, family: str, size: str) -> None:
        self.spend(_FORWARD_CALL)


class ForwardSolver(_Pass):
    """The solve phase of the forward pass alone."""

    timer = _FORWARD_SOLVER
    protocol = "solver"

    def time_pass(self, method: str, family: str, size: str) -> None:
        self.spend(_FORWARD_SOLVER)


class BackwardCall(_Pass):
    """Everything that a training step pays for the backward pass."""

    timer = _BACKWARD_CALL
    direction = "backward"

    def time_pass(self, method: str, family: str, size: str) -> None:
        self.spend(_BACKWARD_CALL)


class BackwardSolver(_Pass):
    """The solve phase of the backward pass alone."""

    timer = _BACKWARD_SOLVER
    direction = "backward"
    protocol = "solver"

    def time_pass(self, method: str, family: str, size: str) -> None:
        self.spend(_BACKWARD_SOLVER)
