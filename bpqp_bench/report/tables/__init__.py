"""The tables of the report, one file each; adding a table is adding a file.

A file binds a `bpqp_bench.report.model.TableModule` to the name ``TABLE``; files whose name begins
with an underscore are helpers.
"""

from __future__ import annotations

import importlib
import pkgutil

from bpqp_bench.plan import Request
from bpqp_bench.profiles import PROFILES, Profile
from bpqp_bench.report.model import TableModule

__all__ = ["TABLES", "all_requests", "requested_methods"]


def _discover() -> tuple[TableModule, ...]:
    found: list[TableModule] = []
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            if not isinstance(getattr(module, "TABLE", None), TableModule):
                raise TypeError(f"{module.__name__} binds no TableModule to the name TABLE")
            found.append(module.TABLE)
    return tuple(sorted(found, key=lambda table: table.order))


TABLES: tuple[TableModule, ...] = _discover()


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
