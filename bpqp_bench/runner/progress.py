"""What the runner tells of its progress, and to whom; displays are the command line's."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

__all__ = ["Progress", "Silent", "State"]


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes
    ----------
    done, total
        Counted calls; those of a cell that ended early count as done.
    eta_s
        Estimate of the seconds that remain, None before anything is known.
    elapsed_s
        Seconds since the start.
    current
        What is running: "qp 100x20 seed 3: bpqp".
    pace
        How many times as long as in the reference run things take here.
    """

    done: int
    total: int
    eta_s: float | None
    elapsed_s: float
    current: str
    pace: float = 1.0


class Progress(Protocol):
    """Takes reports of the runner; must be quick, for it is called between any two calls."""

    def update(self, state: State) -> None:
        """Show a state."""

    def note(self, text: str) -> None:
        """Show a line that stays."""

    def __enter__(self) -> Progress:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""


class Silent:
    """Shows nothing."""

    def update(self, state: State) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass
