"""A command for each task, made of the settings that the task declares."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.tasks.task import Task


def task_command(name: str) -> click.Command:
    """Return the command of a task."""
    from bpqp_bench.tasks.task import find_task

    task = find_task(name)

    @click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Run directory, new or one to go on with (default: a new one).",
    )
    @plugin_folders
    def run(
        out: Path | None,
        methods_dirs: tuple[Path, ...],
        problems_dirs: tuple[Path, ...],
        **given: Any,
    ) -> None:
        _run(task, out or new_run_path(), (methods_dirs, problems_dirs), given)

    command = click.command(name, help=task.summary)(run)
    command.params = [*_options(task.settings), *command.params]
    return command


def _run(
    task: Task,
    out: Path,
    folders: tuple[tuple[Path, ...], tuple[Path, ...]],
    given: Mapping[str, Any],
) -> None:
    from bpqp_bench.cli.progress import show_time_left
    from bpqp_bench.plugins.registry import Registry

    registry = Registry(*folders)
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    with show_time_left() as time_left:
        problems = task.run(chosen, out, registry, time_left)
    for path in render_task(task, out, registry):
        if path.suffix == ".md":
            click.echo(path.read_text(encoding="utf-8"))
    click.echo(f"results in {out / task.name}, tables and figures in {out / 'report'}")
    for problem in problems:
        click.echo(problem, err=True)


def render_task(task: Task, run: Path, registry: Registry) -> list[Path]:
    """Write a task's tables and figures of a run to its folder ``report``."""
    from bpqp_bench.report.figures import FIGURES
    from bpqp_bench.report.inputs import Inputs, Names
    from bpqp_bench.report.render import save_drawings, write_table
    from bpqp_bench.report.tables import TABLES
    from bpqp_bench.results.cells import Cells
    from bpqp_bench.results.run_directory import to_frame

    inputs = Inputs(cells=Cells(to_frame([])), names=Names(registry), run_dir=run)
    out = run / "report"
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for table in TABLES:
        if table.key in task.tables:
            written += write_table(table.render(inputs), out)
    for figure in FIGURES:
        if figure.key in task.figures:
            written += save_drawings(figure.draw(inputs), out)
    return written


def _options(settings: type) -> Iterator[click.Option]:
    """Make an option of each field, those of dataclasses in it included."""
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _options(kind)  # type: ignore[arg-type]
            continue
        multiple = get_origin(kind) is tuple
        if get_origin(kind) in (tuple, Union, types.UnionType):
            kind = get_args(kind)[0]  # tuple[X, ...] and X | None
        if get_origin(kind) is Literal:
            kind = click.Choice(get_args(kind))
        flag = field.metadata["flag"] or f"--{field.name.replace('_', '-')}"
        yield click.Option(
            [flag, field.name],
            type=kind,
            multiple=multiple,
            help=f"{field.metadata['help']} {_default(field.default)}".strip(),
        )


def _default(value: object) -> str:
    if value in (None, (), ""):
        return ""
    shown = ", ".join(value) if isinstance(value, tuple) else value
    return f"[default: {shown}]"
