"""The three profiles: how much of every table is measured, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass

from bpqp_bench.errors import SpecError


@dataclass(frozen=True)
class Profile:
    """Sizes, repetitions and limits of one `reproduce`.

    Attributes
    ----------
    sizes, large_sizes
        Sizes of table 1 and of the large-scale table.
    instances, large_instances
        Instances per cell.
    cell_budget_s, large_cell_budget_s
        A cell ends after this many seconds of calls, or None for no budget.
    accuracy_budget_s
        The same for cells that the accuracy table needs, which go by instances and not by time.
    call_limit_s, large_call_limit_s
        Wall-time limit of a single pass.
    build_limit_s
        Wall-time limit of `build` (compilation, network training).
    dc3_samples, dc3_epochs
        Training of DC3; the paper's are 10000 and 500.
    portfolio_assets, portfolio_seeds, portfolio_epochs
        Size of the portfolio experiment.
    """

    name: str
    sizes: tuple[str, ...]
    large_sizes: tuple[str, ...]
    instances: int
    large_instances: int
    cell_budget_s: float | None
    large_cell_budget_s: float | None
    accuracy_budget_s: float | None
    call_limit_s: float
    large_call_limit_s: float
    build_limit_s: float
    dc3_samples: int
    dc3_epochs: int
    portfolio_assets: int
    portfolio_seeds: int
    portfolio_epochs: int


_SIZES = ("10x5", "50x10", "100x20", "500x100")
_LARGE = ("500x200", "1500x500", "3000x1000", "5000x2000")

PROFILES: tuple[Profile, ...] = (
    Profile(
        name="smoke",
        sizes=_SIZES[:2],
        large_sizes=_LARGE[:1],
        instances=5,
        large_instances=2,
        cell_budget_s=4.0,
        large_cell_budget_s=4.0,
        accuracy_budget_s=1.0,
        call_limit_s=10.0,
        large_call_limit_s=3.0,
        build_limit_s=20.0,
        dc3_samples=200,
        dc3_epochs=10,
        portfolio_assets=20,
        portfolio_seeds=1,
        portfolio_epochs=2,
    ),
    Profile(
        name="standard",
        sizes=_SIZES,
        large_sizes=_LARGE,
        instances=20,
        large_instances=2,
        cell_budget_s=8.0,
        large_cell_budget_s=30.0,
        accuracy_budget_s=20.0,
        call_limit_s=30.0,
        large_call_limit_s=40.0,
        build_limit_s=60.0,
        dc3_samples=1000,
        dc3_epochs=50,
        portfolio_assets=100,
        portfolio_seeds=3,
        portfolio_epochs=8,
    ),
    Profile(
        name="paper",
        sizes=_SIZES,
        large_sizes=_LARGE,
        instances=200,
        large_instances=10,
        cell_budget_s=None,
        large_cell_budget_s=None,
        accuracy_budget_s=None,
        call_limit_s=600.0,
        large_call_limit_s=3600.0,
        build_limit_s=36000.0,
        dc3_samples=10000,
        dc3_epochs=500,
        portfolio_assets=500,
        portfolio_seeds=5,
        portfolio_epochs=30,
    ),
)


def profile(name: str) -> Profile:
    """Return the profile of this name.

    Raises
    ------
    SpecError
        If there is none.
    """
    for candidate in PROFILES:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in PROFILES)
    raise SpecError(f"unknown profile {name!r}; profiles are {known}")
