"""The page in a real headless browser: it renders, sorts, shows distributions, fetches nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from bpqp_bench.report import render_report
from bpqp_bench.report.render import write_table
from bpqp_bench.report.tables import TABLES
from bpqp_bench.report.tables.efficiency import TABLE

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
_NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & “q”"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("page")
    runs = samples.sample(instances=3, sizes=("10x5",))
    runs.append(samples.failure("error", _NASTY, method="mine", label=_NASTY, role="first"))
    run = samples.write_run(folder / "run", runs)
    return render_report(run, folder / "report")


@pytest.mark.slow
def test_everything_of_a_partial_run_is_written(written: list[Path]) -> None:
    names = {path.name for path in written}
    # The survey's tables are there where something of them was measured.
    keys = [module.key for module in TABLES if module.suite == "reproduce"]
    assert {f"{key}.{end}" for key in keys for end in ("md", "tex", "csv")} <= names
    assert {"claims.md", "claims.json", "times-call.svg", "times-call.png"} <= names
    assert written[-1].name == "index.html"
    assert all(path.stat().st_size > 0 for path in written)
    assert len(json.loads((written[-1].parent / "claims.json").read_text())) == 11


def test_the_same_run_gives_the_same_table_to_the_byte(tmp_path: Path) -> None:
    made = samples.inputs(samples.sample(instances=3, sizes=("10x5",)), "smoke")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_table(TABLE.render(made), tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.slow
def test_page_fetches_nothing_and_escapes_what_results_say(written: list[Path]) -> None:
    page = written[-1].read_text(encoding="utf-8")
    own, _, library = page.rpartition("<script>")  # the charts' library is not ours
    assert "vegaEmbed" in library
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", own)
    assert not re.search(r"url\(|@import|<link", own)
    assert written[-1].stat().st_size < 2_000_000
    assert "default-src 'none'" in page
    assert "<script>alert" not in page
    assert "&lt;/script&gt;" in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


@pytest.mark.slow
@pytest.mark.skipif(_BROWSER is None, reason="no Chromium on this machine")
def test_page_works_in_a_browser(written: list[Path], tmp_path: Path) -> None:
    found, log = visit(written[-1], tmp_path)
    assert found["errors"] == []
    assert "CONSOLE" not in log, log
    panels = sum(
        bool(panel.rows)
        for module in TABLES
        for panel in module.render(samples.inputs([], "smoke")).panels
    )
    assert found["tables"] >= panels
    assert found["wrong"] == []
    assert found["sorted"] > 100
    assert found["popovers"] == found["withRuns"] > 50
    assert found["images"] is True
    # Every problem and tolerance was chosen once: the fastest right layer is named, and is first.
    assert found["choices"] == 12
    assert found["misranked"] == []
    assert found["unsettled"] == []
    # The answer is on the screen before the tables and the charts' library have been read.
    assert found["painted"] < found["read"]
    assert found["charts"] == 2
    # In each chart a click in the legend hides all methods but one, a second one shows them again.
    assert len(found["legends"]) == found["charts"]
    for legend in found["legends"]:
        assert len(legend["all"]) > 1
        assert legend["alone"] == [legend["picked"]]
        assert legend["again"] == legend["all"]
    # Tables scroll in their own containers: the page itself is no wider than a phone.
    assert found["overflow"] <= 0


def visit(page: Path, folder: Path) -> tuple[dict[str, Any], str]:
    """Open the page with its test in a narrow window; return what it wrote, and the console."""
    test = Path(__file__).with_name("selftest.js").read_text(encoding="utf-8")
    tested = folder / "tested.html"
    body, _, end = page.read_text(encoding="utf-8").rpartition("</body>")
    tested.write_text(f"{body}<script>{test}</script></body>{end}", encoding="utf-8")
    command = [
        *(str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--enable-logging=stderr", "--window-size=500,900"),
        *(f"--user-data-dir={folder}", "--dump-dom", tested.as_uri()),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    match = re.search(r'<pre id="selftest">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(match[1]))
    return result, done.stderr
