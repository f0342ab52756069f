"""Tables as LaTeX with booktabs, in the layout of the paper.

Needs the packages booktabs, graphicx, longtable and xcolor; `document` wraps tables into a file
that compiles with pdflatex.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from bpqp_bench.report.markdown import Footnotes
from bpqp_bench.report.model import Cell, Column, Panel, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "≈": r"$\approx$",
    "−": r"$-$",
    "∞": r"$\infty$",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "✗": r"$\times$",
    "◇": r"$\diamond$",
    "∅": r"$\emptyset$",
    "‖": r"$\|$",
    "∇": r"$\nabla$",
    "½": r"$\frac12$",
    "ᵀ": r"$^\top$",
    "ᵏ": r"$^k$",
    "²": r"$^2$",
    "₂": r"$_2$",
    "τ": r"$\tau$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "ν": r"$\nu$",
    "μ": r"$\mu$",
    "δ": r"$\delta$",
    "ρ": r"$\rho$",
    "“": "``",
    "”": "''",
    "’": "'",
    "‘": "`",
    "\u00a0": "~",
    "\u202f": r"\,",
}
_HEAD = "% Needs \\usepackage{booktabs,graphicx,longtable,xcolor}\n"


def escape(text: str) -> str:
    """Escape LaTeX's special characters and the Unicode that pdflatex does not know.

    A character without translation is printed as its code point: a footnote may hold anything
    that a library put into its message.
    """
    return "".join(_escape(character) for character in text)


def table_latex(table: Table) -> str:
    """Render a table: short panels as ``table``, long ones as ``longtable``."""
    parts = [_HEAD.strip()]
    for panel in table.panels:
        parts.append(_long(table, panel) if panel.long else _short(table, panel))
    return "\n\n".join(parts) + "\n"


def document(bodies: Iterable[str]) -> str:
    """Wrap tables into a document."""
    return "\n".join(
        [
            r"\documentclass[9pt,a4paper]{extarticle}",
            r"\usepackage[utf8]{inputenc}",
            r"\usepackage[landscape,margin=1.5cm]{geometry}",
            r"\usepackage{booktabs,graphicx,longtable,xcolor}",
            r"\begin{document}",
            *bodies,
            r"\end{document}",
            "",
        ]
    )


def _escape(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    return f"[U+{ord(character):04X}]"


def _caption(table: Table, panel: Panel) -> str:
    # LaTeX numbers the tables itself.
    title = table.title.partition(": ")[2] or table.title
    return escape(" ".join(filter(None, [f"{title}. {panel.title}.", panel.caption])))


def _short(table: Table, panel: Panel) -> str:
    notes = Footnotes()
    body = _body(panel, notes)
    return "\n".join(
        [
            r"\begin{table}[!htbp]",
            r"\centering",
            rf"\caption{{{_caption(table, panel)} {escape(table.caption)}}}",
            rf"\label{{tab:{panel.key}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{_alignment(panel.columns)}}}",
            r"\toprule",
            *_heading(panel.columns),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            *_footnotes(notes),
            r"\end{table}",
        ]
    )


def _long(table: Table, panel: Panel) -> str:
    notes = Footnotes()
    body = _body(panel, notes)
    return "\n".join(
        [
            r"\begingroup\tiny\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}",
            rf"\begin{{longtable}}{{{_alignment(panel.columns)}}}",
            rf"\caption{{{_caption(table, panel)}}}\label{{tab:{panel.key}}}\\",
            r"\toprule",
            *_heading(panel.columns),
            r"\midrule\endfirsthead",
            r"\toprule",
            *_heading(panel.columns),
            r"\midrule\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}",
            *_footnotes(notes),
            r"\endgroup",
        ]
    )


def _alignment(columns: tuple[Column, ...]) -> str:
    return "".join("r" if column.numeric else "l" for column in columns)


def _heading(columns: tuple[Column, ...]) -> list[str]:
    lines: list[str] = []
    if any(column.group for column in columns):
        entries: list[str] = []
        rules: list[str] = []
        at = 1
        for group, members in itertools.groupby(columns, key=lambda column: column.group):
            width = len(list(members))
            entries.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            if group:
                rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines += [f"{' & '.join(entries)} \\\\", "".join(rules)]
    lines.append(f"{' & '.join(escape(column.label) for column in columns)} \\\\")
    return lines


def _body(panel: Panel, notes: Footnotes) -> list[str]:
    width = len(panel.columns)
    if not panel.rows:
        return [rf"\multicolumn{{{width}}}{{c}}{{not run}} \\"]
    lines: list[str] = []
    section = ""
    for row in panel.rows:
        if row.section != section:
            if section:
                lines.append(r"\midrule")
            section = row.section
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escape(section)}}}}} \\")
        lines.append(f"{' & '.join(_cell(cell, notes) for cell in row.cells)} \\\\")
        if any(cell.below for cell in row.cells):
            below = " & ".join(_below(cell) for cell in row.cells)
            lines.append(f"{below} \\\\[2pt]")
    return lines


def _cell(cell: Cell, notes: Footnotes) -> str:
    marks = ",".join(str(mark) for mark in notes.marks(cell))
    # Braces: a cell that begins with "[" would otherwise be read as the option of \\.
    bold = r"\bfseries " if cell.tone == "best" else ""
    text = f"{{{bold}{escape(cell.text)}}}"
    text += rf" {{\scriptsize {escape(cell.spread)}}}" if cell.spread else ""
    return f"{text}\\textsuperscript{{{marks}}}" if marks else text


def _below(cell: Cell) -> str:
    return rf"{{\scriptsize\textcolor{{gray}}{{{escape(cell.below)}}}}}" if cell.below else ""


def _footnotes(notes: Footnotes) -> list[str]:
    if not notes.texts:
        return []
    lines = [
        rf"\textsuperscript{{{i}}} {escape(text)}" for i, text in enumerate(notes.texts, start=1)
    ]
    return [r"\par\smallskip{\raggedright\tiny", "; ".join(lines), r"\par}"]
