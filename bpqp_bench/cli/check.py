"""``bpqp-bench check``: test whether plug-ins keep the contracts of methods and families."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpqp_bench.cli.options import plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.method.conformance import CheckResult


@click.command("check")
@click.argument("methods", nargs=-1)
@click.option("--family", "families", multiple=True, help="Test a problem family instead.")
@click.option("--size", help="Size NxM at which to test it.")
@click.option("--in-process", is_flag=True, hidden=True)
@plugin_folders
def check(
    methods: tuple[str, ...],
    families: tuple[str, ...],
    size: str | None,
    in_process: bool,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """Test the adapters METHODS (default: all) against the method contract.

    With --family: test problem families against theirs, and adapters only where they are named.

    Exit status 1 if a check fails; a method whose library is missing fails too when it was named.
    """
    if not in_process:
        raise click.exceptions.Exit(_in_worker_environment())
    from bpqp_bench.cli.output import say
    from bpqp_bench.method.conformance import LIMITS, check_method
    from bpqp_bench.plugins.family_check import check_family
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.problem.instance import Size

    registry = Registry(methods_dirs, problems_dirs)
    click.echo(LIMITS)
    failed = 0
    for name in methods or (() if families else registry.method_names()):
        choice = registry.method(name)
        if not methods and choice.variant is not None and choice.variant.costly:
            say(f"{name}: not run: building takes minutes; name it to check it")
            continue
        missing = choice.missing()
        if missing:
            say(f"{name}: unavailable: {missing}")
            failed += bool(methods)
            continue
        failed += _print(f"{name}  ({choice.label})", check_method(choice, registry.family))
    for name in families:
        family = registry.family(name)
        title = f"{family.key}  ({family.family.label})"
        asked = None if size is None else Size.parse(size)
        failed += _print(title, check_family(family, asked))
    for plugin in registry.broken:
        click.echo(f"not loaded: {plugin.path}: {plugin.error}\n{plugin.traceback}", err=True)
        failed += 1
    if failed:
        click.echo(f"{failed} failed", err=True)
        raise click.exceptions.Exit(1)


def _print(title: str, results: list[CheckResult]) -> int:
    from bpqp_bench.cli.output import table

    rows = [(one.name, "ok" if one.passed else "FAILED", one.detail) for one in results]
    table(("check", "", "detail"), rows, title=f"\n{title}")
    return sum(not result.passed for result in results)


def _in_worker_environment() -> int:
    # Adapters may rely on what the runner sets for its workers (threads, 64-bit JAX); none of it
    # can be set once a library is loaded, so the check runs in a process of its own.
    from bpqp_bench.runner.worker_client import worker_environment

    arguments = [argument for argument in sys.argv[1:] if argument != "check"]
    command = [sys.executable, "-m", "bpqp_bench", "check", "--in-process", *arguments]
    environment = dict(os.environ) | worker_environment(threads=1)
    return subprocess.run(command, env=environment, check=False).returncode
