"""The display of all that takes long: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bpqp_bench.cli.output import printable
from bpqp_bench.runner.progress import State
from bpqp_bench.runner.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LINE_EVERY_S = 5.0


@contextmanager
def show_time_left(console: Console | None = None) -> Iterator[TimeLeft]:
    """Give an account of the time left that is shown on ``console``, by default standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = console or Console(stderr=True)
    bar = Progress(
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.description}", markup=False),
        console=console,
        # A thread that redraws would wake up during a measured call.
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        yield TimeLeft(_Display(console, bar, bar.add_task("", total=None)))


class _Display:
    def __init__(self, console: Console, bar: Progress, task: TaskID) -> None:
        self._console, self._bar, self._task = console, bar, task
        self._last = float("-inf")

    def update(self, state: State) -> None:
        line = printable(progress_line(state))
        if self._console.is_terminal:
            whole = state.elapsed_s + state.left_s
            self._bar.update(self._task, description=line, completed=state.elapsed_s, total=whole)
            self._bar.refresh()
        elif time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self.note(line)

    def note(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def progress_line(state: State) -> str:
    """Print a state as one line, the time left first: a narrow terminal cuts off the end."""
    return (
        f"{duration(state.left_s)} left, {duration(state.elapsed_s)} elapsed, "
        f"{state.done}/{state.total}: {state.current}"
    )


def duration(seconds: float) -> str:
    """Print 75 s as "1:15 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
