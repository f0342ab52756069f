"""What a worker does around a measured call."""

import os
from itertools import pairwise

import pytest

from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Size
from bpqp_bench.runner import worker_main
from bpqp_bench.runner.heartbeat import Heartbeat
from bpqp_bench.runner.messages import Build, CallMethod, Drop
from bpqp_bench.runner.shared_arrays import write_shared
from bpqp_bench.runner.worker_main import MethodServer

ADAPTER = """
import numpy as np
from bpqp_bench import Method, Solution

class Counting(Method):
    name = "counting"
    label = "Counting"
    reference = "a test"
    problem_classes = frozenset({"qp"})
    seen = []

    def build(self, template):
        pass

    def forward(self, data, clock):
        Counting.seen.append(data.q.copy())
        return Solution(np.zeros_like(data.q), status="solved")

    def backward(self, upstream, clock):
        return {"q": np.zeros_like(upstream)}
"""


@pytest.fixture
def server(tmp_path):
    (tmp_path / "counting.py").write_text(ADAPTER)
    heartbeat = Heartbeat()
    registry = Registry((tmp_path,))
    yield MethodServer(heartbeat, registry, 1), registry.method("counting").cls
    heartbeat.close()


@pytest.mark.parametrize(("short", "untimed"), [(60.0, 1), (0.0, 0)])
def test_a_short_call_is_preceded_by_one_on_the_problem_before(server, monkeypatch, short, untimed):
    serve, counting = server
    monkeypatch.setattr(worker_main, "_SHORT_S", short)
    problems = [Registry().family("qp").draw(Size.parse("10x5"), seed) for seed in range(3)]
    shared = [write_shared(problem) for problem in problems]
    failed = serve(Build("a", "counting", ("q",), "cpu", "float64", 1, shared[0][1])).failed
    assert failed is None
    for _, path in shared:
        assert serve(CallMethod("a", (path,), wanted=False, first=False)).failed is None
    expected = [problems[0]]
    for before, problem in pairwise(problems):
        expected += [before] * untimed + [problem]
    assert [list(q) for q in counting.seen] == [list(problem.q) for problem in expected]
    serve(Drop(("a",), thorough=False))
    for fd, _ in shared:
        os.close(fd)
