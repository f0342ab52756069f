"""``bpqp-bench portfolio``: the end-to-end portfolio experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bpqp_bench.cli.options import new_run_path, plugin_folders

if TYPE_CHECKING:
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.tasks.portfolio.config import Data

__all__ = ["portfolio"]


@click.command("portfolio")
@click.option(
    "--data",
    type=click.Choice(["synthetic", "sp500", "qlib"]),
    default="synthetic",
    show_default=True,
    help="Market: drawn here; 20 companies from the package skfolio; the paper's, by Qlib.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run directory, new or one to go on with (default: a new one).",
)
@click.option("--method", "methods", multiple=True, help="Method; may be repeated.")
@click.option("--assets", type=int, help="Assets of the synthetic market; else at most so many.")
@click.option("--seeds", type=int, help="Repetitions.")
@click.option("--epochs", type=int, help="At most so many epochs.")
@click.option("--train-days", type=int, help="Training days; 0: all that the data have.")
@click.option("--valid-days", type=int, help="Validation days.")
@click.option("--test-days", type=int, help="Test days.")
@click.option("--gamma", type=float, help="Risk aversion.")
@click.option("--beta", type=float, help="Weight of regret² beside the prediction error.")
@click.option("--lr", type=float, help="Learning rate of Adam.")
@click.option("--hidden", type=int, help="Width of the two hidden layers.")
@click.option("--patience", type=int, help="Epochs without a better IC before training stops.")
@click.option(
    "--label",
    type=click.Choice(["demeaned", "zscore"]),
    help="What predictions are compared with.",
)
@click.option("--dc3-samples", type=int, help="Training set of DC3's network.")
@click.option("--dc3-epochs", type=int, help="Epochs of DC3's network.")
@click.option("--gradient-days", type=int, help="Days on which gradients are checked.")
@click.option("--speed-assets", type=int, multiple=True, help="Time training steps at this size.")
@click.option("--speed-days", type=int, help="Days on which they are timed.")
@click.option(
    "--speed-method", "speed_methods", multiple=True, help="Methods to time (default: all run)."
)
@click.option("--budget", "budget_s", type=float, help="Seconds for one training.")
@click.option("--threads", type=int, help="Threads of BLAS and torch.")
@click.option("--data-seed", type=int, help="Seed of the synthetic market.")
@click.option("--qlib-dir", help="Local data directory of Qlib.")
@click.option("--qlib-market", help="Qlib's set of instruments.")
@plugin_folders
def portfolio(
    data: Data,
    out: Path | None,
    methods: tuple[str, ...],
    methods_dirs: tuple[Path, ...],
    problems_dirs: tuple[Path, ...],
    **given: Any,
) -> None:
    """Train and judge: two-stage against learning through the optimization (tables 4 and 6).

    What a run directory already holds is not run again; an interrupted training goes on with its
    next epoch. Results of several markets may share a run directory.
    """
    from dataclasses import fields, replace

    from bpqp_bench.cli.progress import show_time_left
    from bpqp_bench.plugins.registry import Registry
    from bpqp_bench.tasks.portfolio.config import PortfolioConfig
    from bpqp_bench.tasks.portfolio.experiment import run_portfolio
    from bpqp_bench.tasks.portfolio.train import LearningSettings

    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    learning_names = {field.name for field in fields(LearningSettings)}
    learning = LearningSettings(**{k: v for k, v in chosen.items() if k in learning_names})
    rest = {k: v for k, v in chosen.items() if k not in learning_names}
    # Real data: everything there is, unless told otherwise.
    defaults = PortfolioConfig()
    if data != "synthetic":
        defaults = replace(defaults, assets=0, train_days=0, valid_days=0, test_days=0)
    config = replace(defaults, learning=learning, **(rest | {"data": data}))
    if methods:
        config = replace(config, methods=methods)
    registry = Registry(methods_dirs, problems_dirs)
    target = out or new_run_path()
    with show_time_left() as time_left:
        results = run_portfolio(config, target, time_left, registry)
    for path in render_portfolio(target, registry):
        if path.suffix == ".md":
            click.echo(path.read_text(encoding="utf-8"))
    click.echo(f"results in {target / 'portfolio'}, tables and figures in {target / 'report'}")
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        click.echo(f"{result.label}, seed {result.seed}: {result.cause}", err=True)


def render_portfolio(run: Path, registry: Registry) -> list[Path]:
    """Write the portfolio's tables and figures of a run to its folder ``report``."""
    import matplotlib

    from bpqp_bench.report.figures._style import RC
    from bpqp_bench.report.figures.portfolio import FIGURE
    from bpqp_bench.report.inputs import Inputs, Names
    from bpqp_bench.report.render import save_drawings, write_table
    from bpqp_bench.report.tables.portfolio import TABLE
    from bpqp_bench.report.tables.portfolio_dc3 import TABLE as DC3_TABLE
    from bpqp_bench.results.cells import Cells
    from bpqp_bench.results.run_directory import to_frame

    inputs = Inputs(cells=Cells(to_frame([])), names=Names(registry), run_dir=run)
    out = run / "report"
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for table in (TABLE, DC3_TABLE):
        written += write_table(table.render(inputs), out)
    with matplotlib.rc_context(RC):
        drawings = FIGURE.draw(inputs)
    return written + save_drawings(drawings, out)
