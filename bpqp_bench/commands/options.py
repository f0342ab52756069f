"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["plugin_folders"]


def plugin_folders(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--methods-dir`` and ``--problems-dir``, each repeatable."""
    for kind, what in (("methods", "method adapters"), ("problems", "problem families")):
        command = click.option(
            f"--{kind}-dir",
            f"{kind}_dirs",
            multiple=True,
            type=click.Path(path_type=Path),
            help=f"Folder of further {what}; may be repeated.",
        )(command)
    return command
