"""Progress of a run: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from bpqp_bench.runner.progress import State

__all__ = ["BarProgress", "LineProgress", "choose_progress"]


class LineProgress:
    """Plain lines, at most one every few seconds.

    Parameters
    ----------
    stream
        Where they go; standard error by default.
    every_s
        Least time between two lines.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 5.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every_s = every_s
        self._last = float("-inf")

    def update(self, state: State) -> None:
        """Print the state if the last line is old enough."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        left = "" if state.eta_s is None else f", {duration(state.eta_s)} left"
        share = state.done / state.total if state.total else 1.0
        self.note(
            f"{state.done}/{state.total} calls ({share:.0%}), "
            f"{duration(state.elapsed_s)} elapsed{left}: {state.current}"
        )

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class BarProgress:
    """A bar with the time that remains and the current cell, for terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar: Any = Bar(
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[elapsed_text]} + {task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            # A thread that redraws would wake up during a measured call.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=None, elapsed_text="0 s", left="?")
        self._last = float("-inf")

    def update(self, state: State) -> None:
        """Draw, at most five times a second."""
        now = time.monotonic()
        if now - self._last < 0.2 and state.done < state.total:
            return
        self._last = now
        self._bar.update(
            self._task,
            completed=state.done,
            total=state.total,
            description=state.current,
            elapsed_text=duration(state.elapsed_s),
            left="?" if state.eta_s is None else duration(state.eta_s),
        )
        self._bar.refresh()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def choose_progress() -> BarProgress | LineProgress:
    """Return a bar if standard error is a terminal, else lines."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def duration(seconds: float) -> str:
    """Print 75 s as "1:15 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
