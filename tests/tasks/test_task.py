"""Every task is found by its folder, light to import, and its settings are options."""

import subprocess
import sys
from dataclasses import fields, is_dataclass

import click
import pytest

from bpqp_bench.cli.main import cli
from bpqp_bench.report.figures import FIGURES
from bpqp_bench.report.tables import TABLES
from bpqp_bench.tasks import task_names
from bpqp_bench.tasks.task import Task, find_task


@pytest.fixture(params=task_names())
def task(request):
    return find_task(request.param)


def test_every_task_is_found_with_what_the_report_shows(task):
    assert isinstance(task, Task)
    assert set(task.tables) <= {table.key for table in TABLES}
    assert set(task.figures) <= {figure.key for figure in FIGURES}


def test_every_setting_is_an_option_with_help(task):
    command = cli.get_command(click.Context(cli), task.name)
    options = {param.name: param for param in command.params}

    def settings_of(kind):
        for field in fields(kind):
            if field.metadata:
                yield field.name
            else:
                assert is_dataclass(field.default_factory)
                yield from settings_of(field.default_factory)

    for name in settings_of(task.settings):
        assert options[name].help


def test_help_loads_nothing_heavy(task):
    code = (
        f"from bpqp_bench.tasks.task import find_task; find_task({task.name!r})\n"
        "import sys; print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
