"""``bpqp-bench publish``: make a run the committed reference, shown by the README."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["publish"]


@click.command("publish")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default="this folder",
    help="Checkout whose results/reference, README.md and expected times are written.",
)
def publish(run: Path, checkout: Path) -> None:
    """Make the run directory RUN the reference run that the README shows.

    Its times also become those that the estimate of the remaining time of a run begins with.
    """
    from bpqp_bench.report.publish import (
        publish_expected,
        publish_reference,
        readme_section,
        replace_section,
    )

    reference = checkout / "results" / "reference"
    readme = checkout / "README.md"
    written = publish_reference(run, reference)
    text = replace_section(readme.read_text(encoding="utf-8"), readme_section(reference))
    readme.write_text(text, encoding="utf-8")
    expected = publish_expected(reference, checkout / "bpqp_bench")
    size = sum(path.stat().st_size for path in written) / 2**20
    click.echo(
        f"{len(written)} files, {size:.1f} MiB, in {reference}; "
        f"{readme}, {', '.join(map(str, expected))} updated"
    )
