"""The tables of the report, one file each; adding a table is adding a file.

A file binds a `bpqp_bench.report.model.TableModule` to the name ``TABLE``; files whose name begins
with an underscore are helpers.
"""

from __future__ import annotations

from bpqp_bench.report.discovery import discover
from bpqp_bench.report.model import TableModule
from bpqp_bench.runner.plan import Request
from bpqp_bench.runner.profiles import PROFILES, Profile

__all__ = ["TABLES", "all_requests", "requested_methods"]


TABLES: tuple[TableModule, ...] = tuple(
    sorted(discover(__name__, __path__, "TABLE", TableModule), key=lambda module: module.order)
)


def all_requests(profile: Profile) -> tuple[Request, ...]:
    """Return every cell that the report's tables need under a profile; they may overlap."""
    return tuple(request for table in TABLES for request in table.requests(profile))


def requested_methods() -> list[str]:
    """Names of all methods that any table asks for under any profile, each once."""
    names: dict[str, None] = {}
    for profile in PROFILES:
        for request in all_requests(profile):
            names.update(dict.fromkeys(request.methods))
    return list(names)
