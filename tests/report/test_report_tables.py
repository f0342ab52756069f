"""Tables 2, 3, 5, solver pairs and scaling, and the rendering of a whole run directory."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import report_samples as samples
from click.testing import CliRunner

from bpqp_bench.cli.report import export, report
from bpqp_bench.errors import ResultsError, SpecError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.report.figures import profiles
from bpqp_bench.report.inputs import Inputs, Names
from bpqp_bench.report.model import Cell, Panel, Table
from bpqp_bench.report.tables import (
    TABLES,
    accuracy,
    all_requests,
    dc3,
    large_scale,
    scaling,
    solvers,
)
from bpqp_bench.results.cells import Cells
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import to_frame
from bpqp_bench.runner.plan import make_plan
from bpqp_bench.runner.profiles import PROFILES, profile


def find(panel: Panel, label: str, column: int, section: str | None = None) -> Cell:
    for row in panel.rows:
        if row.cells[0].text == label and section in (None, row.section):
            return row.cells[column]
    raise AssertionError(f"{label} is not in {panel.key}")


def panel(table: Table, key: str) -> Panel:
    return next(panel for panel in table.panels if panel.key == key)


@pytest.mark.parametrize("name", [p.name for p in PROFILES])
def test_every_request_names_plugins_that_exist(name: str) -> None:
    registry = Registry()
    for module in TABLES:
        for request in module.requests(profile(name)):
            for method in request.methods:
                registry.method(method)
            for family in request.families:
                registry.family(family)


def test_large_scale_has_memory_beside_the_time_and_only_large_sizes() -> None:
    runs = [samples.measurement(size="500x200", seed=s, seconds=2.0) for s in range(2)]
    runs += [samples.measurement(size="10x5", seed=s) for s in range(2)]
    out = "peak 3.1 GiB over the limit of 3.0 GiB"
    runs.append(
        samples.failure("out-of-memory", out, method="exact", size="1500x500", role="first")
    )
    table = large_scale.render(samples.inputs(runs, "smoke"))
    call = panel(table, "table2-call")
    assert [column.label for column in call.columns[1:]] == ["500x200", "1500x500"] * 2
    assert (find(call, "BPQP", 3).text, find(call, "BPQP", 3).below) == ("3.00", "200 MiB")
    assert find(call, "Exact", 4).text == "failed"
    assert find(call, "Exact", 4).notes == (f"Exact: out-of-memory: {out}",)


def test_degenerate_instances_are_counted_apart() -> None:
    runs: list[Measurement] = []
    for seed, (distance, degenerate) in enumerate([(1e-14, False), (3e-14, False), (0.5, True)]):
        runs.append(
            samples.measurement(
                seed=seed,
                accuracy={"q": Accuracy(distance, 1e-7, 2e-6, 20.0)},
                reference=Reference(degenerate, "margin", 1, 0.0, 1.0, 0.0),
            )
        )
    table = accuracy.render(samples.inputs(runs, "smoke"))
    cosine = panel(table, "table3-cosine")
    assert find(cosine, "BPQP", 1, "QP").text == "2.0e−14 (3.0e−14)"
    assert find(cosine, "BPQP", 3, "QP").text.startswith("2.0e−06")
    assert find(cosine, "BPQP", 4, "QP").text == "1.2e−04 ± 7.1e−04"
    every = panel(table, "table3-statistics").rows[0].cells
    heads = [f"{c.group} {c.label}".strip() for c in panel(table, "table3-statistics").columns]
    shown = dict(zip(heads, (cell.text for cell in every), strict=True))
    assert shown["n"] == "2"
    assert shown["degenerate count"] == "1"
    assert shown["degenerate 1 − cos"] == "5.0e−01"


def test_all_instances_degenerate_is_said_and_not_averaged() -> None:
    gone = Reference(True, "weakly active", 1, 0.0, 1.0, 0.0)
    runs = [samples.measurement(seed=s, reference=gone) for s in range(2)]
    table = accuracy.render(samples.inputs(runs, "smoke"))
    cell = find(panel(table, "table3-cosine"), "BPQP", 1, "QP")
    assert cell.text == "n/a"
    assert cell.notes == ("BPQP: all 2 instances are degenerate",)


def test_accuracy_is_judged_on_twenty_instances_at_every_size_of_table_1() -> None:
    registry = Registry()
    standard = profile("standard")
    plan = make_plan(all_requests(standard), registry)
    cells = {
        (block.family, block.size, cell.method): cell
        for block in plan.blocks
        for cell in block.cells
    }
    families = ("qp", "lp", "socp", "socp-robust", "qp-active[active_share=0.1]", "qp-active")
    classes = {"exact", "exact-solve", "cvxpy", "qpth", "altdiff", "jaxopt", "bpqp", "bpqp-direct"}
    for family, size, name in itertools.product(families, standard.sizes, classes):
        key = (registry.family(family).key, size, registry.method(name).key)
        assert len(cells[key].seeds) == 20, key
        assert cells[key].cell_budget_s == standard.accuracy_budget_s, key
    learned = [key for key in cells if key[2].startswith("dc3")]
    assert {(family, size) for family, size, _ in learned} == set(
        itertools.product(("qp[fixed=true]", "lp[fixed=true]"), standard.sizes)
    )


def test_a_method_that_learns_stands_in_the_accuracy_table() -> None:
    key = "dc3[epochs=10,samples=200]"
    runs = [
        samples.measurement(
            method=key,
            family="qp[fixed=true]",
            seed=s,
            accuracy={"q": Accuracy(0.25, 1e-1, 2e-1, 20.0)},
        )
        for s in range(2)
    ]
    table = accuracy.render(samples.inputs(runs, "smoke"))
    row = next(r for r in panel(table, "table3-cosine").rows if r.section == "QP, fixed data")
    assert row.cells[1].text == "2.5e−01 (2.5e−01)"


def test_missing_multipliers_show_as_not_available() -> None:
    runs = [samples.measurement(dual_residual=float("inf"), complementarity=None)]
    table = accuracy.render(samples.inputs(runs, "smoke"))
    heads = [column.label for column in panel(table, "table3-statistics").columns]
    row = panel(table, "table3-statistics").rows[0].cells
    assert row[heads.index("dual")].text == "n/a"
    assert row[heads.index("compl.")].text == "n/a"
    assert row[heads.index("primal")].text == "1.0e−09"


def test_solver_pairs_are_found_under_their_canonical_names() -> None:
    registry = Registry()
    key = registry.method(solvers.pair("osqp", "direct")).key
    runs = [samples.measurement(method=key, size="10x5", seed=s, seconds=1e-3) for s in range(3)]
    from bpqp_bench.report.inputs import Inputs, Names

    made = Inputs(Cells(samples.to_frame(runs)), Names(registry), profile("smoke"))
    table = solvers.render(made)
    grid = panel(table, "solvers-qp-10x5")
    column = [column.label for column in grid.columns].index("direct")
    assert find(grid, "osqp", column).text == "1.50"
    assert find(grid, "osqp", column).below == "1.0e−12"


def test_dc3_table_has_training_violation_and_slope() -> None:
    runs: list[Measurement] = []
    trained = "dc3[epochs=50,samples=1000]"
    for size, seed in itertools.product(("10x5", "100x20", "1000x200"), range(3)):
        n = int(size.split("x")[0])
        runs.append(
            samples.measurement(
                method=trained,
                label="DC3",
                family="qp[fixed=true]",
                size=size,
                seed=seed,
                seconds=1e-5 * n,
                build_s=12.0,
                primal_residual=3e-4,
            )
        )
    table = dc3.render(samples.inputs(runs, "standard"))
    slopes = panel(table, "table5-slopes")
    assert find(slopes, "DC3", 3, "QP, fixed data").text.startswith("1.00 [1.00")
    quality = panel(table, "table5-quality")
    row = next(row for row in quality.rows if row.cells[1].text == "DC3")
    assert (row.cells[2].text, row.cells[3].text) == ("12.0", "3.0e−04")


def test_dc3_table_gives_the_training_and_not_the_reading_of_a_cached_network() -> None:
    runs = [
        samples.measurement(
            method="dc3[epochs=50,samples=1000]",
            label="DC3",
            family="qp[fixed=true]",
            seed=seed,
            build_s=0.02,
            info={"training": {"seconds": 34.5, "cached": True}},
        )
        for seed in range(3)
    ]
    made = Inputs(Cells(to_frame(runs)), Names(None), profile("standard"))
    quality = panel(dc3.render(made), "table5-quality")
    row = next(row for row in quality.rows if row.cells[1].text == "DC3")
    assert row.cells[2].text == "34.5"


def test_scaling_warns_where_two_sizes_prove_nothing() -> None:
    runs = [
        samples.measurement(size=size, seed=seed, seconds=1e-6 * int(size.split("x")[0]) ** 2)
        for size in ("10x5", "50x10")
        for seed in range(3)
    ]
    table = scaling.render(samples.inputs(runs, "smoke"))
    cell = find(table.panels[0], "BPQP", 1, "QP")
    assert cell.sort == pytest.approx(2.0)
    assert "no evidence" in cell.notes[0]
    assert find(table.panels[0], "exact", 1, "QP").text == "n/a"


@pytest.mark.parametrize("module", TABLES, ids=lambda module: module.key)
def test_no_table_fails_on_a_run_that_has_nothing_of_it(module: object, tmp_path: Path) -> None:
    for runs in ([], [samples.failure("crash", "signal 11", method="mine", family="other")]):
        for plan in (None, "smoke"):
            table = module.render(samples.inputs(runs, plan))  # type: ignore[attr-defined]
            for one in table.panels:
                assert all(len(row.cells) == len(one.columns) for row in one.rows)


def test_tidy_frame_of_the_runner_is_read() -> None:
    runs = samples.sample(instances=2, sizes=("10x5",))
    one, two = Cells(to_frame(runs)), Cells(samples.to_frame(runs))
    for family, method in itertools.product(("qp", "lp", "socp"), samples.SPEEDS):
        key = (family, "10x5", method)
        assert one.outcome(*key) == two.outcome(*key)
        assert one.times(*key, "total", "call").equals(two.times(*key, "total", "call"))
    assert Cells(to_frame([])).families() == []


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX engine on this machine")
def test_all_tables_compile_together(tmp_path: Path) -> None:
    from bpqp_bench.report.latex import document, table_latex

    made = samples.inputs(samples.sample(instances=2, sizes=("10x5",)), "smoke")
    source = document(table_latex(module.render(made)) for module in TABLES)
    (tmp_path / "tables.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_texts_that_a_spreadsheet_would_run_are_inert() -> None:
    import pandas as pd

    from bpqp_bench.results.export import inert

    texts = ["=1+1", "+1", "-2.5", "@x", "-x", "plain", "\t=1"]
    made = inert(pd.DataFrame({"a": texts, "n": [-1.0] * len(texts)}))
    assert list(made["a"]) == ["'=1+1", "+1", "-2.5", "'@x", "'-x", "plain", "'\t=1"]
    assert list(made["n"]) == [-1.0] * len(texts)


def test_markdown_of_what_results_say_is_text() -> None:
    from bpqp_bench.report.markdown import plain

    said = "<img src=x> [a](b) `c` **d** | e\n# f & g"
    assert plain(said) == (r"&lt;img src=x&gt; \[a\](b) \`c\` \*\*d\*\* \| e \# f &amp; g")


def test_command_export(tmp_path: Path) -> None:
    import pandas as pd

    runs = samples.sample(("qp",), ("10x5",), 2)
    run = samples.write_run(tmp_path / "run", runs)
    for ending, read in ((".parquet", pd.read_parquet), (".csv", pd.read_csv)):
        target = tmp_path / f"all{ending}"
        done = CliRunner().invoke(export, [str(run), str(target)])
        assert done.output == f"{len(runs)} measurements in {target}\n"
        frame = read(target)
        assert len(frame) == len(runs)
        assert frame["forward.call"].dropna().gt(0).all()
        assert json.loads(frame["wrt"].iloc[0]) == ["q"]
    refused = CliRunner().invoke(export, [str(run), "x.xls"])
    assert isinstance(refused.exception, SpecError)
    assert str(refused.exception) == "x.xls ends neither in .parquet nor in .csv"


def test_command_report_on_what_is_no_run(tmp_path: Path) -> None:
    refused = CliRunner().invoke(report, [str(tmp_path / "nowhere")])
    assert isinstance(refused.exception, ResultsError)
    assert "not a run directory" in str(refused.exception)


def test_a_variant_that_poses_another_problem_does_not_empty_the_profile():
    own = [samples.measurement("bpqp", "lp", seed=seed) for seed in range(3)]
    nothing = Reference(True, "not unique", 3, 0.0, float("inf"), 0.0)
    other = [
        samples.measurement("cvxpy", "lp", seed=seed, posed="another", reference=nothing)
        for seed in range(3)
    ]
    for accurate in (False, True):
        times = profiles._times(samples.inputs([*own, *other]), "lp", accurate)
        assert list(times.columns) == ["bpqp"]
        assert times["bpqp"].notna().sum() == 3
