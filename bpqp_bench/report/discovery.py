"""Find what the files of a package bind to an agreed name: tables, figures."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("_T")


def discover(package: str, path: Iterable[str], name: str, kind: type[_T]) -> list[_T]:
    """Return what each file of a package binds to ``name``.

    Files whose name begins with an underscore are helpers and are left out.

    Raises
    ------
    TypeError
        If a file does not bind a ``kind`` to the name.
    """
    found: list[_T] = []
    for info in pkgutil.iter_modules(path):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{package}.{info.name}")
            bound = getattr(module, name, None)
            if not isinstance(bound, kind):
                raise TypeError(f"{module.__name__} binds no {kind.__name__} to the name {name}")
            found.append(bound)
    return found
