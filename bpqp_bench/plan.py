"""What is to be measured: requests from tables, merged into one plan that is data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """Ask for every method on every family at every size, on instances 0, 1, ….

    A table (or the command line) asks; overlapping requests are merged by the plan, the larger
    number of instances and the larger limits winning.

    Attributes
    ----------
    methods, families, sizes
        Specifications as on the command line.
    instances, first_seed
        Seeds ``first_seed … first_seed + instances − 1``.
    call_limit_s, build_limit_s, cell_budget_s
        Limits on one pass, on `build`, and on all measured calls of a cell (None: no budget).
    warmups
        Further calls before counting, after the first.
    wrt, batch, dtype, device, threads
        The rest of the cell.
    """

    methods: tuple[str, ...]
    families: tuple[str, ...]
    sizes: tuple[str, ...]
    instances: int
    call_limit_s: float
    build_limit_s: float = 60.0
    cell_budget_s: float | None = None
    first_seed: int = 0
    warmups: int = 1
    wrt: tuple[str, ...] = ("q",)
    batch: int = 1
    dtype: str = "float64"
    device: str = "cpu"
    threads: int = 1
