"""The figures of the report, one file each; a file binds a `FigureModule` to ``FIGURE``."""

from __future__ import annotations

import importlib
import pkgutil

from bpqp_bench.report.model import FigureModule

__all__ = ["FIGURES"]


def _discover() -> tuple[FigureModule, ...]:
    found: list[FigureModule] = []
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            if not isinstance(getattr(module, "FIGURE", None), FigureModule):
                raise TypeError(f"{module.__name__} binds no FigureModule to the name FIGURE")
            found.append(module.FIGURE)
    return tuple(sorted(found, key=lambda figure: figure.order))


FIGURES: tuple[FigureModule, ...] = _discover()
