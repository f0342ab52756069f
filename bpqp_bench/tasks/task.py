"""What a task is: an experiment that learns through a layer, and the settings that it takes.

A sub-package of ``tasks`` has a module ``task`` that binds a `Task` to the name ``TASK``; the
command line makes a command of it, and ``reproduce`` runs it, without being told. That module
imports nothing heavy: ``bpqp-bench --help`` reads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.runner.profiles import Profile
    from bpqp_bench.runner.time_left import TimeLeft, Work


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    name, summary
        Of its command; first line of the command's help, then more.
    settings
        A dataclass; its fields made by `setting`, and those of dataclasses in it, are the options
        of the command.
    run
        Takes what the user gave of them, by name, the run directory, the registry and the account
        of the time left; returns one sentence for each thing that failed.
    plan
        Says what a profile asks for and the run directory lacks.
    reproduce
        Does what a profile asks for, and returns one sentence for each thing that could not be
        done. A training that fails is a result and not among them.
    tables, figures
        Keys of what the report renders from it.
    """

    name: str
    summary: str
    settings: type
    run: Callable[[Mapping[str, Any], Path, Registry, TimeLeft], list[str]]
    plan: Callable[[Profile, Path, Registry], list[Work]]
    reproduce: Callable[[Profile, Path, Registry, TimeLeft], list[str]]
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


def setting(default: Any, what: str, flag: str = "") -> Any:
    """Declare a field of a task's settings.

    Parameters
    ----------
    default
        Its value where nothing is said.
    what
        Help of its option.
    flag
        The option, where it is not the field's name.
    """
    return field(default=default, metadata={"help": what, "flag": flag})


def find_task(name: str) -> Task:
    """Import one of the `bpqp_bench.tasks.task_names`.

    Raises
    ------
    TypeError
        If its module binds no `Task`.
    """
    found = importlib.import_module(f"bpqp_bench.tasks.{name}.task").TASK
    if not isinstance(found, Task):
        raise TypeError(f"bpqp_bench.tasks.{name}.task binds no Task to the name TASK")
    return found
