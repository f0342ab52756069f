"""The portfolio experiment as a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpqp_bench.tasks.portfolio.config import PortfolioConfig
from bpqp_bench.tasks.task import Task

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.runner.profiles import Profile
    from bpqp_bench.runner.time_left import TimeLeft, Work


def _run(given: Mapping[str, Any], out: Path, registry: Registry, time_left: TimeLeft) -> list[str]:
    from bpqp_bench.tasks.portfolio.experiment import run_portfolio  # noqa: PLC0415 - torch

    results = run_portfolio(PortfolioConfig.of(given), out, registry, time_left)
    return [f"{r.label}, seed {r.seed}: {r.cause}" for r in results if r.status == "failed"]


def _plan(profile: Profile, out: Path, registry: Registry) -> list[Work]:
    from bpqp_bench.tasks.portfolio.experiment import plan_portfolio  # noqa: PLC0415 - torch

    return plan_portfolio(profile, out, registry)


def _reproduce(profile: Profile, out: Path, registry: Registry, time_left: TimeLeft) -> list[str]:
    from bpqp_bench.tasks.portfolio.experiment import reproduce_portfolio  # noqa: PLC0415 - torch

    return reproduce_portfolio(profile, out, registry, time_left)


TASK = Task(
    name="portfolio",
    summary=(
        "Train and judge: two-stage against learning through the optimization (tables 4 and 6).\n\n"
        "What a run directory already holds is not run again; an interrupted training goes on "
        "with its next epoch. Results of several markets may share a run directory."
    ),
    settings=PortfolioConfig,
    run=_run,
    plan=_plan,
    reproduce=_reproduce,
    tables=("table4", "table6"),
    figures=("portfolio",),
)
