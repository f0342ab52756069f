"""The committed reference run, and that README and docs show nothing else."""

import gzip
import json
import re
from pathlib import Path

import pytest
from places import REFERENCE, ROOT
from report_samples import full_sample, write_run

from bpqp_bench.errors import ResultsError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.report.claims import judge_claims
from bpqp_bench.report.documents import BEGIN, END, document_sections, replace_section
from bpqp_bench.report.markdown import table_markdown
from bpqp_bench.report.page import page
from bpqp_bench.report.publish import compress, publish_reference
from bpqp_bench.report.render import draw_figures, read_run
from bpqp_bench.report.tables import render_tables


def _run(directory, dirty=False):
    run = write_run(directory, full_sample())
    environment = run / "environment.json"
    content = json.loads(environment.read_text()) | {"git_commit": "0" * 40, "git_dirty": dirty}
    environment.write_text(json.dumps(content))
    (run / "summary.json").write_text("{}")
    return run


@pytest.fixture(scope="module")
def inputs():
    return read_run(REFERENCE, Registry())


@pytest.fixture(scope="module")
def tables(inputs):
    return render_tables(inputs)


@pytest.mark.slow
def test_readme_and_docs_show_the_reference_run(inputs, tables):
    sections = document_sections(inputs, tables)
    assert set(sections) == {Path("README.md"), Path("docs", "results.md")}
    for path, section in sections.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert replace_section(text, section) == text, path


@pytest.mark.slow
def test_stored_tables_are_those_of_the_stored_measurements(tables):
    for table in tables:
        stored = (REFERENCE / "report" / f"{table.key}.md").read_text(encoding="utf-8")
        assert table_markdown(table) == stored, table.key


@pytest.mark.slow
def test_its_page_is_no_more_than_six_megabytes(inputs, tables):
    found = page(inputs, tables, draw_figures(inputs), judge_claims(inputs), REFERENCE / "report")
    assert len(found.encode()) < 6_000_000


def test_reference_run_is_a_standard_run_of_committed_code():
    config = json.loads((REFERENCE / "config.json").read_text())
    environment = json.loads((REFERENCE / "environment.json").read_text())
    assert config["profile"] == "standard"
    assert re.fullmatch("[0-9a-f]{40}", environment["git_commit"])
    assert environment["git_dirty"] is False


@pytest.mark.slow
def test_publishing_keeps_the_measurements_and_replaces_the_old_reference(tmp_path):
    run = _run(tmp_path / "run")
    target = tmp_path / "reference"
    target.mkdir()
    (target / "stale.txt").write_text("old")
    publish_reference(run, target)
    kept = (target / "measurements.jsonl.gz").read_bytes()
    assert gzip.decompress(kept) == (run / "measurements.jsonl").read_bytes()
    assert not (target / "stale.txt").exists()
    assert (target / "report" / "table1.md").is_file()


def test_the_same_measurements_compress_to_the_same_bytes(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text("line\n" * 100)
    for name in ("one.gz", "two.gz"):
        compress(source, tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_a_run_of_uncommitted_code_is_refused(tmp_path):
    run = _run(tmp_path / "run", dirty=True)
    with pytest.raises(ResultsError, match="uncommitted"):
        publish_reference(run, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_a_document_without_markers_is_refused():
    with pytest.raises(ResultsError, match="markers"):
        replace_section("no markers", "x")
    assert replace_section(f"a{BEGIN}old{END}b", "new\n") == f"a{BEGIN}\nnew\n{END}b"
