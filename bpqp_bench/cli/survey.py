"""``bpqp-bench survey``: measure what the tables on today's layers need, then render them."""

from __future__ import annotations

from typing import Any

import click

from bpqp_bench.cli.reproduce import run_suite, suite_options


@click.command("survey")
@suite_options
def survey(**options: Any) -> None:
    """Measure today's layers: by size, by batch, on real problems, by tolerance.

    A library that is not installed is a row with its reason. Exit status 1 if something asked for
    could not be done; a method that times out or fails is a result and not a failure.
    """
    run_suite("survey", [], **options)
