"""``bpqp-bench publish``: make a run the committed reference, which the documents show."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("publish")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default="this folder",
    help="Checkout whose results/reference, README.md and docs/results.md are written.",
)
def publish(run: Path, checkout: Path) -> None:
    """Make the run directory RUN the reference run that README.md and docs/results.md show."""
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.report.documents import document_sections, replace_section
    from bpqp_bench.report.publish import publish_reference
    from bpqp_bench.report.render import read_run
    from bpqp_bench.report.tables import render_tables

    reference = checkout / "results" / "reference"
    written = publish_reference(run, reference)
    inputs = read_run(reference, Registry())
    sections = document_sections(inputs, render_tables(inputs))
    documents = [checkout / path for path in sections]
    for document, section in zip(documents, sections.values(), strict=True):
        text = replace_section(document.read_text(encoding="utf-8"), section)
        document.write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in written) / 2**20
    click.echo(f"{len(written)} files, {size:.1f} MiB, in {reference}; updated:")
    for path in documents:
        click.echo(f"  {path}")
