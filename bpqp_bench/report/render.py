"""Write every table, figure, claim and the page of one run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import vl_convert

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.claims import Judged, claims_markdown, judge_claims
from bpqp_bench.report.claims.model import UNTESTED
from bpqp_bench.report.figures import FIGURES
from bpqp_bench.report.inputs import Inputs, load_inputs
from bpqp_bench.report.latex import document, table_latex
from bpqp_bench.report.markdown import table_markdown
from bpqp_bench.report.model import Drawing, Table
from bpqp_bench.report.page import page
from bpqp_bench.report.tables import belongs, render_tables, requested_methods
from bpqp_bench.results.export import inert

# What an SVG can do without: attributes at their default values, and those for screen readers,
# which would read a thousand marks (the caption tells more); then paths that paint nothing.
_IDLE = re.compile(
    r' (?:aria-[a-z]+|role|class|pointer-events)="[^"]*"| (?:opacity|stroke-width)="1"'
    r'| [xy]2="0"| transform="translate\(0,0\)"'
)
_UNPAINTED = re.compile(r'<path d="[^"]*"(?: display="none")?/>')

_SCALE = 2.0  # pixels of a PNG for each of the SVG


def render_report(run_dir: Path, out: Path, registry: Registry | None = None) -> list[Path]:
    """Render everything that a run has to say.

    Parameters
    ----------
    run_dir
        A run directory, complete or not; cells that are not there are shown as "not run".
    out
        Where the files go; created if missing, files of the same names are replaced.
    registry
        Where method names are looked up; the built-in plug-ins by default.

    Returns
    -------
    list of Path
        The files written, ``index.html`` last.

    Raises
    ------
    ResultsError
        If the run cannot be read.
    """
    return render_inputs(read_run(run_dir, registry), out)


def read_run(run_dir: Path, registry: Registry | None = None) -> Inputs:
    """Read a run for rendering, with the methods that the tables of its command ask for."""
    inputs = load_inputs(run_dir, registry)
    return replace(inputs, requested=tuple(requested_methods(inputs.suites)))


def render_inputs(inputs: Inputs, out: Path) -> list[Path]:
    """Render a run that has been read already; see `render_report`."""
    out.mkdir(parents=True, exist_ok=True)
    tables = render_tables(inputs)
    written = [path for table in tables for path in write_table(table, out)]
    master = out / "tables.tex"
    master.write_text(document(rf"\input{{{table.key}}}" for table in tables), encoding="utf-8")
    written.append(master)
    drawings = draw_figures(inputs)
    written += save_drawings(drawings, out)
    # The claims are the paper's: a survey says nothing about them.
    judged = judge_claims(inputs) if "reproduce" in (inputs.suites or ("reproduce",)) else ()
    if inputs.profile is None and all(one.verdict == UNTESTED for one in judged):
        judged = ()  # a run of the user's own choice, of other things
    if judged:
        written += write_claims(judged, out)
    index = out / "index.html"
    index.write_text(page(inputs, tables, drawings, judged, out), encoding="utf-8")
    written.append(index)
    return written


def write_claims(judged: tuple[Judged, ...], out: Path) -> list[Path]:
    """Write ``claims.md`` and ``claims.json``."""
    paths = [out / "claims.md", out / "claims.json"]
    paths[0].write_text(claims_markdown(judged), encoding="utf-8")
    content = json.dumps([one.plain() for one in judged], indent=1, ensure_ascii=False)
    paths[1].write_text(content + "\n", encoding="utf-8")
    return paths


def draw_figures(inputs: Inputs) -> list[Drawing]:
    """Draw all figures of a run's commands."""
    return [
        drawing for module in FIGURES if belongs(module, inputs) for drawing in module.draw(inputs)
    ]


def write_table(table: Table, out: Path) -> list[Path]:
    """Write ``<key>.md``, ``<key>.tex`` and ``<key>.csv``."""
    paths = [out / f"{table.key}.{ending}" for ending in ("md", "tex", "csv")]
    paths[0].write_text(table_markdown(table), encoding="utf-8")
    paths[1].write_text(table_latex(table), encoding="utf-8")
    inert(table.tidy).to_csv(paths[2], index=False, lineterminator="\n")
    return paths


def save_drawings(drawings: Iterable[Drawing], out: Path) -> list[Path]:
    """Write ``<key>.svg`` and ``<key>.png``; both are the same for the same data."""
    paths: list[Path] = []
    for drawing in drawings:
        svg, png = out / f"{drawing.key}.svg", out / f"{drawing.key}.png"
        svg.write_text(_lean(vl_convert.vegalite_to_svg(dict(drawing.spec))), encoding="utf-8")
        png.write_bytes(vl_convert.svg_to_png(svg.read_text(encoding="utf-8"), scale=_SCALE))
        paths += [svg, png]
    return paths


def _lean(svg: str) -> str:
    """Take out what takes room and changes nothing to see.

    Coordinates are rounded to a tenth of a pixel, and the one font of all texts is the figure's.
    """
    lean = re.sub(r' (?:d|transform)="[^"]*"', lambda found: _rounded(found[0]), svg)
    lean = _UNPAINTED.sub("", _IDLE.sub("", lean))
    fonts = set(re.findall(r' font-family="[^"]*"', lean))
    if len(fonts) == 1:
        (font,) = fonts
        lean = lean.replace(font, "").replace("<svg", f"<svg{font}", 1)
    return lean


def _rounded(coordinates: str) -> str:
    return re.sub(
        r"\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), coordinates
    )
