"""A method and a family from folders of a user's own: run, then seen in table, figure and page."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from places import ROOT

METHOD, FAMILY = "KKT (example)", "Nearest point"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both templates, each copied into a folder of its own, as the documents say."""
    folder = tmp_path_factory.mktemp("drop-in")
    folders = []
    for kind, template in (("methods", "template_method"), ("problems", "template_family")):
        (folder / kind).mkdir()
        shutil.copy(ROOT / kind / f"{template}.py", folder / kind / "mine.py")
        folders += [f"--{kind}-dir", str(folder / kind)]
    for command in (
        "run --method kkt-example --method bpqp --family nearest-point --family qp "
        f"--size 10x5 --size 20x8 --instances 2 --out {folder / 'run'}",
        f"report {folder / 'run'}",
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bpqp_bench", *command.split(), *folders],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT), "BPQP_BENCH_CACHE": str(folder / "cache")},
        )
        assert done.returncode == 0, done.stderr
    return folder / "run" / "report"


def test_tables_have_a_row_of_the_method_under_the_familys_label(report: Path) -> None:
    for name in ("table1", "table3"):
        lines = (report / f"{name}.md").read_text(encoding="utf-8").splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(f"| **{FAMILY}** |"))
        rows = {line.split(" | ")[0].strip("| "): line for line in lines[start + 1 : start + 3]}
        assert {METHOD, "BPQP"} == set(rows)
        assert re.search(r"\d", rows[METHOD].replace(METHOD, ""))


@pytest.mark.parametrize(
    "figure", ["times-call", "accuracy-time", "performance-profiles", "phases"]
)
def test_figures_show_both(report: Path, figure: str) -> None:
    text = (report / f"{figure}.svg").read_text(encoding="utf-8")
    assert METHOD in text
    assert FAMILY in text
    # In a shape and colour of its own.
    if figure == "times-call":
        page = (report / "index.html").read_text(encoding="utf-8")
        (raw,) = re.findall(r'<script[^>]*id="choices"[^>]*>(.*?)</script>', page, flags=re.S)
        methods = json.loads(raw)["methods"]
        mine, ours = methods["kkt-example"], methods["bpqp"]
        assert (mine["colour"], mine["shape"]) != (ours["colour"], ours["shape"])
        assert mine["colour"] in text


def test_the_page_offers_the_family_and_ranks_the_method(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    (raw,) = re.findall(r'<script[^>]*id="choices"[^>]*>(.*?)</script>', page, flags=re.S)
    choices = json.loads(raw)
    assert choices["families"]["nearest-point"] == FAMILY
    assert choices["methods"]["kkt-example"]["label"] == METHOD
    columns = {
        name: [column["of"][at] for at in column["at"]] if isinstance(column, dict) else column
        for name, column in choices["cells"].items()
    }
    cells = pd.DataFrame(columns).query("family == 'nearest-point' and method == 'kkt-example'")
    assert set(cells["size"]) == {"10x5", "20x8"}
    assert set(cells["mark"]) == {"right"}
