"""What a run reports of its progress; the command line displays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class State:
    """How far everything is.

    Attributes
    ----------
    current
        What is running: "qp 100x20 seed 3: bpqp".
    done, total
        Steps: calls, builds, epochs; those of a cell that ended early count as done.
    elapsed_s, left_s
        Seconds since the beginning, and an estimate of those until the end.
    """

    current: str
    done: int
    total: int
    elapsed_s: float
    left_s: float


class Progress(Protocol):
    """Takes reports; must be quick, for it is called between any two calls."""

    def update(self, state: State) -> None:
        """Show a state."""

    def note(self, text: str) -> None:
        """Show a line that stays."""


class Silent:
    """Shows nothing."""

    def update(self, state: State) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
