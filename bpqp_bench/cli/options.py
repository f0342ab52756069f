"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click


def plugin_folders(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--methods-dir`` and ``--problems-dir``, each repeatable, and ``--data-dir``."""
    command = click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_name_data_folder,
        help="Folder of problem files, for families that read them.",
    )(command)
    for kind, what in (("methods", "method adapters"), ("problems", "problem families")):
        command = click.option(
            f"--{kind}-dir",
            f"{kind}_dirs",
            multiple=True,
            type=click.Path(path_type=Path),
            help=f"Folder of further {what}; may be repeated.",
        )(command)
    return command


def _name_data_folder(_: click.Context, __: click.Parameter, value: Path | None) -> None:
    from bpqp_bench.problem.files import DATA_VARIABLE

    # Through the environment, which the worker processes inherit.
    if value is not None:
        os.environ[DATA_VARIABLE] = str(value.resolve())


def new_run_path() -> Path:
    """Return a run directory that does not exist yet; names sort by time."""
    # The random part keeps two runs of one second apart.
    return Path("results/runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}"
