"""What commands print: text without control characters, tables that nothing is cut off from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bpqp_bench.results.overview import Row

# A results directory of somebody else must not move the cursor or set the window's title.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SHORT = 100


def printable(text: str) -> str:
    """Replace control characters, but for line ends and tabs, and halves of surrogate pairs."""
    return _CONTROL.sub("�", text.encode("utf-8", "replace").decode())


def say(text: str, *, err: bool = False) -> None:
    """Print a text that may come from a file or a method."""
    click.echo(printable(text), err=err)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; cells are folded where the terminal is narrow, and never cut off."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False).print(made)


def overview_table(rows: Sequence[Row]) -> None:
    """Print times, accuracy and failures of a run."""
    table(
        ("method", "problem", "forward", "backward", "total ms", "1 - cos", "failures"),
        [
            (
                row.label,
                f"{row.family} {row.size}{f' {row.setting}' if row.setting else ''}",
                *(_milliseconds(s) for s in (row.forward_s, row.backward_s, row.total_s)),
                ("" if row.one_minus_cos is None else f"{row.one_minus_cos:.0e}")
                + (" wrong" if row.right is False else ""),
                _failures(row),
            )
            for row in rows
        ],
    )


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.{max(0, 2 - len(str(int(1e3 * seconds))) + 1)}f}"


def _failures(row: Row) -> str:
    if not row.failed:
        return ""
    counts = ", ".join(f"{count} {status}" for status, count in row.failed)
    cause = row.cause if len(row.cause) <= _SHORT else f"{row.cause[:_SHORT]}…"
    return f"{counts}: {cause} (replay {row.key[:8]})"
