"""What README, CONTRIBUTING and docs/ name exists: files, links, commands, options."""

import pydoc
import re
import shlex

import click
import pytest
from places import ROOT

from bpqp_bench.cli.main import cli

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PACKAGE = ROOT / "bpqp_bench"
STAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FOLDERS = ("bpqp_bench", "problems", "methods", "benchmarks", "tests", "docs", *STAGES)
# A path of the checkout between backticks, without placeholders such as NAME, * or <run>.
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[a-z0-9_./-]+)`")
NAME = re.compile(r"`(bpqp_bench(?:\.\w+)+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
ENTRY_POINTS = ("bpqp_bench.methods", "bpqp_bench.problems")
GENERATED = ("results/runs", "results/cache", "docs/results.md")


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request):
    return request.param


def test_files_that_are_named_exist(page):
    named = PATH.findall(page.read_text(encoding="utf-8"))
    missing = [p for p in named if not (ROOT / p).exists() and not (PACKAGE / p).exists()]
    assert [path for path in missing if not path.startswith(GENERATED)] == []


def test_names_that_are_mentioned_can_be_imported(page):
    for name in set(NAME.findall(page.read_text(encoding="utf-8"))) - set(ENTRY_POINTS):
        assert pydoc.locate(name) is not None, name


def test_links_lead_somewhere(page):
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_commands_and_their_options_exist(page):
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("bpqp-bench "):
                words = shlex.split(line, comments=True)[1:]
                command = cli.get_command(click.Context(cli), words[0])
                assert command is not None, line
                known = {option for given in command.params for option in given.opts}
                unknown = {word for word in words if word.startswith("--")} - known - {"--help"}
                assert unknown == set(), line


def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text, re.MULTILINE)
    assert {first or second for first, second in named} <= targets


def test_the_readme_is_short_and_its_example_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(example, names)
    z, q = names["z"], names["q"]
    # Az̃ = 0 in the backward QP, and A is a row of ones.
    assert float(z.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(q.grad.sum()) == pytest.approx(0.0, abs=1e-5)
