"""Messages are plain data: whatever a method returns, raises or writes costs its own cell."""

from __future__ import annotations

import json
import os
import socket
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import CliRunner
from places import ADAPTERS

from bpqp_bench import Instance, Registry, Size, Solution
from bpqp_bench.cli.main import cli
from bpqp_bench.errors import SpecError
from bpqp_bench.method.measure import Answer
from bpqp_bench.problem.instance import SecondOrderCone
from bpqp_bench.results.measurement import Measurement
from bpqp_bench.results.run_directory import load_measurements
from bpqp_bench.runner.execute import execute, open_run
from bpqp_bench.runner.messages import (
    AnswerData,
    CallMethod,
    Channel,
    ProtocolError,
    decode,
    encode,
    pack_answer,
    plain,
    plain_text,
    unpack_answer,
)
from bpqp_bench.runner.plan import Request, make_plan
from bpqp_bench.runner.schedule import Options
from bpqp_bench.runner.shared_arrays import read_shared, write_shared

KINDS = {
    "none": ("ok", ""),
    "tuple-key": ("ok", ""),
    "numpy-key": ("ok", ""),
    "sticky": ("ok", ""),
    "large": ("ok", ""),
    "loop": ("ok", ""),
    "no-mapping": ("ok", ""),
    "fork": ("ok", ""),
    "status": ("not-converged", "\\udce9"),
    "foreign": ("error", "forward: ForeignError: only here"),
    "silent": ("error", "(SilentError without a text)"),
    "surrogate": ("error", "/data/caf\\udce9"),
    "socket": ("crash", "something else wrote to its connection"),
    "build-surrogate": ("error", "/data/caf\\udce9"),
}


def odd(kind: str) -> str:
    return "odd" if kind == "none" else f"odd[kind={kind}]"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Measurement]]]:
    path = tmp_path_factory.mktemp("odd") / "run"
    registry = Registry((ADAPTERS,))
    limits = {"call_limit_s": 60.0, "build_limit_s": 60.0}
    plan = make_plan(
        [
            Request((*map(odd, KINDS), "steady"), ("qp",), ("10x5",), 2, **limits),
            Request(
                ("pairs", "pairs[wrong=true]"),
                ("qp",),
                ("10x5",),
                2,
                batch=3,
                dtype="float32",
                upstream="random",
                **limits,
            ),
            Request(("steady[seconds=0.001]",), ("qp",), ("10x5",), 2, batch=3, **limits),
        ],
        registry,
    )
    options = Options(cache=path.parent / "references")
    sizes = []
    for resume in (False, True):
        with open_run(path, plan, registry, resume=resume, options=options) as directory:
            execute(plan, directory, ((ADAPTERS,), ()), options=options)
        sizes.append(len(load_measurements(path)))
    assert sizes[0] == sizes[1]  # nothing is measured again
    found = defaultdict(list)
    for m in load_measurements(path):
        found[m.method].append(m)
    return path, found


@pytest.mark.parametrize("kind", KINDS)
def test_each_oddity_costs_its_own_cell(
    ran: tuple[Path, dict[str, list[Measurement]]], kind: str
) -> None:
    status, cause = KINDS[kind]
    calls = ran[1][odd(kind)]
    assert calls[-1].status == status, calls[-1].cause
    assert cause in calls[-1].cause
    if status == "ok":
        assert len([m for m in calls if m.role == "measured"]) == 2
        assert calls[-1].accuracy["q"].norm > 0
    assert {m.status for m in ran[1]["steady"]} == {"ok"}


def test_info_becomes_plain_values(ran: tuple[Path, dict[str, list[Measurement]]]) -> None:
    assert ran[1][odd("tuple-key")][-1].info == {"('active', 1)": 2}
    assert ran[1][odd("numpy-key")][-1].info == {"3": 0.5}
    assert "left_out" in ran[1][odd("large")][-1].info
    assert "without a text" in ran[1][odd("sticky")][-1].info["object"]


def test_a_batch_is_judged_problem_by_problem(
    ran: tuple[Path, dict[str, list[Measurement]]],
) -> None:
    measured = [m for m in ran[1]["pairs"] if m.role == "measured"]
    assert len(measured) == 2
    for m in measured:
        assert (m.batch, m.dtype, m.upstream) == (3, "float32", "random")
        assert (m.status, m.cause) == (
            "not-converged",
            "the solver says: iteration limit (1 of 3)",
        )
        assert m.info["statuses"] == ["solved", "iteration limit", "solved"]
        # The worst of the three, by what is known without the runner: q̃ = −v, z = −q.
        assert m.accuracy["q"].rel_l2 > 0
    # Batch number i is the problems 3i, 3i+1, 3i+2.
    family = Registry().family("qp")
    q = [family.draw(Size(10, 5), seed).q.astype(np.float32) for seed in (3, 4, 5)]
    (second,) = (m for m in measured if m.seed == 1)
    assert second.info["sum"] == pytest.approx(float(np.sum(q)), rel=1e-5)
    wrong = ran[1]["pairs[wrong=true]"][-1]
    assert wrong.status == "wrong-shape"


def test_an_unbatched_method_is_called_for_each_problem(
    ran: tuple[Path, dict[str, list[Measurement]]],
) -> None:
    measured = [m for m in ran[1]["steady[seconds=0.001]"] if m.role == "measured"]
    assert {m.status for m in measured} == {"ok"}
    assert all(m.forward is not None and m.forward.solve >= 0.003 for m in measured)


def test_a_run_of_oddities_is_reported(ran: tuple[Path, dict[str, list[Measurement]]]) -> None:
    path = ran[0]
    done = CliRunner().invoke(cli, ["report", str(path), "--methods-dir", str(ADAPTERS)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    json.dumps(json.loads((path / "summary.json").read_text()))


def test_undeclared_device_and_type_are_refused_with_a_sentence() -> None:
    registry = Registry((ADAPTERS,))
    common = {"families": ("qp",), "sizes": ("10x5",), "instances": 1, "call_limit_s": 1.0}
    with pytest.raises(SpecError, match="odd does not compute on cuda, only on cpu"):
        make_plan([Request(("odd",), device="cuda:0", **common)], registry)
    with pytest.raises(SpecError, match="odd does not compute in float32, only in float64"):
        make_plan([Request(("odd",), dtype="float32", **common)], registry)
    with pytest.raises(SpecError, match="upstream=twos is not one of"):
        make_plan([Request(("odd",), upstream="twos", **common)], registry)


def test_bytes_that_are_no_message_are_told_apart() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.sendall(b"good morning, this is no frame")
    with pytest.raises(ProtocolError):
        channel.receive()
    with pytest.raises(ProtocolError):
        decode(b"\x81\xa2", CallMethod)
    with pytest.raises(ProtocolError):
        decode(encode(CallMethod("1", (), True, False))[:-1], CallMethod)
    theirs.close()


def test_answers_and_instances_survive_the_way_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    P = sp.csc_matrix(np.diag(rng.random(4)))
    none = sp.csc_matrix((0, 4))
    instance = Instance(P, rng.random(4), none, np.zeros(0), none, np.zeros(0), seed=7)
    fd, path = write_shared(instance)
    read = read_shared(path)
    assert read.sha256 == instance.sha256 == Instance(*(getattr(read, n) for n in "PqAbGh")).sha256
    assert (read.seed, read.name) == (7, instance.name)
    read.q[0] = 1.0  # a copy of its own
    answer = Answer(Solution(rng.random(4), nu=np.zeros(0)), {"q": rng.random(4), "P": P})
    data = decode(encode(pack_answer(answer, instance)), AnswerData)
    back, posed = unpack_answer(data, ("q", "P"))
    np.testing.assert_array_equal(back.solution.z, answer.solution.z)
    assert back.solution.nu.shape == (0,)
    assert back.solution.lam is None
    np.testing.assert_array_equal(back.gradients["P"].toarray(), P.toarray())
    assert posed.sha256 == instance.sha256

    os.close(fd)


def test_a_cone_survives_the_way_too() -> None:
    cone = SecondOrderCone(np.eye(3), np.zeros(3), np.zeros(3), 1.5)
    zero = np.zeros((0, 3))
    instance = Instance(
        np.zeros((3, 3)), np.ones(3), zero, np.zeros(0), zero, np.zeros(0), cones=(cone,),
        problem_class="socp",
    )  # fmt: skip
    fd, path = write_shared(instance)
    (read,) = read_shared(path).cones
    os.close(fd)
    answer = Answer(Solution(np.zeros(3)), {"q": np.zeros(3)})
    _, posed = unpack_answer(decode(encode(pack_answer(answer, instance)), AnswerData), ("q",))
    for found in (read, posed.cones[0]):
        assert found.d == 1.5
        np.testing.assert_array_equal(found.F, cone.F)


def test_plain_values() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = plain({"a": np.float64(1.5), "b": (1, True, None), "c": loop, 2: object, "n": 10**30})
    json.dumps(found)
    assert found["a"] == 1.5
    assert found["b"] == [1, True, None]
    assert found["n"] == str(10**30)
    assert len(plain_text("x" * 10_000)) < 2_100
