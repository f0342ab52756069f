"""The page: everything of a run in one HTML file that fetches nothing."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import vl_convert
from markupsafe import Markup

from bpqp_bench.problem.cache import cache_directory
from bpqp_bench.report.choices import choices
from bpqp_bench.report.claims import Judged
from bpqp_bench.report.claims.model import MIXED, NOT, REPRODUCED, UNTESTED
from bpqp_bench.report.claims.readings import READINGS
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.markdown import Footnotes
from bpqp_bench.report.model import Cell, Column, Drawing, Panel, Table
from bpqp_bench.results.store import write_file

_TONE = {REPRODUCED: "good", NOT: "bad", UNTESTED: "none", MIXED: "mixed"}
_SIGN = {REPRODUCED: "✓", NOT: "✗", UNTESTED: "?"}


def page(
    inputs: Inputs,
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    judged: Sequence[Judged],
    folder: Path,
) -> str:
    """Render the page.

    Parameters
    ----------
    inputs, tables, drawings, judged
        The run and everything made from it.
    folder
        Where the drawings were saved as SVG.
    """
    runs = _Runs()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bpqp_bench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = [_table(table, runs) for table in tables]
    return environment.get_template("page.html.j2").render(
        title="Differentiable optimization layers: efficiency and accuracy",
        subtitle=_subtitle(inputs),
        footer=_footer(inputs),
        claims=judged,
        readings=READINGS,
        titles={reading.key: reading.title for reading in READINGS},
        tone=_TONE,
        sign=_SIGN,
        tables=shown,
        figures=[_figure(drawing, folder) for drawing in drawings],
        environment=_flat(inputs.environment)
        + _flat({k: v for k, v in inputs.config.items() if k != "plan"}, "run"),
        data=_script(runs.kept),
        choices=_script(choices(inputs)),
        library=Markup(_library()),
    )


def _script(content: Any) -> Markup:
    # Inside <script> only "</" could end the data early.
    return Markup(
        json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    )


def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script; made once, for it takes seconds."""
    kept = cache_directory("page") / f"vega-{version('vl-convert-python')}.js"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        content = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        content = content.replace("</script", "<\\/script").replace("<!--", "<\\!--")
        write_file(kept, content.encode("utf-8"))
    return kept.read_text(encoding="utf-8")


class _Runs:
    """Collects the distributions; equal ones are kept once."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, list[float]]] = []
        self._places: dict[tuple[str, tuple[float, ...]], int] = {}

    def place(self, cell: Cell) -> int | None:
        finite = tuple(float(f"{value:.4g}") for value in cell.runs if math.isfinite(value))
        if not finite:
            return None
        key = (cell.unit, finite)
        if key not in self._places:
            self._places[key] = len(self.kept)
            self.kept.append((cell.unit, list(finite)))
        return self._places[key]


def _table(table: Table, runs: _Runs) -> dict[str, Any]:
    notes = Footnotes()
    panels = [_panel(panel, notes, runs) for panel in table.panels]
    return {
        "key": table.key,
        "title": table.title,
        "caption": table.caption,
        "panels": panels,
        "notes": notes.texts,
    }


def _panel(panel: Panel, notes: Footnotes, runs: _Runs) -> dict[str, Any]:
    sections = [
        (name, [[_cell(*pair, notes, runs) for pair in _pairs(row.cells, panel)] for row in rows])
        for name, rows in itertools.groupby(panel.rows, key=lambda row: row.section)
    ]
    groups = [
        (name, len(list(columns)))
        for name, columns in itertools.groupby(panel.columns, key=lambda column: column.group)
    ]
    return {
        "key": panel.key,
        "title": panel.title,
        "caption": panel.caption,
        "long": panel.long,
        "columns": panel.columns,
        "groups": groups if any(name for name, _ in groups) else [],
        "sections": sections,
    }


def _pairs(cells: tuple[Cell, ...], panel: Panel) -> list[tuple[Cell, Column]]:
    return list(zip(cells, panel.columns, strict=True))


def _cell(cell: Cell, column: Column, notes: Footnotes, runs: _Runs) -> dict[str, Any]:
    sort = cell.sort
    if isinstance(sort, float):
        sort = float(f"{sort:.6g}") if math.isfinite(sort) else None
    decorated = cell.notes or cell.spread or cell.below
    return {
        "text": cell.text,
        "spread": cell.spread,
        "below": cell.below,
        "marks": ",".join(str(mark) for mark in notes.marks(cell)),
        "sort": sort,
        "runs": runs.place(cell),
        # What a cell of text is called, where it says more than that.
        "name": cell.text if decorated and not column.numeric else "",
        "classes": " ".join(filter(None, ["" if column.numeric else "t", cell.tone])),
    }


def _figure(drawing: Drawing, folder: Path) -> dict[str, str]:
    content = (folder / f"{drawing.key}.svg").read_text(encoding="utf-8")
    return {
        "key": drawing.key,
        "title": drawing.title,
        "caption": drawing.caption,
        # As an image, not inline: identifiers inside of one SVG cannot clash with another's. What
        # an address allows between quotes stays as it is, for base64 takes a third more.
        "data": Markup(quote(content.replace('"', "'"), safe=" <>=/:;,()'.-+")),
    }


def _subtitle(inputs: Inputs) -> str:
    counted = inputs.frame[inputs.frame["role"] == "measured"] if len(inputs.frame) else None
    parts = [
        f"run {inputs.run_dir.name}" if inputs.run_dir is not None else "",
        f"profile {inputs.profile.name}" if inputs.profile is not None else "",
        f"{0 if counted is None else len(counted)} measured calls",
        str(inputs.environment.get("cpu", "") or ""),
    ]
    return " · ".join(filter(None, parts))


def _footer(inputs: Inputs) -> str:
    left_out = inputs.cells.left_out
    more = (
        f" {left_out} measurements with another batch, dtype, device or thread count are in the "
        "tables that name it, on the first screen and in the export, and in no other table."
        if left_out
        else ""
    )
    return (
        "Click a heading to sort, a figure in a table for the distribution of its runs. Figures of "
        f"another machine stand in these tables only where they are marked as the paper's.{more}"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            found += _flat(value, path)
        elif isinstance(value, (list, tuple)):
            found.append((path, ", ".join(str(item) for item in value)))
        else:
            found.append((path, str(value)))
    return found
