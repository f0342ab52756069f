"""``bpqp-bench report``, ``compare`` and ``export``: what to do with a run that is finished."""

from __future__ import annotations

from pathlib import Path

import click

from bpqp_bench.cli.options import plugin_folders

_RUN = click.Path(path_type=Path)


@click.command("report")
@click.argument("run", type=_RUN)
@click.option("--out", type=_RUN, help="Folder for the files (default: RUN/report).")
@plugin_folders
def report(
    run: Path, out: Path | None, methods_dirs: tuple[Path, ...], problems_dirs: tuple[Path, ...]
) -> None:
    """Render the tables, figures, claims and the page of the run directory RUN."""
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.report import render_report
    from bpqp_bench.results.store import refuse_links

    target = out if out is not None else run / "report"
    if target.exists() or target.is_symlink():
        refuse_links(target)
    written = render_report(run, target, Registry(methods_dirs, problems_dirs))
    click.echo(f"{len(written)} files; open {written[-1]}")


@click.command("compare")
@click.argument("run_a", type=_RUN)
@click.argument("run_b", type=_RUN)
@click.option(
    "--across-machines", is_flag=True, help="Compare although the runs are of different machines."
)
@click.option("--all", "everything", is_flag=True, help="List unchanged cells too.")
@click.option(
    "--noise",
    type=click.FloatRange(min=0.0),
    default=0.05,
    show_default=True,
    help="Least relative change that counts, besides an interval without 1.",
)
@click.option("--csv", "csv", type=_RUN, help="Write every cell to this CSV file.")
@click.option("--fail-on-slower", is_flag=True, help="Exit status 1 if any cell is slower in B.")
def compare(
    run_a: Path,
    run_b: Path,
    *,
    across_machines: bool,
    everything: bool,
    noise: float,
    csv: Path | None,
    fail_on_slower: bool,
) -> None:
    """Compare run RUN_B with RUN_A: per cell the paired ratio B/A and its 95 % interval.

    Cells are matched by method and instance; listed are those that changed by more than noise.
    """
    import itertools

    from bpqp_bench.cli.output import paragraph, say, table
    from bpqp_bench.errors import ResultsError
    from bpqp_bench.report.inputs import load_inputs
    from bpqp_bench.report.tables._times import BASE
    from bpqp_bench.report.tables.efficiency import FAMILIES
    from bpqp_bench.report.text import ratio
    from bpqp_bench.results.compare import (
        agreement,
        compare_runs,
        different_loads,
        different_machines,
        to_frame,
    )

    a, b = load_inputs(run_a), load_inputs(run_b)
    differences = different_machines(a.environment, b.environment)
    if differences and not across_machines:
        raise ResultsError(
            f"{run_a} and {run_b} are runs of different machines ({'; '.join(differences)}); "
            "add --across-machines to compare them all the same"
        )
    for difference in differences:
        say(f"different machines: {difference}", err=True)
    if (loads := different_loads(a.environment, b.environment)) is not None:
        say(loads, err=True)
    changes = compare_runs(a.cells, b.cells, noise)
    if csv is not None:
        to_frame(changes).to_csv(csv, index=False)
    shown = [change for change in changes if everything or change.notable]
    paragraph(f"A = {run_a}, B = {run_b}")
    for cell, found in itertools.groupby(shown, lambda change: f"{change.family} {change.size}"):
        rows = (
            (
                change.label,
                f"{change.which}, {change.protocol}",
                *((str(change.ratio.n), ratio(change.ratio)) if change.ratio else ("0", "")),
                f"{change.verdict}{f' ({change.detail})' if change.detail else ''}",
            )
            for change in found
        )
        table(("method", "pass, clock", "n", "B/A", "verdict"), rows, title=f"\n{cell}")
    click.echo()
    paragraph(
        f"{sum(change.notable for change in changes)} of {len(changes)} entries changed by more "
        f"than noise (interval without 1 and at least {noise:.0%})"
    )
    agreed = agreement(a.cells, b.cells, a.names.method(BASE).key, tuple(FAMILIES))
    if agreed.cells:
        paragraph(
            f"ratios to BPQP: intervals overlap in {agreed.overlapping} of {agreed.cells} entries "
            f"of table 1 ({agreed.overlapping / agreed.cells:.0%}); each median lies in the "
            f"other's interval in {agreed.inside} ({agreed.inside / agreed.cells:.0%})"
        )
    slower = sum(change.verdict == "slower" for change in changes)
    if fail_on_slower and slower:
        say(f"{slower} entries are slower in B", err=True)
        raise click.exceptions.Exit(1)


@click.command("export")
@click.argument("run", type=_RUN)
@click.argument("target", type=_RUN)
def export(run: Path, target: Path) -> None:
    """Write all measurements of RUN as one tidy frame to TARGET, a .parquet or .csv file."""
    from bpqp_bench.errors import SpecError
    from bpqp_bench.results.export import export_frame
    from bpqp_bench.results.run_directory import load_measurements, to_frame

    if target.suffix not in (".parquet", ".csv"):
        raise SpecError(f"{target} ends neither in .parquet nor in .csv")
    frame = to_frame(load_measurements(run))
    export_frame(frame, target)
    click.echo(f"{len(frame)} measurements in {target}")
