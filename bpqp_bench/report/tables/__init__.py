"""The tables of the report, one file each; adding a table is adding a file.

A file binds a `bpqp_bench.report.model.TableModule` to the name ``TABLE``; files whose name begins
with an underscore are helpers.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpqp_bench.report.discovery import discover
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.model import FigureModule, Suite, Table, TableModule
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

__all__ = ["TABLES", "all_requests", "belongs", "render_tables", "requested_methods"]


TABLES: tuple[TableModule, ...] = tuple(
    sorted(discover(__name__, __path__, "TABLE", TableModule), key=lambda module: module.order)
)


def all_requests(profile: Profile, suite: Suite = "reproduce") -> tuple[Request, ...]:
    """Return every cell that the tables of a command need under a profile; they may overlap."""
    return tuple(
        request for table in TABLES if table.suite == suite for request in table.requests(profile)
    )


def requested_methods(suites: Iterable[str] = ()) -> list[str]:
    """Names of the methods that the tables of some commands ask for under any profile, each once.

    No command: those that the tables of the paper ask for. A run of the user's own choice is then
    free to show a method of the survey in a table of the paper.
    """
    names: dict[str, None] = {}
    wanted = set(suites) or {"reproduce"}
    for table in TABLES:
        if table.suite in wanted:
            for request in (request for one in PROFILES for request in table.requests(one)):
                names.update(dict.fromkeys(request.methods))
    return list(names)


def belongs(module: TableModule | FigureModule, inputs: Inputs) -> bool:
    """Whether a run is of the command of a table or figure, or of none."""
    return not inputs.suites or module.suite in inputs.suites


def render_tables(inputs: Inputs) -> list[Table]:
    """Render the tables of a run's commands; of a run that names none, those that have something.

    The tables of the paper are there in any run of a profile, and say "not run".
    """
    made = [(module, module.render(inputs)) for module in TABLES if belongs(module, inputs)]
    return [
        table
        for module, table in made
        if inputs.suites
        or (module.suite == "reproduce" and inputs.profile is not None)
        or (table.panels and len(table.tidy))
    ]
