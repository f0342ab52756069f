"""Tables as Markdown, in the dialect that GitHub renders."""

from __future__ import annotations

import re

from bpqp_bench.report.model import Cell, Panel, Table


class Footnotes:
    """Numbers footnotes in order of appearance; equal texts share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def marks(self, cell: Cell) -> list[int]:
        """Return the numbers of a cell's footnotes, 1, 2, …."""
        for text in cell.notes:
            if text not in self.texts:
                self.texts.append(text)
        return [self.texts.index(text) + 1 for text in cell.notes]


def table_markdown(table: Table, level: int = 2) -> str:
    """Render a table with its caption, panels and footnotes."""
    notes = Footnotes()
    parts = [f"{'#' * level} {table.title}", table.caption]
    for panel in table.panels:
        parts += [f"{'#' * (level + 1)} {panel.title}", panel_markdown(panel, notes)]
        if panel.caption:
            parts.append(panel.caption)
    if notes.texts:
        lines = [f"{i}. {plain(text)}" for i, text in enumerate(notes.texts, start=1)]
        parts += ["Notes", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def panel_markdown(panel: Panel, notes: Footnotes) -> str:
    """Render one panel as a pipe table; a section becomes a row with its name in bold."""
    if not panel.rows:
        return "*Nothing of this was measured in this run.*"
    head = [plain(f"{c.group} {c.label}".strip()) for c in panel.columns]
    rule = ["---:" if c.numeric else ":---" for c in panel.columns]
    lines = [_line(head), _line(rule)]
    section = ""
    for row in panel.rows:
        if row.section != section:
            section = row.section
            lines.append(_line([f"**{plain(section)}**"] + [""] * (len(panel.columns) - 1)))
        lines.append(_line([_cell(cell, notes) for cell in row.cells]))
    return "\n".join(lines)


def _line(entries: list[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _cell(cell: Cell, notes: Footnotes) -> str:
    marks = ",".join(str(mark) for mark in notes.marks(cell))
    text = plain(cell.text)
    if cell.tone == "best":
        text = f"**{text}**"
    text += f" {plain(cell.spread)}" if cell.spread else ""
    text += f"<sup>{marks}</sup>" if marks else ""
    return f"{text}<br>*{plain(cell.below)}*" if cell.below else text


def plain(text: str) -> str:
    """Escape what Markdown or the HTML in it would read, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_`\[\]~#])", r"\\\1", text)
