"""``bpqp-bench run`` and ``replay``: measure cells, and make one failed call again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.runner.plan import Plan

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@click.command("run")
@click.option("--method", "methods", multiple=True, help="Method, NAME or NAME[key=value,…].")
@click.option("--group", "groups", multiple=True, help="All of paper, modern, ours or user.")
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    type=float,
    help="Measure the methods that have a tolerance at this one instead; repeat for a curve.",
)
@click.option("--family", "families", multiple=True, help="Problem family, NAME or NAME[…].")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Your own problems: .npz with P, q, A, b, G, h (a leading dimension is a batch), or .qps.",
)
@click.option(
    "--size", "sizes", multiple=True, help="Size NxM, e.g. 100x20; families of one size need none."
)
@click.option("--profile", help="Take sizes, instances and limits from a profile.")
@click.option("--instances", type=int, help="Instances per cell (default: the profile's, or 5).")
@click.option("--first-seed", type=int, default=0, show_default=True, help="First instance.")
@click.option("--warmups", type=int, default=1, show_default=True, help="Calls before counting.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of a worker.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--batch", "batches", type=int, multiple=True, help="Problems a call (default: 1).")
@click.option("--dtype", default="float64", show_default=True, help="float64 or float32.")
@click.option("--upstream", help="Loss gradient: ones, random or family (default: the family's).")
@click.option("--wrt", default="q", show_default=True, help="Parameters: q,P,A,b,G,h or all.")
@click.option("--time-limit", type=float, help="Seconds a pass may take.")
@click.option("--build-limit", type=float, help="Seconds a build may take.")
@click.option("--budget", type=float, help="A cell ends after so many seconds of counted calls.")
@click.option("--memory-limit", help="Resident memory of a worker, e.g. 4G (default: most free).")
@click.option("--reference-limit", type=float, default=900.0, help="Seconds a reference may take.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: new one).")
@click.option("--resume", is_flag=True, help="Go on with the run directory given by --out.")
@click.option(
    "--executor",
    "executor_name",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Where to measure: here, or on the workers of a Dask cluster.",
)
@click.option("--scheduler", help="Address of the Dask scheduler, e.g. tcp://host:8786.")
@click.option("--shard", help="Only part K of N of the plan, as K/N.")
@click.option("--dry-run", is_flag=True, help="Print the plan and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the plan as JSON.")
@plugin_folders
def run(
    *,
    out: Path | None,
    resume: bool,
    shard: str | None,
    executor_name: str,
    scheduler: str | None,
    dry_run: bool,
    as_json: bool,
    memory_limit: str | None,
    reference_limit: float,
    profile: str | None,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
    **asked: Any,
) -> None:
    """Measure every METHOD on every FAMILY at every SIZE.

    With --resume and no methods named, the plan is that of the run directory. Exit status 1 if
    something asked for could not be done, or every call of a method failed by an error of its own;
    other failures are results.
    """
    import json

    from bpqp_bench.cli.output import overview_table, paragraph, say
    from bpqp_bench.cli.progress import show_time_left
    from bpqp_bench.errors import SpecError
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.results.overview import all_failed, overview
    from bpqp_bench.runner.execute import Executor, execute, open_run
    from bpqp_bench.runner.plan import Shard
    from bpqp_bench.runner.schedule import Options

    registry = Registry(methods_dirs, problems_dirs)
    for plugin in registry.broken:
        click.echo(f"not loaded: {plugin.path}: {plugin.error}", err=True)
    if resume and out is None:
        raise SpecError("--resume needs the run directory: --out DIR")
    kept = (
        _kept(out)
        if resume and out is not None and not (asked["methods"] or asked["groups"])
        else None
    )
    if kept is not None:
        plan, profile, suites, options = kept
    else:
        plan, suites = _planned(registry, profile, asked), ()
        if shard is not None:
            plan = plan.shard(Shard.parse(shard))
        limit = None if memory_limit is None else _bytes(memory_limit)
        options = Options(memory_limit=limit, reference_limit_s=reference_limit)
    executor: Executor | None = None
    if executor_name == "dask":
        from bpqp_bench.runner.dask_executor import DaskExecutor

        if scheduler is None:
            raise SpecError("--executor dask needs --scheduler ADDRESS")
        executor = DaskExecutor(scheduler, options)
    if dry_run:
        click.echo(json.dumps(plan.to_dict(), indent=1) if as_json else plan.describe())
        return
    path = out or new_run_path()
    with (
        open_run(
            path, plan, registry, resume=resume, options=options, profile=profile, suites=suites
        ) as directory,
        show_time_left() as time_left,
    ):
        click.echo(f"run {path}")
        folders = (methods_dirs, problems_dirs)
        summary = execute(plan, directory, folders, time_left, options, executor)
        rows = overview(directory.measurements)
    overview_table(rows)
    paragraph(summary.describe())
    click.echo(f"tables, figures and the page: bpqp-bench report {path}")
    failed = all_failed(rows)
    for text in failed:
        say(text, err=True)
    if summary.problems or failed:
        raise click.exceptions.Exit(1)


@click.command("replay")
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("key")
@click.option("--time-limit", type=float, help="Seconds a pass may take (default: as recorded).")
@plugin_folders
def replay(
    run_path: Path,
    key: str,
    time_limit: float | None,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """Make one call of the run directory RUN again, on exactly its inputs.

    KEY is the measurement's key, or its beginning. Prints what came of it then and now.
    """
    from bpqp_bench.cli.output import say
    from bpqp_bench.runner.replay import replay_call

    say(replay_call(run_path, key, (methods_dirs, problems_dirs), time_limit))


def _planned(registry: Registry, profile_name: str | None, asked: dict[str, Any]) -> Plan:
    from bpqp_bench.errors import SpecError
    from bpqp_bench.problem.instance import DATA_NAMES
    from bpqp_bench.runner.own_data import data_family
    from bpqp_bench.runner.plan import Request, make_plan
    from bpqp_bench.runner.profiles import profile

    chosen = None if profile_name is None else profile(profile_name)
    methods = [*asked["methods"], *(m for g in asked["groups"] for m in registry.group(g))]
    if asked["tolerances"]:
        methods = [
            spec
            for method in methods
            for spec in registry.at_tolerances(method, asked["tolerances"]) or [method]
        ]
    asked = asked | {"methods": tuple(dict.fromkeys(methods))}
    if asked["data"] is not None:
        asked["families"] = (*asked["families"], data_family(asked["data"]))
    for name in ("methods", "families"):
        if not asked[name]:
            raise SpecError(f"no {name} named; use --{'method' if name == 'methods' else 'family'}")
    sizes = asked["sizes"] or (chosen.sizes if chosen else ())
    wrt = DATA_NAMES if asked["wrt"] == "all" else tuple(asked["wrt"].split(","))

    def pick(value: Any, of_profile: Any, otherwise: Any) -> Any:
        if value is not None:
            return value
        return of_profile if chosen is not None else otherwise

    def request(batch: int) -> Request:
        return Request(
            methods=asked["methods"],
            families=asked["families"],
            sizes=sizes,
            instances=pick(asked["instances"], chosen and chosen.instances, 5),
            call_limit_s=pick(asked["time_limit"], chosen and chosen.call_limit_s, 60.0),
            build_limit_s=pick(asked["build_limit"], chosen and chosen.build_limit_s, 120.0),
            cell_budget_s=pick(asked["budget"], chosen and chosen.cell_budget_s, None),
            first_seed=asked["first_seed"],
            warmups=asked["warmups"],
            wrt=wrt,
            device=asked["device"],
            threads=asked["threads"],
            batch=batch,
            dtype=asked["dtype"],
            upstream=asked["upstream"] or "",
        )

    return make_plan([request(batch) for batch in asked["batches"] or (1,)], registry)


def _kept(path: Path) -> tuple[Plan, str | None, tuple[str, ...], Any]:
    from bpqp_bench.errors import ResultsError
    from bpqp_bench.results.run_directory import read_config
    from bpqp_bench.runner.plan import Plan
    from bpqp_bench.runner.schedule import Options

    config = read_config(path)
    try:
        options = Options(
            memory_limit=config["memory_limit"], reference_limit_s=config["reference_limit_s"]
        )
        suites = tuple(config.get("suites", ()))
        return Plan.from_dict(config["plan"]), config["profile"], suites, options
    except (KeyError, ValueError) as error:
        raise ResultsError(f"{path / 'config.json'} is not that of a run: {error!r}") from None


def _bytes(text: str) -> int:
    from bpqp_bench.errors import SpecError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    value = 0 if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
    if value <= 0:
        raise SpecError(f"memory limit {text!r} is not a size like 800M or 4G")
    return value
