"""``bpqp-bench regress``: compare two checkouts; fail on a regression and not on noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bpqp_bench.statistics import Ratio


@click.command("regress")
@click.argument("base")
@click.argument("head", default=".")
@click.option("--method", "methods", multiple=True, help="Method to compare; may be repeated.")
@click.option("--family", "families", multiple=True, help="Family; may be repeated.")
@click.option("--size", "sizes", multiple=True, help="Size; may be repeated.")
@click.option("--instances", default=12, show_default=True, help="Pairs per cell and round.")
@click.option(
    "--repeats", default=2, show_default=True, help="Calls per pair; the shortest counts."
)
@click.option("--rounds", default=3, show_default=True, help="Fresh pairs of processes.")
@click.option("--threshold", default=0.10, show_default=True, help="Tolerated slowdown.")
def regress(
    base: str,
    head: str,
    methods: tuple[str, ...],
    families: tuple[str, ...],
    sizes: tuple[str, ...],
    instances: int,
    repeats: int,
    rounds: int,
    threshold: float,
) -> None:
    """Compare HEAD (default: this checkout) with BASE, each a folder or a git revision.

    Exit status 1 if a pass is slower by more than the threshold with its whole interval, twice in
    a row, or if a solution or a gradient got less accurate.
    """
    from bpqp_bench.cli.output import table
    from bpqp_bench.tracking.checkouts import checkout
    from bpqp_bench.tracking.regression import RegressionConfig, alarms, check_regression

    default = RegressionConfig()
    config = RegressionConfig(
        methods=methods or default.methods,
        families=families or default.families,
        sizes=sizes or default.sizes,
        instances=instances,
        repeats=repeats,
        rounds=rounds,
        threshold=threshold,
    )
    here = Path.cwd()
    with checkout(base, here) as base_folder, checkout(head, here) as head_folder:
        verdicts = check_regression(base_folder, head_folder, config)
    table(
        ("cell", "forward head/base", "backward head/base", "error base", "error head"),
        [
            (
                f"{verdict.method} {verdict.family} {verdict.size}"
                + (" (measured twice)" if verdict.remeasured else ""),
                _show(verdict.forward),
                _show(verdict.backward),
                f"{verdict.base_error:.1e}",
                f"{verdict.head_error:.1e}",
            )
            for verdict in verdicts
        ],
    )
    found = alarms(verdicts)
    for line in found:
        click.echo(f"REGRESSION {line}")
    if found:
        raise click.exceptions.Exit(1)
    click.echo(f"no regression in {len(verdicts)} cells")


def _show(ratio: Ratio | None) -> str:
    return "–" if ratio is None else f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
