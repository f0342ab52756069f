"""Table 1: every figure in it recomputed by hand from the measurements."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import report_samples as samples

from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.reference.solution import Reference
from bpqp_bench.report.latex import document, escape
from bpqp_bench.report.markdown import table_markdown
from bpqp_bench.report.model import Cell, Table
from bpqp_bench.report.published import published_accuracy, published_time
from bpqp_bench.report.render import write_table
from bpqp_bench.report.tables import efficiency


def cell_of(table: Table, panel: str, section: str, label: str, column: int) -> Cell:
    rows = next(p for p in table.panels if p.key == panel).rows
    return next(r for r in rows if r.section == section and r.cells[0].text == label).cells[column]


@pytest.fixture(scope="module")
def table() -> Table:
    return efficiency.render(samples.inputs(samples.sample(), "standard"))


def test_cell_is_the_median_of_its_own_calls_in_milliseconds() -> None:
    runs = [samples.measurement(seed=s, seconds=v) for s, v in enumerate([1e-3, 2e-3, 6e-3])]
    table = efficiency.render(samples.inputs(runs, "smoke"))
    call = cell_of(table, "table1-call", "QP", "BPQP", 1)
    assert call.text == "1.00"
    assert call.runs == pytest.approx((0.5, 1.0, 3.0))
    total = cell_of(table, "table1-call", "QP", "BPQP", 3)
    assert total.text == "3.00"
    more = [samples.measurement(seed=s, seconds=v) for s, v in enumerate([1e-3] * 3 + [5e-3] * 3)]
    table_of_six = efficiency.render(samples.inputs(more, "smoke"))
    cell = cell_of(table_of_six, "table1-call", "QP", "BPQP", 1)
    assert (cell.text, cell.spread) == ("1.50", "(0.500–2.50)")
    solver = cell_of(table, "table1-solver", "QP", "BPQP", 3)
    assert solver.text == "1.50"


def test_first_and_warm_up_calls_do_not_count() -> None:
    runs = [samples.measurement(seed=s, seconds=1e-3) for s in range(3)]
    runs += [samples.measurement(seed=s, seconds=9.0, role="first") for s in range(3)]
    runs += [samples.measurement(seed=s, seconds=9.0, role="warmup") for s in range(3)]
    table = efficiency.render(samples.inputs(runs, "smoke"))
    assert cell_of(table, "table1-call", "QP", "BPQP", 3).runs == pytest.approx((1.5, 1.5, 1.5))


def test_published_figures_stand_beside_and_missing_ones_are_said_to_be(table: Table) -> None:
    assert cell_of(table, "table1-call", "QP", "Exact", 1).below == "paper 4.06 ± 6.03"
    assert cell_of(table, "table1-call", "QP", "Alt-Diff", 1).below == ""
    # The paper leaves this cell empty.
    assert cell_of(table, "table1-call", "QP", "CVXPY", 3).below == ""


def test_published_lp_of_cvxpy_is_the_problem_without_smoothing() -> None:
    assert published_time("cvxpy", "lp", "total", "10x5") is None
    known = published_time("cvxpy-lp0", "lp", "total", "10x5")
    assert known is not None
    assert known.mean == pytest.approx(0.0283)
    assert published_accuracy("bpqp", "socp").mean == pytest.approx(3.03e-7)  # type: ignore[union-attr]
    assert published_time("jaxopt", "qp", "total", "10x5") is None


def test_timeout_failure_unsupported_and_not_run(table: Table) -> None:
    timeout = cell_of(table, "table1-call", "QP", "CVXPY", 3)
    assert timeout.text == ">30.0 s"
    assert timeout.notes == ("CVXPY: timeout: > 30 s in forward",)
    unsupported = cell_of(table, "table1-call", "SOCP", "Alt-Diff", 1)
    assert unsupported.text == "—"
    assert "polyhedral" in unsupported.notes[0]
    partial = cell_of(table, "table1-call", "QP", "qpth/OptNet", 1)
    assert partial.notes == ("qpth/OptNet: error (1 of 6 calls): LU of a singular matrix",)
    assert len(partial.runs) == 5
    assert cell_of(table, "table1-call", "QP", "BPQP", 4).text == "not run"
    loose = cell_of(table, "table1-call", "QP", "JAXOpt", 1)
    assert "all calls ended without convergence (iteration limit)" in loose.notes[0]


def test_median_over_finished_calls_only_is_a_lower_bound() -> None:
    runs = [samples.measurement(seed=s) for s in range(3)]
    runs.append(samples.failure("timeout", "> 30 s", seed=3))
    cell = cell_of(efficiency.render(samples.inputs(runs, "smoke")), "table1-call", "QP", "BPQP", 1)
    assert cell.text.startswith("≥ 0.500")
    assert "timeout (1 of 4 calls)" in cell.notes[0]


def test_method_that_cannot_be_split_is_marked_under_the_solver_protocol(table: Table) -> None:
    assert "cannot be split" in cell_of(table, "table1-solver", "QP", "CVXPY", 0).notes[0]
    assert not cell_of(table, "table1-call", "QP", "CVXPY", 0).notes
    assert not cell_of(table, "table1-solver", "QP", "BPQP", 0).notes


def test_ratio_to_bpqp_is_paired(table: Table) -> None:
    tidy = table.tidy.set_index(["family", "size", "pass", "method"])
    row = tidy.loc[("qp", "50x10", "total", "exact")]
    assert row["call_ratio_low"] < 8.0 < row["call_ratio_high"]
    # The drift of the instances (20 %) cancels in the pairs, so the interval is narrow.
    assert row["call_ratio_high"] - row["call_ratio_low"] < 1.5
    assert tidy.loc[("qp", "50x10", "total", "bpqp")]["call_ratio_to_bpqp"] == 1.0
    assert row["active_median"] == 1.0
    assert row["published_mean_s"] == pytest.approx(0.03337)


def test_a_wrong_gradient_is_marked_and_never_the_best() -> None:
    wrong = {"q": Accuracy(1e-3, 0.1, 1.0, 10.0)}
    gone = Reference(True, "weakly active", 1, 0.0, 1.0, 0.0)
    runs = [samples.measurement(seed=s, seconds=2e-3) for s in range(6)]
    runs += [samples.measurement("exact", seed=s, seconds=3e-3) for s in range(6)]
    runs += [samples.measurement("qpth", seed=s, seconds=1e-3, accuracy=wrong) for s in range(6)]
    runs += [samples.measurement("jaxopt", seed=s, reference=gone) for s in range(6)]
    zero = {"q": Accuracy(0.5, 1.0, 1e-30, 1e-30)}
    runs += [samples.measurement("cvxpy", seed=s, accuracy=zero) for s in range(6)]
    table = efficiency.render(samples.inputs(runs, "smoke"))
    shown = {
        label: cell_of(table, "table1-call", "QP", label, 1)
        for label in ("BPQP", "Exact", "qpth/OptNet", "JAXOpt", "CVXPY")
    }
    assert {label: cell.tone for label, cell in shown.items()} == {
        **{"BPQP": "best", "Exact": "", "qpth/OptNet": "wrong", "JAXOpt": "", "CVXPY": ""}
    }
    assert shown["qpth/OptNet"].text.endswith("✗")
    assert (shown["JAXOpt"].text[-1], shown["CVXPY"].text[-1]) == ("◇", "∅")
    row = table.tidy.set_index(["family", "size", "pass", "method"]).loc[
        ("qp", "10x5", "total", "qpth")
    ]
    assert (row["gradient"], row["gradients_right"], row["gradients_judged"]) == ("wrong", 0, 6)
    statistics = next(p for p in table.panels if p.key == "table1-statistics-qp")
    heads = [f"{c.group} {c.label}".strip() for c in statistics.columns]
    ratios = {
        row.cells[2].text: row.cells[heads.index("call ratio to BPQP")].text
        for row in statistics.rows
        if [cell.text for cell in row.cells[:2]] == ["10x5", "total"]
    }
    assert ratios["Exact"].startswith("1.50 [")
    assert ratios["qpth/OptNet"] == "n/a"


def test_a_users_own_method_gets_its_row() -> None:
    runs = [samples.measurement(seed=0), samples.measurement(seed=0, method="mine")]
    table = efficiency.render(samples.inputs(runs, "smoke"))
    assert cell_of(table, "table1-call", "QP", "mine", 1).text != "not run"


def test_what_other_tables_ask_for_is_not_in_table_1() -> None:
    runs = [samples.measurement(seed=0, method="bpqp[forward=scs]")]
    table = efficiency.render(samples.inputs(runs, "smoke", requested=("bpqp[forward=scs]",)))
    assert "bpqp[forward=scs]" not in table_markdown(table)


def test_another_batch_size_does_not_mix_in() -> None:
    runs = [samples.measurement(seed=s, seconds=1e-3) for s in range(2)]
    runs += [samples.measurement(seed=s, seconds=1.0, batch=64) for s in range(9)]
    made = samples.inputs(runs, "smoke")
    assert made.cells.left_out == 9
    assert cell_of(efficiency.render(made), "table1-call", "QP", "BPQP", 1).text == "0.500"


def test_empty_run_says_not_run_everywhere() -> None:
    table = efficiency.render(samples.inputs([], "smoke"))
    texts = {cell.text for row in table.panels[0].rows for cell in row.cells[1:]}
    assert texts == {"not run"}


def test_markdown_has_as_many_cells_in_every_line(table: Table) -> None:
    lines = [line for line in table_markdown(table).splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in lines}
    assert widths == {10, 14}
    assert "Notes\n\n1. " in table_markdown(table)


def test_latex_escapes_what_latex_would_read() -> None:
    assert escape("50 % of a_b & #1 {x} ~^ \\") == (
        r"50 \% of a\_b \& \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{}"
    )
    assert escape("1 ± 2 ≥ λ") == r"1 $\pm$ 2 $\ge$ $\lambda$"
    assert escape("点") == "[U+70B9]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX engine on this machine")
def test_latex_compiles_whatever_the_causes_say(tmp_path: Path) -> None:
    runs = samples.sample(instances=2, sizes=("10x5",))
    runs.append(
        samples.failure("error", "bad $x_1^2$ & 50 % {\\frac} 点 ε ~#\n“q”", method="dc3", seed=0)
    )
    table = efficiency.render(samples.inputs(runs, "smoke"))
    write_table(table, tmp_path)
    (tmp_path / "all.tex").write_text(document([r"\input{table1}"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_rows_and_sizes_follow_the_plan_of_the_run() -> None:
    plan = frozenset({("qp", "10x5", "bpqp"), ("qp", "10x5", "exact")})
    runs = [samples.measurement(seed=0)]
    table = efficiency.render(samples.inputs(runs, "smoke", planned=plan))
    call = next(panel for panel in table.panels if panel.key == "table1-call")
    assert [column.label for column in call.columns] == ["Method", "10x5", "10x5"]
    assert [row.cells[0].text for row in call.rows] == ["exact", "BPQP"]
    # Planned and not there: that is what "not run" is for.
    assert call.rows[0].cells[1].text == "not run"
