"""``bpqp-bench list``: what can be run, what cannot, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpqp_bench.cli.options import plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry


@click.command("list")
@click.argument("kind", type=click.Choice(["all", "methods", "families"]), default="all")
@click.option("--parameters", is_flag=True, help="Show parameters with their defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plugin_folders
def list_plugins(
    kind: str,
    parameters: bool,
    as_json: bool,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """List methods and problem families, with what each supports and why not the rest.

    Exit status 1 if a plug-in file could not be loaded.
    """
    import json

    from bpqp_bench.cli.output import say, table
    from bpqp_bench.plugins.registry import Registry

    registry = Registry(methods_dirs, problems_dirs)
    found: dict[str, list[dict[str, Any]]] = {}
    if kind != "families":
        found["methods"] = [_method(registry, name) for name in registry.method_names()]
    if kind != "methods":
        found["families"] = [_family(registry, name) for name in sorted(registry.families)]
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for what, entries in found.items():
            rows = [(e["name"], e["label"], ", ".join(e["classes"])) for e in entries]
            notes = [_notes(entry, parameters) for entry in entries]
            table((what, "label", "classes"), rows, notes=notes)
            click.echo()
    for plugin in registry.broken:
        say(f"not loaded: {plugin.path}: {plugin.error}\n{plugin.traceback}".rstrip(), err=True)
    if registry.broken:
        raise click.exceptions.Exit(1)


def _method(registry: Registry, name: str) -> dict[str, Any]:
    choice = registry.method(name)
    cls = choice.cls
    return {
        "name": name,
        "key": choice.key,
        "label": choice.label,
        "group": cls.group,
        "variant": name != cls.name,
        "classes": [kind.upper() for kind in sorted(cls.problem_classes)],
        "why_not": {kind.upper(): why for kind, why in sorted(cls.why_not.items())},
        "source": cls.reference,
        "missing": choice.missing(),
        "parameters": {key: str(value) for key, value in sorted(cls.parameters.items())},
    }


def _family(registry: Registry, name: str) -> dict[str, Any]:
    family = registry.families[name].plugin
    return {
        "name": name,
        "label": family.label,
        "classes": [family.problem_class.upper()],
        "source": family.source,
        "parameters": {key: str(value) for key, value in sorted(family.all_parameters.items())},
    }


def _notes(entry: dict[str, Any], parameters: bool) -> list[str]:
    notes = [f"unavailable: {entry['missing']}"] if entry.get("missing") else []
    if entry.get("variant"):
        return [*notes, f"= {entry['key']}"]
    notes += [f"group {entry['group']}"] if "group" in entry else []
    notes += [f"no {kind}: {why}" for kind, why in entry.get("why_not", {}).items()]
    notes.append(entry["source"])
    if parameters:
        notes += [f"{key} = {value}" for key, value in entry["parameters"].items()]
    return notes
