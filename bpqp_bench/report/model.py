"""What a table is, before it becomes Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import Profile

if TYPE_CHECKING:
    from bpqp_bench.report.inputs import Inputs

Tone = Literal["", "fail", "missing", "best", "muted", "wrong"]
# The command that measures for a table: the paper's tables and claims, or today's questions.
Suite = Literal["reproduce", "survey"]


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes
    ----------
    text
        What is printed.
    sort
        What sorting goes by; None sorts last.
    spread
        What is printed after it, smaller where that is possible: the middle half.
    below
        A second, smaller line: the published figure.
    notes
        Footnotes, as whole sentences; equal ones share a mark.
    runs, unit
        The single measurements behind the figure and their unit, for the distribution on the page.
    tone
        How to show it: "fail", "missing", "best", "muted", "wrong" (a gradient that is not right).
    comparable
        Whether the figure takes part in the comparison for the best one.
    """

    text: str
    sort: float | str | None = None
    below: str = ""
    notes: tuple[str, ...] = ()
    runs: tuple[float, ...] = ()
    unit: str = ""
    tone: Tone = ""
    comparable: bool = False
    spread: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its heading, and the heading that it shares with its neighbours."""

    label: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """One row; ``section`` is a heading shared with the neighbouring rows."""

    cells: tuple[Cell, ...]
    section: str = ""


@dataclass(frozen=True)
class Panel:
    """One grid of a table.

    ``long`` marks panels with many rows, which LaTeX sets as a longtable.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    long: bool = False


@dataclass(frozen=True)
class Table:
    """A rendered table: its panels for people, its tidy frame for machines."""

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    tidy: pd.DataFrame = field(repr=False)


@dataclass(frozen=True)
class TableModule:
    """What a file of ``report/tables/`` binds to the name ``TABLE``.

    Attributes
    ----------
    key, title, order
        File name of the outputs, heading, place among the tables.
    requests
        The cells to measure for it under a profile; empty for a table that lives on other results.
    render
        Makes the table from the run. It must cope with a run in which nothing of it was measured;
        a table of the survey then has no panels.
    suite
        The command that it belongs to.
    """

    key: str
    title: str
    order: int
    requests: Callable[[Profile], tuple[Request, ...]]
    render: Callable[[Inputs], Table]
    suite: Suite = "reproduce"

    def filled(
        self,
        caption: str,
        panels: Iterable[Panel],
        tidy: pd.DataFrame | Sequence[Mapping[str, Any]],
    ) -> Table:
        """Return the table with its panels, and with its tidy frame or the records of one."""
        frame = tidy if isinstance(tidy, pd.DataFrame) else pd.DataFrame.from_records(list(tidy))
        return Table(self.key, self.title, caption, tuple(panels), frame)


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes
    ----------
    key, title
        Base of the file names, heading.
    caption
        What to see in it; also its text for those who cannot see it.
    spec
        A Vega-Lite chart.
    """

    key: str
    title: str
    caption: str
    spec: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class FigureModule:
    """What a file of ``report/figures/`` binds to the name ``FIGURE``.

    ``draw`` returns the drawings for which the run has data, maybe none. ``suite`` is the command
    that the figure belongs to.
    """

    key: str
    order: int
    draw: Callable[[Inputs], tuple[Drawing, ...]]
    suite: Suite = "reproduce"
