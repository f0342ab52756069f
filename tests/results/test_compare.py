"""Comparing two runs: what counts as a change, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import report_samples as samples
from click.testing import CliRunner

from bpqp_bench.cli.report import compare
from bpqp_bench.errors import ResultsError
from bpqp_bench.results.cells import Cells
from bpqp_bench.results.compare import agreement, compare_runs, different_machines
from bpqp_bench.results.measurement import MEASUREMENT, Measurement

HERE = {"cpu": "X", "cores": 2, "physical_cores": 2, "memory": 2**34, "threads": 1}


def run_of(
    factor: float = 1.0, noise: float = 0.02, seed: int = 0, n: int = 20
) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    return [
        samples.measurement(method=method, seed=i, seconds=base * factor * rng.lognormal(0, noise))
        for i in range(n)
        for method, base in (("bpqp", 1e-3), ("exact", 5e-3))
    ]


def cells(runs: list[Measurement]) -> Cells:
    return Cells(samples.to_frame(runs))


def test_change_is_found_paired_and_in_the_right_direction() -> None:
    changes = compare_runs(cells(run_of()), cells(run_of(1.3, seed=1)))
    assert {change.verdict for change in changes} == {"slower"}
    assert len(changes) == 2 * 3 * 2  # methods × passes × protocols
    for change in changes:
        assert change.ratio is not None
        assert change.ratio.low < 1.3 < change.ratio.high
    back = compare_runs(cells(run_of(1.3, seed=1)), cells(run_of()))
    assert {change.verdict for change in back} == {"faster"}


def test_noise_is_not_a_change() -> None:
    changes = compare_runs(cells(run_of()), cells(run_of(1.02, noise=0.001, seed=1)))
    # The intervals lie above 1, but two per cent is what another run of the same code gives.
    assert all(change.ratio is not None and change.ratio.low > 1 for change in changes)
    assert {change.verdict for change in changes} == {"unchanged"}
    strict = compare_runs(cells(run_of()), cells(run_of(1.02, noise=0.001, seed=1)), noise=0.0)
    assert "slower" in {change.verdict for change in strict}


def test_one_instance_is_too_few() -> None:
    changes = compare_runs(cells(run_of(n=1)), cells(run_of(3.0, n=1)))
    assert {change.verdict for change in changes} == {"unclear"}


def test_outcomes_that_differ_and_cells_of_one_run() -> None:
    a = [*run_of(n=3), samples.measurement(method="qpth")]
    broken = samples.failure("error", "no", method="exact", role="first")
    b = [*(r for r in run_of(n=3) if r.method == "bpqp"), broken]
    found = {change.method: change for change in compare_runs(cells(a), cells(b))}
    assert (found["exact"].verdict, found["exact"].detail) == (
        "outcome changed",
        "measured in A, failed in B",
    )
    assert found["qpth"].verdict == "only one run"
    assert found["exact"].notable


def test_agreement_of_paired_ratios() -> None:
    same = agreement(cells(run_of()), cells(run_of(2.0, seed=1)), "bpqp", ("qp",))
    # Twice as slow a machine, the same ratios: backward and total, two protocols, one method.
    assert (same.cells, same.overlapping) == (4, 4)
    other = [r for r in run_of(seed=2) if r.method == "bpqp"]
    other += [r for r in run_of(2.0, seed=2) if r.method == "exact"]
    assert agreement(cells(run_of()), cells(other), "bpqp", ("qp",)).overlapping == 0


def test_machines() -> None:
    assert different_machines(HERE, dict(HERE)) == []
    assert different_machines(HERE, HERE | {"memory": 2**34 - 10_000}) == []
    assert different_machines(HERE, HERE | {"cpu": "Y"}) == [
        "cpu is 'X' in one and 'Y' in the other"
    ]
    assert different_machines(HERE, {}) != []
    assert different_machines({}, {}) == ["neither run says what machine it ran on"]


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    for name, cpu, factor in (("a", "X", 1.0), ("b", "Y", 1.5)):
        folder = tmp_path / name
        folder.mkdir()
        lines = [MEASUREMENT.encode(made).decode() for made in run_of(factor)]
        (folder / "measurements.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "environment.json").write_text(json.dumps(HERE | {"cpu": cpu}))
        (folder / "config.json").write_text("{}")
    return tmp_path / "a", tmp_path / "b"


def test_command_refuses_other_machines_unless_told_to(two_runs: tuple[Path, Path]) -> None:
    a, b = (str(path) for path in two_runs)
    refused = CliRunner().invoke(compare, [a, b])
    assert isinstance(refused.exception, ResultsError)
    assert "--across-machines" in str(refused.exception)
    csv = str(two_runs[0] / "changes.csv")
    done = CliRunner().invoke(compare, [a, b, "--across-machines", "--csv", csv])
    assert done.exit_code == 0, done.output
    assert "12 of 12 entries changed by more than noise" in done.stdout
    assert "intervals overlap in 4 of 4 entries" in done.stdout
    assert "different machines: cpu is 'X' in one and 'Y' in the other" in done.stderr
    assert Path(csv).read_text().count("\n") == 13
