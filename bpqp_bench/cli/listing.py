"""``bpqp-bench list``: what can be run, what cannot, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpqp_bench.cli.options import plugin_folders

if TYPE_CHECKING:
    from rich.table import Table

    from bpqp_bench.plugins.registry import Registry

__all__ = ["list_plugins"]


@click.command("list")
@click.argument("kind", type=click.Choice(["all", "methods", "families"]), default="all")
@click.option("--parameters", is_flag=True, help="Show parameters with their defaults.")
@plugin_folders
def list_plugins(
    kind: str, parameters: bool, methods_dirs: tuple[Path, ...], problems_dirs: tuple[Path, ...]
) -> None:
    """List methods and problem families, with what each supports and why not the rest.

    Exit status 1 if a plug-in file could not be loaded.
    """
    from rich.console import Console

    from bpqp_bench.plugins.registry import Registry

    registry = Registry(methods_dirs, problems_dirs)
    console = Console(soft_wrap=False)
    if kind != "families":
        console.print(_methods(registry, parameters))
    if kind != "methods":
        console.print(_families(registry, parameters))
    for plugin in registry.broken:
        click.echo(f"not loaded: {plugin.path}: {plugin.error}\n{plugin.traceback}", err=True)
    if registry.broken:
        raise click.exceptions.Exit(1)


def _methods(registry: Registry, parameters: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("method", "label", "group", "classes", "notes", title="Methods")
    for name in registry.method_names():
        choice = registry.method(name)
        cls = choice.cls
        notes = []
        missing = choice.missing()
        if missing:
            notes.append(f"unavailable: {missing}")
        if name != cls.name:
            notes.append(f"= {choice.key}")
        else:
            notes += [f"no {kind.upper()}: {why}" for kind, why in sorted(cls.why_not.items())]
            notes.append(cls.reference)
            if parameters:
                notes += [f"{key} = {value}" for key, value in sorted(cls.parameters.items())]
        classes = ", ".join(kind.upper() for kind in sorted(cls.problem_classes))
        table.add_row(*map(escape, (name, choice.label, cls.group, classes, "\n".join(notes))))
    return table


def _families(registry: Registry, parameters: bool) -> Table:
    from rich.table import Table

    table = Table("family", "label", "class", "source", title="Problem families")
    for name, found in sorted(registry.families.items()):
        family = found.plugin
        notes = [family.source]
        if parameters:
            notes += [f"{key} = {value}" for key, value in sorted(family.all_parameters.items())]
        table.add_row(name, family.label, family.problem_class.upper(), "\n".join(notes))
    return table
