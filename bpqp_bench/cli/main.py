"""The command ``bpqp-bench``: a group whose commands are imported when they are called."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import click

from bpqp_bench.tasks import task_names

# Half a second of imports that plug-in files need only when they are used, not to be listed.
_SLOW = ("scipy.fft", "scipy.io", "scipy.linalg", "scipy.sparse", "scipy.special", "scipy.stats")

# Where each command lives, beside those of the tasks. Imported on use: `bpqp-bench list` must not
# wait for pandas.
_COMMANDS = {
    "list": ("listing", "list_plugins"),
    "check": ("check", "check"),
    "run": ("run", "run"),
    "replay": ("run", "replay"),
    "recommend": ("recommend", "recommend"),
    "report": ("report", "report"),
    "compare": ("report", "compare"),
    "merge": ("merge", "merge"),
    "export": ("report", "export"),
    "regress": ("regress", "regress"),
    "publish": ("publish", "publish"),
    "reproduce": ("reproduce", "reproduce"),
    "survey": ("survey", "survey"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *task_names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in task_names():
            from bpqp_bench.cli.task import task_command

            return task_command(cmd_name)
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"bpqp_bench.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is not a command")
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bpqp_bench", prog_name="bpqp-bench")
def cli() -> None:
    """Measure differentiable optimization layers, their speed and their accuracy."""


def main() -> None:
    """Run the command line; an error that the user can act on is one line and exit status 2."""
    for name in _SLOW:
        sys.modules.setdefault(name, _WhenUsed(name))
    from bpqp_bench.cli.output import say
    from bpqp_bench.errors import BenchError

    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except BenchError as error:
        say(f"bpqp-bench: {error}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("bpqp-bench: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


class _WhenUsed(ModuleType):
    """Stands in ``sys.modules`` for a module that is loaded when something in it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)
