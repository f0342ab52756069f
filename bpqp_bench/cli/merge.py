"""``bpqp-bench merge``: one run of several shards."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The new run directory."
)
@click.option(
    "--across-machines", is_flag=True, help="Merge although the runs are of different machines."
)
@click.option(
    "--across-code", is_flag=True, help="Merge although the code differs; reports name the commits."
)
def merge(runs: tuple[Path, ...], out: Path, across_machines: bool, across_code: bool) -> None:
    """Make one run of the shards RUNS, every measurement once."""
    from bpqp_bench.results.merge import merge_runs

    merged = merge_runs(runs, out, across_machines=across_machines, across_code=across_code)
    click.echo(f"{merged} measurements of {len(runs)} runs in {out}")
