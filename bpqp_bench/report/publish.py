"""The committed reference run, and the expected times that are read off it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.inputs import load_inputs
from bpqp_bench.report.render import render_inputs
from bpqp_bench.report.tables import requested_methods
from bpqp_bench.results.run_directory import MEASUREMENTS
from bpqp_bench.runner.countdown import COUNTDOWN, EXPECTED_PARTS, expected_parts_csv
from bpqp_bench.runner.expected import EXPECTED, expected_csv

__all__ = [
    "compress",
    "publish_expected",
    "publish_reference",
]

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
