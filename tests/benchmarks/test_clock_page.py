"""The plain loop beside the suite: its page shows the script, ratios are paired and judged."""

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import report_samples as samples
from places import ROOT

from bpqp_bench import Registry
from bpqp_bench.results.run_directory import RunDirectory

spec = importlib.util.spec_from_file_location("clock_page", ROOT / "benchmarks" / "clock_page.py")
clock_page = importlib.util.module_from_spec(spec)
sys.modules["clock_page"] = clock_page  # its dataclass looks its module up
spec.loader.exec_module(clock_page)

PLAIN = {
    ("10x5", 1): {"bpqp": [1.0, 2.0, 1.0], "qpth": [4.0, 8.0, 4.0], "qplayer": [1.0, 2.0, 1.0]}
}


@pytest.fixture
def run(tmp_path):
    """bpqp takes 1 and 9 ms on two problems, qpth always four times that; QPLayer is not there."""
    registry = Registry()
    config = {"code": "c", "plan": {"blocks": []}}
    machine = {"cpu": "Imaginary", "cores": 2, "git_commit": "abcdef0123456789"}
    with RunDirectory.create(tmp_path / "run", config, machine) as directory:
        for method, factor in (("bpqp", 1.0), ("qpth", 4.0)):
            for seed, seconds in enumerate((1e-3, 9e-3)):
                key = registry.method(method).key
                one = samples.measurement(key, "qp-active", "10x5", seed, factor * seconds)
                directory.append(replace(one, problem_class="qp"))
    return tmp_path / "run"


def test_ratios_of_a_run_and_of_the_loop_are_paired_by_problem(run):
    qpth, qplayer = clock_page.pairs(run, PLAIN)
    assert (qpth.method, qpth.calls) == ("qpth", 2)
    assert qpth.suite == pytest.approx(4.0)
    assert qpth.plain == 4.0
    assert qpth.apart == pytest.approx(1.0)
    assert qpth.agrees
    # What was not measured agrees with nothing.
    assert math.isnan(qplayer.suite)
    assert not qplayer.agrees
    text = clock_page.table([qpth, qplayer])
    assert "| 10x5 | 1 | qpth / bpqp | 4.00 | 2 | 4.00 | 1.00 | yes |" in text
    assert "not measured |" in text
    assert "1 of 2 ratios agree within 1.2." in text


def test_a_ratio_that_is_apart_is_said_to_be(run):
    apart = {("10x5", 1): PLAIN["10x5", 1] | {"qpth": [5.0, 10.0, 5.0]}}
    qpth, _ = clock_page.pairs(run, apart)
    assert qpth.apart == pytest.approx(1.25)
    assert not qpth.agrees
    assert "**no**" in clock_page.table([qpth])


def test_the_page_is_filled_between_its_comments(run):
    text = clock_page.fill(clock_page.PAGE.read_text(), "ratios", clock_page.machine(run))
    assert "Run of commit abcdef0123 on Imaginary, 2 cores." in text
    assert clock_page.fill(text, "ratios", clock_page.machine(run)) == text
    with pytest.raises(SystemExit, match="no place for nothing"):
        clock_page.fill(text, "nothing", "")


def test_the_page_shows_the_script_as_it_is():
    assert clock_page.script() in clock_page.PAGE.read_text()
    lines = [line for line in clock_page.script().splitlines()[1:-1] if line.strip()]
    code = [line for line in lines if not line.strip().startswith('"""')]
    assert len(code) <= 30


@pytest.mark.slow
def test_the_loop_measures_what_the_adapters_run():
    """Same options as the adapters; seconds for every layer and round."""
    code = "import json, plain_loop as p; print(json.dumps(p.measure('10x5', 2, 1)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "PATH": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    seconds = json.loads(done.stdout.splitlines()[-1])
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(
        clock_page.CLOCK_METHODS, 1
    )
    source = clock_page.script()
    registry = Registry()
    for name, options in (
        ("qpth", {"max_iter": "maxIter={}"}),
        ("qplayer", {n: f"{n}={{}}" for n in ("eps_backward", "rho_backward", "mu_backward")}),
    ):
        method = registry.method(name).create()
        for option, text in options.items():
            assert text.format(method.options[option]) in source, (name, option)
