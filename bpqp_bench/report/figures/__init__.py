"""The figures of the report, one file each; a file binds a `FigureModule` to ``FIGURE``."""

from __future__ import annotations

from bpqp_bench.report.discovery import discover
from bpqp_bench.report.model import FigureModule

__all__ = ["FIGURES"]


FIGURES: tuple[FigureModule, ...] = tuple(
    sorted(discover(__name__, __path__, "FIGURE", FigureModule), key=lambda module: module.order)
)
