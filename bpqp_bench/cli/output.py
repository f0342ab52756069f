"""What commands print: text without control characters, tables that nothing is cut off from."""

from __future__ import annotations

import itertools
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bpqp_bench.results.overview import Row

# A results directory of somebody else must not move the cursor or set the window's title.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SHORT = 300
_GAP = "  "  # between two columns


def printable(text: str) -> str:
    """Replace halves of surrogate pairs, and control characters except line ends and tabs."""
    return _CONTROL.sub("�", text.encode("utf-8", "replace").decode())


def say(text: str, *, err: bool = False) -> None:
    """Print a text that may come from a file or a method."""
    click.echo(printable(text), err=err)


def paragraph(text: str, indent: str = "") -> None:
    """Print each line of a text over as many lines as the terminal needs."""
    width = shutil.get_terminal_size().columns
    for line in text.splitlines():
        say(textwrap.fill(line, width, initial_indent=indent, subsequent_indent=f"{indent}  "))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    notes: Sequence[Sequence[str]] = (),
) -> None:
    """Print a table; cells are folded where the terminal is narrow, and never cut off.

    ``notes`` are lines under each row.
    """
    cells = [[printable(cell).split("\n") for cell in row] for row in (columns, *rows)]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(columns))]
    room = shutil.get_terminal_size().columns - len(_GAP) * (len(widths) - 1)
    while sum(widths) > max(room, len(widths)):
        widths[widths.index(max(widths))] -= 1
    if title:
        say(title)
    for number, row in enumerate(cells):
        folded = [_folded(lines, width) for lines, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            click.echo(_GAP.join(map(str.ljust, parts, widths)).rstrip())
        if number == 0:
            click.echo(_GAP.join("─" * width for width in widths))
        for note in notes[number - 1] if number and notes else ():
            paragraph(note, indent="    ")


def _folded(lines: Iterable[str], width: int) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, max(width, 1), break_on_hyphens=False) or [""]
    ]


def overview_table(rows: Sequence[Row]) -> None:
    """Print times and accuracy of a run, a table a problem, and under it what failed."""
    for problem, found in itertools.groupby(rows, lambda row: (row.family, row.size, row.setting)):
        cells = list(found)
        entries = [
            (
                row.label,
                *(_milliseconds(s) for s in (row.forward_s, row.backward_s, row.total_s)),
                ("" if row.one_minus_cos is None else f"{row.one_minus_cos:.0e}")
                + (" wrong" if row.right is False else ""),
            )
            for row in cells
            if row.n
        ]
        heading = ("method", "forward ms", "backward ms", "total ms", "1 - cos")
        table(heading, entries, title=f"\n{' '.join(filter(None, problem))}")
        for row in cells:
            if row.failed:
                paragraph(f"{row.label}: {_failures(row)}")


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.{max(0, 2 - len(str(int(1e3 * seconds))) + 1)}f}"


def _failures(row: Row) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in row.failed)
    cause = row.cause if len(row.cause) <= _SHORT else f"{row.cause[:_SHORT]}…"
    return f"{counts}: {cause} (replay {row.key[:8]})"
