"""The committed reference run."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.render import read_run, render_inputs
from bpqp_bench.results.run_directory import MEASUREMENTS

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
    inputs = read_run(run, Registry())
    if reference.exists():
        shutil.rmtree(reference)
    reference.mkdir(parents=True)
    for name in ("environment.json", "config.json", "summary.json"):
        if (run / name).exists():  # merged runs have no summary
            shutil.copyfile(run / name, reference / name)
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
