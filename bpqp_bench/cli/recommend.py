"""``bpqp-bench recommend``: every layer measured on a file of problems, and ranked."""

from __future__ import annotations

from pathlib import Path

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders


@click.command("recommend")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Problems: .npz with P, q, A, b, G, h (a leading dimension is a batch), or .qps.",
)
@click.option("--method", "methods", multiple=True, help="Only these (default: all installed).")
@click.option(
    "--instances", type=int, help="Calls a method (default: the file's problems, at least 5)."
)
@click.option("--batch", type=int, default=1, show_default=True, help="Problems a call.")
@click.option("--time-limit", type=float, default=10.0, show_default=True, help="Seconds a pass.")
@click.option("--budget", type=float, default=2.0, show_default=True, help="Seconds a method.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (default: new one).")
@plugin_folders
def recommend(
    data: Path,
    methods: tuple[str, ...],
    instances: int | None,
    batch: int,
    time_limit: float,
    budget: float,
    out: Path | None,
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
) -> None:
    """Measure every layer on your own problems and say which to take.

    Times are of a forward and a backward pass, with the gradient of q, on this machine.
    """
    from bpqp_bench.cli.output import overview_table, say
    from bpqp_bench.cli.progress import show_time_left
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.runner.own_data import measure_layers, plan_layers

    registry = Registry(methods_dirs, problems_dirs)
    plan = plan_layers(data, registry, methods, instances, time_limit, budget, batch)
    path = out or new_run_path()
    with show_time_left() as time_left:
        rows = measure_layers(plan, path, registry, (methods_dirs, problems_dirs), time_left)
    overview_table(rows)
    right = [row for row in rows if row.right and row.total_s is not None]
    if not right:
        say(f"no layer gives a right gradient here; run {path}")
        raise click.exceptions.Exit(1)
    best, *others = right
    best_s = best.total_s or 0.0
    names = [name for name in registry.method_names() if registry.method(name).key == best.method]
    name = names[0] if names else best.method
    say(f"\nfastest right layer here: {best.label} (--method {name}), {1e3 * best_s:.3g} ms")
    if others and best_s:
        times = (others[0].total_s or 0.0) / best_s
        say(f"the next, {others[0].label}, takes {times:.2g} times as long")
    say(f"run {path}")
