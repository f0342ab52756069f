"""Shards of a plan, measured apart, as one run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bpqp_bench.errors import ResultsError
from bpqp_bench.results.compare import different_machines
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import (
    RunDirectory,
    load_measurements,
    merge_measurements,
    read_config,
)
from bpqp_bench.results.store import read_json

#: Folders that say nothing of a merged run.
_MADE_ANEW = ("logs", "report")


def merge_runs(
    runs: Sequence[Path], out: Path, *, across_machines: bool = False, across_code: bool = False
) -> int:
    """Write the measurements of several runs, each key once, to a new run directory.

    Its folders (what tasks found, inputs of failed calls) are those of all runs, each file from the
    first run that has it. Its plan is that of all of them; of what they measured twice the first
    one counts, and where their code differs, the first one that measured anything of a cell counts
    for all of it.

    Parameters
    ----------
    across_machines
        Do it although their machines differ; the environment is then that of the first, with the
        differences under ``other_machines``.
    across_code
        Do it although their code differs, where only some methods were measured again, say; the
        environment then has, under ``other_code``, the methods by the commit that measured them.

    Returns
    -------
    int
        How many measurements.

    Raises
    ------
    ResultsError
        If a run cannot be read, or is of other code or of another machine.
    """
    configs = [read_config(run) for run in runs]
    environments = [read_json(run / "environment.json") for run in runs]
    for run, config in zip(runs[1:], configs[1:], strict=True):
        if config.get("code") != configs[0].get("code") and not across_code:
            raise ResultsError(
                f"{run} and {runs[0]} were made by different versions of the code; "
                "add --across-code to merge them all the same"
            )
    differences = {
        str(run): found
        for run, environment in zip(runs[1:], environments[1:], strict=True)
        if (found := different_machines(environments[0], environment))
    }
    if differences and not across_machines:
        name, found = next(iter(differences.items()))
        raise ResultsError(
            f"{name} and {runs[0]} are runs of different machines ({'; '.join(found)}); "
            "add --across-machines to merge them all the same"
        )
    environment = environments[0] | ({"other_machines": differences} if differences else {})
    config = configs[0] | {"plan": {"blocks": _blocks(configs)}, "suites": _suites(configs)}
    parts = _whole_cells([load_measurements(run) for run in runs], configs)
    measurements = merge_measurements(parts)
    # A run may be a merged one itself.
    other_code = {
        commit: methods
        for environment in environments
        for commit, methods in environment.get("other_code", {}).items()
    }
    other_code |= {
        str(environment.get("git_commit") or "unknown"): sorted({one.method for one in own})
        for environment, config, own in zip(environments, configs, parts, strict=True)
        if own and config.get("code") != configs[0].get("code")
    }
    if other_code:
        environment["other_code"] = other_code
    with RunDirectory.create(out, config, environment) as directory:
        for measurement in measurements:
            directory.append(measurement)
    for folder in [folder for run in reversed(runs) for folder in run.iterdir() if folder.is_dir()]:
        if folder.name not in _MADE_ANEW:
            shutil.copytree(folder, out / folder.name, dirs_exist_ok=True)
    return len(measurements)


def _whole_cells(
    parts: Sequence[list[Measurement]], configs: Sequence[dict[str, Any]]
) -> list[list[Measurement]]:
    """Leave out of a run what a run of other code before it has a cell of: no cell is of two."""
    owner: dict[tuple[object, ...], object] = {}
    kept = []
    for part, config in zip(parts, configs, strict=True):
        code = config.get("code")
        kept.append([one for one in part if owner.setdefault(_cell(one), code) == code])
    return kept


def _cell(one: Measurement) -> tuple[object, ...]:
    where = one.method, one.family, one.size, one.batch, one.dtype, one.device, one.threads
    return (*where, one.wrt, one.upstream, one.start)


def _suites(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Commands that the runs are of; a run of the user's own among them makes it one of none."""
    found = [config.get("suites") or [] for config in configs]
    return sorted({name for names in found for name in names}) if all(found) else []


def _blocks(configs: Sequence[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for config in configs:
        try:
            found += [block for block in config["plan"]["blocks"] if block not in found]
        except (KeyError, TypeError):
            raise ResultsError("a config.json holds no plan of blocks") from None
    return found
