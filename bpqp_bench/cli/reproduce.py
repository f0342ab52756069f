"""``bpqp-bench reproduce``: measure what the paper's tables need, then render them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.report.model import Suite

_REPORT_S = 20.0


def suite_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that measures and renders a set of tables."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Print the plan and measure nothing."),
        click.option("--resume", is_flag=True, help="Go on with the run directory given by --out."),
        click.option(
            "--out", type=click.Path(path_type=Path), help="Run directory (default: new one)."
        ),
        click.option("--profile", "profile_name", default="standard", show_default=True),
    ):
        command = option(command)
    return plugin_folders(command)


@click.command("reproduce")
@suite_options
def reproduce(**options: Any) -> None:
    """Reproduce every table, figure and claim of the paper.

    Exit status 1 if something asked for could not be done; a method that times out or fails is a
    result and not a failure.
    """
    from bpqp_bench.tasks import task_names

    run_suite("reproduce", task_names(), **options)


def run_suite(
    suite: Suite,
    task_names: list[str],
    *,
    profile_name: str,
    out: Path | None,
    resume: bool,
    dry_run: bool,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """Measure what the tables of a command need, carry out some tasks, render everything."""
    import json
    from collections import Counter

    from bpqp_bench.cli.output import paragraph
    from bpqp_bench.cli.progress import show_time_left
    from bpqp_bench.errors import SpecError
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.report import render_report
    from bpqp_bench.report.tables import all_requests
    from bpqp_bench.runner.execute import execute, open_run
    from bpqp_bench.runner.plan import make_plan
    from bpqp_bench.runner.profiles import profile
    from bpqp_bench.runner.schedule import Options
    from bpqp_bench.runner.time_left import Work
    from bpqp_bench.tasks.task import find_task

    if resume and out is None:
        raise SpecError("--resume needs the run directory: --out DIR")
    chosen = profile(profile_name)
    registry = Registry(methods_dirs, problems_dirs)
    for plugin in registry.broken:
        click.echo(f"not loaded: {plugin.path}: {plugin.error}", err=True)
    plan = make_plan(all_requests(chosen, suite), registry)
    if dry_run:
        click.echo(plan.describe())
        return
    path = out or new_run_path()
    options = Options()
    report = Work(("report",), nominal_s=_REPORT_S)
    with show_time_left() as time_left:
        with open_run(
            path,
            plan,
            registry,
            resume=resume,
            options=options,
            profile=chosen.name,
            suites=(suite,),
        ) as directory:
            click.echo(f"run {path}")
            click.echo(f"first the measurements, then {', '.join([*task_names, 'the report'])}")
            tasks = [find_task(name) for name in task_names]
            for task in tasks:
                time_left.plan(task.plan(chosen, path, registry))
            time_left.plan([report])
            summary = execute(plan, directory, (methods_dirs, problems_dirs), time_left, options)
        paragraph(summary.describe())
        problems = list(summary.problems)
        for task in tasks:
            problems += task.reproduce(chosen, path, registry, time_left)
        for problem in problems:
            click.echo(problem, err=True)
        with time_left.running(report, "report"):
            written = render_report(path, path / "report", registry)
    if (judged := path / "report" / "claims.json") in written:
        claims = json.loads(judged.read_text(encoding="utf-8"))
        verdicts = Counter(claim["verdict"] for claim in claims)
        found = ", ".join(f"{n} {v}" for v, n in verdicts.most_common())
        paragraph(f"claims of the paper: {found}")
    click.echo(f"{len(written)} files; open {written[-1]}")
    if problems or registry.broken:
        raise click.exceptions.Exit(1)
