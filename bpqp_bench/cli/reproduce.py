"""``bpqp-bench reproduce``: measure what all tables need, then render them."""

from __future__ import annotations

from pathlib import Path

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders

__all__ = ["reproduce"]


@click.command("reproduce")
@click.option("--profile", "profile_name", default="standard", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: new one).")
@click.option("--resume", is_flag=True, help="Go on with the run directory given by --out.")
@click.option("--dry-run", is_flag=True, help="Print the plan and measure nothing.")
@plugin_folders
def reproduce(
    profile_name: str,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """Reproduce every table, figure and claim of the paper.

    Exit status 1 if something asked for could not be done; a method that times out or fails is a
    result and not a failure.
    """
    from bpqp_bench.cli.portfolio import show_progress
    from bpqp_bench.cli.progress import choose_progress
    from bpqp_bench.errors import SpecError
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.report import render_report
    from bpqp_bench.report.tables import all_requests
    from bpqp_bench.results.run_directory import write_json
    from bpqp_bench.runner.countdown import (
        COUNTDOWN,
        Countdown,
        Followed,
        Part,
        PartKey,
        load_expected_parts,
    )
    from bpqp_bench.runner.execute import Options, execute, open_run
    from bpqp_bench.runner.plan import make_plan
    from bpqp_bench.runner.profiles import profile
    from bpqp_bench.tasks.portfolio.experiment import plan_portfolio, reproduce_portfolio

    if resume and out is None:
        raise SpecError("--resume needs the run directory: --out DIR")
    chosen = profile(profile_name)
    registry = Registry(methods_dirs, problems_dirs)
    for plugin in registry.broken:
        click.echo(f"not loaded: {plugin.path}: {plugin.error}", err=True)
    plan = make_plan(all_requests(chosen), registry)
    if dry_run:
        click.echo(plan.describe())
        return
    path = out or new_run_path()
    options = Options()
    report = Part(PartKey("report"))
    with show_progress() as shown:
        countdown = Countdown(load_expected_parts(), shown)
        with open_run(
            path, plan, registry, resume=resume, options=options, profile=chosen.name
        ) as directory:
            click.echo(f"run {path}")
            click.echo("first the measurements, then the portfolio and the report")
            plan_portfolio(chosen, path, countdown, registry)
            countdown.plan([report])
            progress = Followed(choose_progress(), countdown)
            folders = (methods_dirs, problems_dirs)
            summary = execute(plan, directory, folders, progress, options)
        click.echo(summary.describe())
        problems = [*summary.problems, *reproduce_portfolio(chosen, path, countdown, registry)]
        for problem in problems:
            click.echo(problem, err=True)
        with countdown.running(report, "report"):
            written = render_report(path, path / "report", registry)
    write_json(path / COUNTDOWN, countdown.to_dict())
    if quality := countdown.describe():
        click.echo(quality)
    click.echo((path / "report" / "table1.md").read_text(encoding="utf-8"))
    click.echo(f"{len(written)} files; open {written[-1]}")
    if problems or registry.broken:
        raise click.exceptions.Exit(1)
