"""Methods that hang, crash, eat memory or answer nonsense: each costs only its own cells."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import ADAPTERS

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.plan import Plan, Request, make_plan
from bpqp_bench.runner.schedule import Options
from bpqp_bench.runner.time_split import RunSummary

pytestmark = pytest.mark.slow

LIMIT_S = 1.5
PATIENT_S = 120.0  # a busy machine takes its time to hand out the memory that is to be too much
MEMORY = 300 * 2**20

UNJUDGED = "poses-another-size"  # its answer does not fit the problem that it says it solved

# mode → status of the first call that misbehaves, part of the cause, whether the cell ends there
MODES = {
    "sleep": ("timeout", "forward took longer than 1.5 s", True),
    "busy": ("timeout", "forward took longer than 1.5 s", True),
    "backward-sleep": ("timeout", "backward took longer than 1.5 s", True),
    "segfault": ("crash", "SIGSEGV during forward", True),
    "exit": ("crash", "exit status 7 during forward", True),
    "eat": ("out-of-memory", "more than the limit of 300 MiB", True),
    "child-eats": ("out-of-memory", "more than the limit of 300 MiB", True),
    "memory-error": ("out-of-memory", "MemoryError: no more", True),
    "raise": ("error", "forward: ValueError: first line", False),
    "system-exit": ("error", "forward: SystemExit: leaving", False),
    "none-returned": ("error", "NoneType, not a Solution", False),
    "nan": ("non-finite", "z has 1 of 10 entries not finite", False),
    "gradient-inf": ("non-finite", "gradient of q has 10 of 10 entries", False),
    "shape": ("wrong-shape", "z has shape (11,), expected (10,)", False),
    "gradient-missing": ("wrong-shape", "no gradient of q", False),
    "gradient-text": ("wrong-shape", "not real numbers", False),
    "gives-up": ("not-converged", "iteration limit", False),
}
FINE = ("none", "print", "mutate", UNJUDGED)
PATIENT = ("eat", "child-eats")
BUILDS = {
    "build-sleep": ("timeout", "build took longer than 1.5 s"),
    "build-raise": ("error", "build: MethodError: cannot be built"),
}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Ran:
    path: Path
    plan: Plan
    summary: RunSummary
    measurements: list[Measurement]
    seconds: float

    def of(self, method: str, size: str = "10x5", role: str = "measured") -> list[Measurement]:
        found = [
            m
            for m in self.measurements
            if (m.method, m.size, m.role, m.family) == (method, size, role, "qp")
        ]
        return sorted(found, key=lambda m: m.seed)


def hostile(mode: str) -> str:
    return "hostile" if mode == "none" else f"hostile[mode={mode}]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    path = tmp_path_factory.mktemp("hostile") / "run"
    registry = Registry((ADAPTERS,))
    limits = {"call_limit_s": LIMIT_S, "build_limit_s": LIMIT_S, "instances": len(SEEDS)}
    patient = limits | {"call_limit_s": PATIENT_S}
    modes = (mode for mode in (*MODES, *FINE, *BUILDS) if mode not in PATIENT)
    everybody = (*map(hostile, modes), "steady", "homeless", "loading")
    plan = make_plan(
        [
            Request(everybody, ("qp",), ("10x5",), **limits),
            Request(tuple(map(hostile, PATIENT)), ("qp",), ("10x5",), **patient),
            Request((hostile("sleep"), "hostile", "steady"), ("qp", "lp"), ("12x5",), **limits),
        ],
        registry,
    )
    options = Options(memory_limit=MEMORY, cache=path.parent / "references")
    with open_run(path, plan, registry, options=options) as directory:
        started = time.perf_counter()
        summary = execute(plan, directory, ((ADAPTERS,), ()), options=options)
        seconds = time.perf_counter() - started
    return Ran(path, plan, summary, load_measurements(path), seconds)


@pytest.mark.parametrize("mode", MODES)
def test_misbehaviour_is_recorded_with_its_cause(ran: Ran, mode: str) -> None:
    status, cause, ends = MODES[mode]
    calls = ran.of(hostile(mode))
    failed = [m for m in calls if m.seed != 0]
    assert len(failed) == (1 if ends else len(SEEDS) - 1)
    assert len(calls) == len(failed) + 1
    assert calls[0].seed == 0
    assert calls[0].status == "ok"
    for m in failed:
        assert m.status == status
        assert cause in m.cause
        assert "\n" not in m.cause
        assert m.time_limit_s == (PATIENT_S if mode in PATIENT else LIMIT_S)
        assert m.memory_limit == MEMORY


@pytest.mark.parametrize("mode", FINE)
def test_bystanders_in_the_same_process_lose_nothing(ran: Ran, mode: str) -> None:
    calls = ran.of(hostile(mode))
    assert [m.seed for m in calls] == list(SEEDS)
    assert {m.status for m in calls} == {"ok"}


def test_bystander_in_another_process_loses_nothing(ran: Ran) -> None:
    for size in ("10x5", "12x5"):
        calls = ran.of("steady", size)
        assert [m.seed for m in calls] == list(SEEDS)
        assert {m.status for m in calls} == {"ok"}


def test_changed_inputs_reach_nobody(ran: Ran) -> None:
    truth = {m.seed: m.info["checksum"] for m in ran.of("steady")}
    for mode in ("none", "mutate", "print"):
        seen = {m.seed: m.info["checksum"] for m in ran.of(hostile(mode))}
        assert seen == truth


def test_a_method_that_hung_runs_at_the_next_size(ran: Ran) -> None:
    assert [m.status for m in ran.of(hostile("sleep"), "12x5")] == ["ok", "timeout"]


@pytest.mark.parametrize("mode", BUILDS)
def test_failed_build_ends_its_cell(ran: Ran, mode: str) -> None:
    status, cause = BUILDS[mode]
    assert ran.of(hostile(mode)) == []
    (first,) = ran.of(hostile(mode), role="first")
    assert (first.status, first.cause) == (status, cause)
    assert first.build_s is not None
    assert first.build_s >= (LIMIT_S if status == "timeout" else 0.0)


def test_missing_library_is_unavailable(ran: Ran) -> None:
    (first,) = ran.of("homeless", role="first")
    assert first.status == "unavailable"
    assert "a_library_that_is_not_installed" in first.cause


def test_what_a_method_loads_is_no_build(ran: Ran) -> None:
    calls = ran.of("loading")
    assert [m.status for m in calls] == ["ok"] * len(SEEDS)
    assert all(m.build_s is not None and m.build_s < LIMIT_S for m in calls)


def test_unsupported_class_says_why(ran: Ran) -> None:
    found = [m for m in ran.measurements if m.family == "lp" and m.method == "hostile"]
    assert [(m.status, m.cause) for m in found] == [("unsupported", "LP: too linear")]


def test_first_call_is_told_apart_and_never_on_a_measured_instance(ran: Ran) -> None:
    measured = {m.instance for m in ran.measurements if m.role == "measured"}
    for role in ("first", "warmup"):
        calls = ran.of("steady", role=role)
        assert len(calls) == 1
        assert calls[0].instance not in measured
        assert calls[0].seed >= 2**31


def test_every_answer_was_judged(ran: Ran) -> None:
    for m in ran.of("steady"):
        assert m.reference is not None
        assert m.accuracy["q"].norm > 0.0
        assert m.solution_error == pytest.approx(1.0)  # z = 0
        assert m.primal_residual is not None
        assert m.dual_residual == float("inf")  # gives no multipliers


def test_an_exception_in_judging_is_named_in_the_summary(ran: Ran) -> None:
    judged, *unjudged = ran.of(hostile(UNJUDGED))
    assert "no_reference" not in judged.info
    assert judged.accuracy
    reasons = [m.info["no_reference"] for m in unjudged]
    assert all(reason.startswith("judging failed: ValueError: ") for reason in reasons)
    assert all(m.accuracy == {} and m.reference is None for m in unjudged)
    (line,) = ran.summary.notes
    assert line == f"{len(unjudged)} calls without a reference: qp 10x5: {reasons[0]}"
    assert line in ran.summary.describe()
    assert line in json.loads((ran.path / "summary.json").read_text())["notes"]


def test_times_and_memory_are_plausible(ran: Ran) -> None:
    for m in ran.of("steady"):
        assert m.forward is not None
        assert m.backward is not None
        assert 0.01 <= m.forward.solve <= m.forward.call < LIMIT_S  # it sleeps for 10 ms
        assert m.peak_memory is not None
        assert 10 * 2**20 < m.peak_memory < MEMORY


def test_order_is_random_and_differs_between_instances(ran: Ran) -> None:
    # Methods that answered on all instances; chance alone would hardly give one order three times.
    methods = [name for name in map(hostile, (*MODES, *FINE)) if len(ran.of(name)) == len(SEEDS)]
    assert len(methods) > 5
    orders = {
        tuple(sorted(methods, key=lambda name: ran.of(name)[index].order))
        for index in range(len(SEEDS))
    }
    assert len(orders) == len(SEEDS)


def test_keys_are_unique_and_garbage_is_in_the_log(ran: Ran) -> None:
    keys = [m.key for m in ran.measurements]
    assert len(keys) == len(set(keys))
    log = (ran.path / "logs" / "hostile.log").read_bytes()
    assert b"more garbage" in log
    assert b"ValueError: first line" in log  # the traceback


def test_summary_adds_up_and_is_kept(ran: Ran) -> None:
    split = ran.summary.split
    parts = split.start + split.draw + split.judge + split.write + split.other
    assert split.overhead == pytest.approx(parts)
    assert split.wall == pytest.approx(split.calls + split.builds + split.references + parts)
    # Nothing is counted twice: the parts are the time that the run took.
    assert split.wall == pytest.approx(ran.seconds, rel=0.02)
    # Four passes and one build were ended at the limit, the sleeping one at two sizes.
    assert split.calls >= 4 * LIMIT_S
    assert split.builds >= LIMIT_S
    assert ran.summary.ended["timeout"] == 5
    assert ran.summary.ended["crash"] == 2
    kept = json.loads((ran.path / "summary.json").read_text())
    assert kept["seconds"]["wall"] == pytest.approx(split.wall, abs=1e-3)
    assert ran.summary.problems == ()
