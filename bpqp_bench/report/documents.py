"""What README.md and docs/results.md show of the reference run, between two markers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bpqp_bench.errors import ResultsError
from bpqp_bench.report.claims import judge_claims
from bpqp_bench.report.claims.readings import READINGS
from bpqp_bench.report.inputs import Inputs, MethodName
from bpqp_bench.report.markdown import Footnotes, panel_markdown
from bpqp_bench.report.model import Cell, Column, Panel, Row, Table
from bpqp_bench.report.tables._common import Place, method_cell, table_sizes, time_cell, with_best
from bpqp_bench.report.text import tiny
from bpqp_bench.runner.profiles import PROFILES

BEGIN = "<!-- reference:begin -->"
END = "<!-- reference:end -->"
_FIGURE = "times-call.svg"
# Every method once, in the setting whose gradient is right on most instances of the family.
_METHODS = (
    *("exact-solve", "cvxpy", "qpth", "altdiff-vjp", "jaxopt-accurate"),
    *("bpqp", "bpqp-direct", "bpqp-fast"),
)
_FAMILY = "qp"
_FEW = 3


def document_sections(inputs: Inputs, tables: Iterable[Table]) -> dict[Path, str]:
    """Return what stands between the markers of each document, by its path in the checkout.

    Parameters
    ----------
    inputs
        The reference run.
    tables
        All of its tables.
    """
    return {
        Path("README.md"): _readme(inputs),
        Path("docs", "results.md"): _results(inputs, tables),
    }


def replace_section(text: str, section: str) -> str:
    """Put a section between the markers of a document.

    Raises
    ------
    ResultsError
        If the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"the document lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section}{END}{after}"


def _readme(inputs: Inputs) -> str:
    """One figure and one small table."""
    notes = Footnotes()
    grid = panel_markdown(_small_panel(inputs), notes)
    parts = [
        f"![Time against size](results/reference/report/{_FIGURE})",
        "One QP of the paper's family, forward and backward pass as a training step pays for them, "
        "median and middle half in ms; every method in its best fair setting, the fastest right "
        "one in bold. "
        f"{_where(inputs.environment)}",
        grid,
        "\n".join(f"{i}. {text}" for i, text in enumerate(notes.texts, start=1)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _results(inputs: Inputs, tables: Iterable[Table]) -> str:
    """Verdicts, and the first panel of every table."""
    parts = [_where(inputs.environment), "## The paper's claims"]
    parts.append(panel_markdown(_claims_panel(inputs), Footnotes()))
    parts.append("[What was measured for each](../results/reference/report/claims.md)")
    for table in tables:
        if not table.panels:  # nothing of it was measured
            continue
        notes = Footnotes()
        panel = table.panels[0]
        parts += [f"## {table.title}", table.caption, f"### {panel.title}"]
        parts += [panel_markdown(panel, notes), panel.caption]
        parts.append("\n".join(f"{i}. {text}" for i, text in enumerate(notes.texts, start=1)))
        parts.append(
            f"[All panels of this table](../results/reference/report/{table.key}.md) "
            f"([CSV](../results/reference/report/{table.key}.csv))"
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def _small_panel(inputs: Inputs) -> Panel:
    planned = inputs.profile.sizes if inputs.profile else ()
    sizes = table_sizes(inputs, planned, PROFILES[-1].large_sizes, _FAMILY)
    columns = [Column("Method", numeric=False), *(Column(size) for size in sizes)]
    columns.append(Column("largest gradient error (1 − cos)"))
    rows = [
        Row(
            (
                method_cell(inputs.cells, method),
                *(time_cell(inputs.cells, Place(_FAMILY, method, size), "call") for size in sizes),
                _worst_cell(inputs, method, sizes),
            )
        )
        for method in inputs.names.methods(_METHODS)
    ]
    return with_best(Panel("readme", "", tuple(columns), tuple(rows)))


def _claims_panel(inputs: Inputs) -> Panel:
    heads = ("", "Claim", "Verdict", *(reading.title for reading in READINGS))
    columns = tuple(Column(head, numeric=False) for head in heads)
    rows = (
        (one.identifier, one.claim, one.verdict, *(one.readings.get(r.key, "") for r in READINGS))
        for one in judge_claims(inputs)
    )
    return Panel("claims", "", columns, tuple(Row(tuple(map(Cell, texts))) for texts in rows))


def _worst_cell(inputs: Inputs, method: MethodName, sizes: list[str]) -> Cell:
    found = itertools.chain.from_iterable(
        inputs.cells.regular(_FAMILY, size, method.key, "accuracy.q.one_minus_cos")
        for size in sizes
    )
    worst = max(found, default=None)
    return Cell("n/a") if worst is None else Cell(tiny(worst), float(worst))


def _where(environment: Mapping[str, Any]) -> str:
    commit = str(environment.get("git_commit") or "unknown")[:10]
    others = "".join(
        f" {_named(methods)} by commit {other[:10]}."
        for other, methods in (environment.get("other_code") or {}).items()
    )
    return (
        f"Measured by the run of commit {commit} on {environment.get('cpu', 'an unknown CPU')}, "
        f"{environment.get('cores', '?')} cores.{others}"
    )


def _named(methods: list[str]) -> str:
    """Name the methods of which another run measured something, where they are few."""
    if len(methods) > _FEW:
        return f"Cells of {len(methods)} methods that it lacked"
    return ", ".join(f"`{method}`" for method in methods)
