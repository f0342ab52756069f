"""The survey: its tables of batches and of today's layers, and which run shows which tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from bpqp_bench import Registry
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.report.figures import FIGURES
from bpqp_bench.report.figures import batches as batches_figure
from bpqp_bench.report.figures import layers_today as layers_figure
from bpqp_bench.report.inputs import Inputs, Names
from bpqp_bench.report.model import Cell, Drawing, Panel
from bpqp_bench.report.tables import (
    TABLES,
    all_requests,
    batches,
    layers_today,
    render_tables,
    requested_methods,
)
from bpqp_bench.results.cells import Cells, settings
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.merge import merge_runs
from bpqp_bench.runner.plan import make_plan
from bpqp_bench.runner.profiles import PROFILES, profile

WRONG = {"q": Accuracy(1e-3, 0.1, 0.1, 1.0)}
SURVEY = {"suites": ["survey"]}
REGISTRY = Registry()


def made(*runs: Measurement, **more: Any) -> Inputs:
    frame = samples.to_frame(runs)
    every = tuple(Cells(frame, setting) for setting in settings(frame))
    return Inputs(cells=Cells(frame), names=Names(REGISTRY), settings=every, config=SURVEY, **more)


def call(method: str, batch: int, ms: float, seed: int = 0, **changes: Any) -> Measurement:
    """A call on a batch of QPs, ``ms`` for one of them; a third of it is the backward pass."""
    key = REGISTRY.method(method).key
    found = samples.measurement(
        key, "qp-active", "10x5", seed, 1e-3 * ms * batch / 1.5, batch=batch, label=method
    )
    return replace(found, key=f"{found.key} {batch}", problem_class="qp", **changes)


def drawn(drawing: Drawing) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = drawing.spec["data"]["values"]
    return found


def row(panel: Panel, label: str) -> dict[str, Cell]:
    heads = [f"{column.group} {column.label}".strip() for column in panel.columns]
    (found,) = [row for row in panel.rows if row.cells[0].text == label]
    return dict(zip(heads, found.cells, strict=True))


RUNS = (
    *(call("qplayer", batch, 3.0) for batch in (1, 8)),
    *(call("bpqp", batch, 6.0 / batch) for batch in (1, 8)),
    *(call("qpax-defaults", batch, 0.1, accuracy=WRONG) for batch in (1, 8)),
)


def test_times_of_a_batch_are_those_of_one_instance_and_wrong_ones_are_marked() -> None:
    inputs = made(*RUNS)
    (panel,) = batches.render(inputs).panels
    total = "Total, by batch (ms)"
    assert row(panel, "bpqp")[f"{total} 1"].text == "6.00"
    assert row(panel, "bpqp")[f"{total} 8"].text == "0.750"
    assert row(panel, "bpqp")["Backward, by batch (ms) 8"].sort == pytest.approx(0.25)
    assert row(panel, "bpqp")["batch"].text == "one call"
    assert row(panel, "qpax-defaults")[f"{total} 8"].text == "0.100 ✗"
    best = {
        label
        for label in ("bpqp", "qplayer", "qpax-defaults")
        if row(panel, label)[f"{total} 1"].tone == "best"
    }
    assert best == {"qplayer"}, "the fastest one that is right"


def test_a_row_is_there_for_a_method_that_no_table_asks_for_and_not_for_anothers() -> None:
    inputs = made(*RUNS, requested=("qpax-defaults",))
    labels = [row.cells[0].text for row in batches.render(inputs).panels[0].rows]
    assert labels == ["bpqp", "qplayer"]


def test_layers_of_today_say_what_they_cost_and_why_they_are_missing() -> None:
    away = samples.failure(
        "unavailable",
        "No module named 'diffqcp'",
        method="diffqcp",
        family="qp-active",
        label="diffqcp",
        role="first",
    )
    late = call("qplayer", 1, 3.0, 1, build_s=2.5, peak_memory=300 * 2**20)
    table = layers_today.render(made(*RUNS, late, away))
    totals, passes = table.panels
    assert passes.long
    found = row(totals, "qplayer")
    assert found["build (s)"].text == "2.50"
    assert found["memory"].text == "300 MiB"
    assert (found["batch"].text, found["devices"].text) == ("one call", "cpu")
    missing = row(totals, "diffqcp")["Total, batch of 1 (ms) 10x5"]
    assert missing.text == "unavailable"
    assert "No module named 'diffqcp'" in missing.notes[0]
    sections = {one.section for one in passes.rows}
    assert sections == {"10x5, batch of 1", "10x5, batch of 8"}
    assert set(table.tidy["batch"]) == {1, 8}
    assert table.tidy.set_index(["method", "batch"])["total_s"]["qplayer", 8] == pytest.approx(3e-3)


def test_a_method_with_one_size_of_batch_is_not_among_the_batches() -> None:
    (panel,) = batches.render(made(*RUNS, call("qpth", 8, 1.0))).panels
    assert [one.cells[0].text for one in panel.rows] == ["bpqp", "qplayer", "qpax-defaults"]


def test_figures_draw_what_has_a_time() -> None:
    inputs = made(*RUNS)
    (one,) = batches_figure.FIGURE.draw(inputs)
    values = drawn(one)
    assert {value["column"] for value in values} == {"forward", "backward", "total"}
    assert {value["gradient"] for value in values if value["label"] == "bpqp"} == {"right"}
    (two,) = layers_figure.FIGURE.draw(inputs)
    assert {value["row"] for value in drawn(two)} == {"batch of 1", "batch of 8"}
    nothing = made(samples.measurement())
    assert [module.draw(nothing) for module in FIGURES if module.suite == "survey"] == [()] * 4


def test_a_survey_has_its_own_tables_and_a_run_of_ones_own_those_with_something() -> None:
    survey = {table.key for table in render_tables(made(*RUNS))}
    assert survey == {module.key for module in TABLES if module.suite == "survey"}
    own = {table.key for table in render_tables(replace(made(*RUNS), config={}))}
    assert {"table1", "table7", "batches"} <= own
    assert "table8" not in own
    paper = render_tables(replace(made(*RUNS), config={"suites": ["reproduce"]}))
    assert not survey & {table.key for table in paper}
    assert "qplayer" in requested_methods(["survey"])
    assert "qplayer" not in requested_methods()


@pytest.mark.parametrize("name", [one.name for one in PROFILES])
def test_a_survey_measures_what_its_tables_show(name: str) -> None:
    plan = make_plan(all_requests(profile(name), "survey"), REGISTRY)
    blocks = {(block.family, block.size, block.batch): block for block in plan.blocks}
    assert {"qp-active", "lp", "socp"} <= {family for family, _, _ in blocks}
    assert {batch for family, _, batch in blocks if family == "socp"} == (
        {1} if name == "smoke" else {1, 64}
    )
    batches_of = {batch for family, _, batch in blocks if family == "qp-active"}
    assert batches_of == ({1, 8} if name == "smoke" else {1, 8, 64, 256})
    today = {cell.method for cell in blocks["qp-active", "10x5", 1].cells}
    assert set(REGISTRY.group("modern")) <= {
        text for text in REGISTRY.method_names() if REGISTRY.method(text).key in today
    }


def test_a_paper_run_and_a_survey_merge_to_one_page(tmp_path: Path) -> None:
    from bpqp_bench.report.render import read_run
    from bpqp_bench.results.run_directory import RunDirectory, read_config

    for name in ("reproduce", "survey"):
        config = {"code": "c", "suites": [name], "plan": {"blocks": []}, "profile": "smoke"}
        machine = {"cpu": "Imaginary", "cores": 2, "memory": 2**34, "threads": 1}
        with RunDirectory.create(tmp_path / name, config, machine) as directory:
            for one in RUNS if name == "survey" else [samples.measurement()]:
                directory.append(one)
    merge_runs([tmp_path / "reproduce", tmp_path / "survey"], tmp_path / "both")
    assert read_config(tmp_path / "both")["suites"] == ["reproduce", "survey"]
    keys = [table.key for table in render_tables(read_run(tmp_path / "both", REGISTRY))]
    assert keys == [module.key for module in TABLES]
