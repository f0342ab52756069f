"""The committed reference run, and what is generated from it: README, expected times."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.inputs import load_inputs
from bpqp_bench.report.markdown import Footnotes, panel_markdown
from bpqp_bench.report.render import render_inputs
from bpqp_bench.report.tables import requested_methods
from bpqp_bench.report.tables.efficiency import TABLE
from bpqp_bench.results.run_directory import MEASUREMENTS
from bpqp_bench.runner.countdown import COUNTDOWN, EXPECTED_PARTS, expected_parts_csv
from bpqp_bench.runner.expected import EXPECTED, expected_csv

__all__ = [
    "BEGIN",
    "END",
    "compress",
    "publish_expected",
    "publish_reference",
    "readme_section",
    "replace_section",
]

BEGIN = "<!-- reference:begin -->"
END = "<!-- reference:end -->"
_FIGURE = "times-call.svg"
# The page is rendered from the measurements by `bpqp-bench report`; it would double the size.
_NOT_KEPT = ("index.html",)
_KEPT_FOLDER = "portfolio"
_KEPT_ENDINGS = (".csv", ".json", ".jsonl", ".parquet")


def publish_reference(run: Path, reference: Path) -> list[Path]:
    """Replace the reference run by ``run``: compressed measurements, tables and figures.

    Parameters
    ----------
    run
        A complete run directory.
    reference
        ``results/reference`` of the checkout; replaced as a whole.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ResultsError
        If the run cannot be read, or was not measured by a clean checkout.
    """
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    if environment.get("git_dirty") is not False:
        raise ResultsError(
            f"{run} was measured with uncommitted changes or outside a checkout; "
            "commit and run it again"
        )
    inputs = load_inputs(run, Registry(), requested_methods())
    if reference.exists():
        shutil.rmtree(reference)
    reference.mkdir(parents=True)
    for name in ("environment.json", "config.json", "summary.json"):
        shutil.copyfile(run / name, reference / name)
    if (run / COUNTDOWN).is_file():
        shutil.copyfile(run / COUNTDOWN, reference / COUNTDOWN)
    compress(run / MEASUREMENTS, reference / f"{MEASUREMENTS}.gz")
    if (run / _KEPT_FOLDER).is_dir():
        for path in sorted((run / _KEPT_FOLDER).rglob("*")):
            if path.suffix in _KEPT_ENDINGS:
                kept = reference / path.relative_to(run)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept)
    for path in render_inputs(inputs, reference / "report"):
        if path.name in _NOT_KEPT:
            path.unlink()
    return sorted(path for path in reference.rglob("*") if path.is_file())


def compress(source: Path, target: Path) -> None:
    """Write ``source`` gzipped, the same bytes for the same content: no name, no time stamp."""
    with (
        target.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream,
    ):
        stream.write(source.read_bytes())


def publish_expected(reference: Path, package: Path) -> list[Path]:
    """Write the times that the next run's estimate of what remains begins with.

    Those of the portfolio experiment stay as they are if the run has none.

    Parameters
    ----------
    reference
        The reference run.
    package
        ``bpqp_bench`` of the checkout.

    Raises
    ------
    ResultsError
        If the run cannot be read.
    """
    folder = package / "data"
    folder.mkdir(parents=True, exist_ok=True)
    contents = {EXPECTED: expected_csv(reference), EXPECTED_PARTS: expected_parts_csv(reference)}
    written: list[Path] = []
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(content, encoding="utf-8")
            written.append(folder / name)
    return written


def readme_section(reference: Path) -> str:
    """Render what the README shows of the reference run: machine, one figure, Table 1.

    Raises
    ------
    ResultsError
        If there is no reference run.
    """
    inputs = load_inputs(reference, Registry(), requested_methods())
    table = TABLE.render(inputs)
    panel = table.panels[0]
    notes = Footnotes()
    grid = panel_markdown(panel, notes)
    numbered = "\n".join(f"{i}. {text}" for i, text in enumerate(notes.texts, start=1))
    parts = [
        f"## {table.title}",
        f"{_where(inputs.environment)} {table.caption}",
        f"![Time against size, protocol call](results/reference/report/{_FIGURE})",
        grid,
        numbered,
        "All tables, figures and verdicts of this run are in "
        "[results/reference/report](results/reference/report); "
        "`bpqp-bench report results/reference --out page` renders its page.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def replace_section(text: str, section: str) -> str:
    """Put a section between the markers of a README.

    Raises
    ------
    ResultsError
        If the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"the README lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section}{END}{after}"


def _where(environment: Mapping[str, Any]) -> str:
    commit = str(environment.get("git_commit") or "unknown")[:10]
    return (
        f"Measured by the run of commit {commit} on {environment.get('cpu', 'an unknown CPU')}, "
        f"{environment.get('cores', '?')} cores."
    )
