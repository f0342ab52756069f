"""The benchmark of large sparse problems: its cases are solvable, its judgement notices errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import sparse

_N = 2000
_STEP = 1e-5


@pytest.mark.parametrize("case", sparse.CASES)
def test_gradients_of_every_case_agree_with_differences(case):
    prepared = sparse.Prepared(case, _N)
    z, *_ = prepared.run()
    assert prepared.statuses == ("solved", "solved", "exact")
    assert prepared.kkt_residual(z) < sparse.TOLERANCE
    assert prepared.gradient_residual() < sparse.TOLERANCE
    with_gradient = {"q", "b", "h"} | ({"P", "A", "G"} if case.endswith("csr") else set())
    rng = np.random.default_rng(1)
    for name in sorted(with_gradient):
        argument = prepared.arguments[name]
        direction = argument.detach().clone()
        entries = direction.values() if name in "PAG" else direction
        entries.copy_(torch.from_numpy(rng.standard_normal(entries.shape)))
        found = argument.grad.values() if name in "PAG" else argument.grad
        expected = 0.0
        for sign in (1.0, -1.0):
            moved = (argument.detach() + sign * _STEP * direction).requires_grad_()
            with torch.no_grad():
                at = prepared.layer(**prepared.arguments | {name: moved})
            expected += sign * float(at @ prepared.v) / (2.0 * _STEP)
        assert float((found * entries).sum()) == pytest.approx(expected, rel=1e-5), name


def test_wrong_answers_are_noticed():
    prepared = sparse.Prepared("banded piqp/direct csr", _N)
    z, *_ = prepared.run()
    assert prepared.kkt_residual(z + 1e-4) > 1e-5
    for argument in prepared.arguments.values():
        kept = argument.grad
        argument.grad = kept * 1.001
        assert prepared.gradient_residual() > 1e-4
        argument.grad = kept
    assert prepared.gradient_residual() < sparse.TOLERANCE


def test_memory_and_failures_decide_the_exit_status(monkeypatch, capsys):
    good = {"forward_s": 1.0, "backward_s": 1.0, "nnz": 3, "before": 300 * 2**20}
    good |= {"peak": 400 * 2**20, "status": "solved/solved/exact"}
    good |= {"kkt": 1e-9, "error": 1e-9, "gradient": 1e-9}
    monkeypatch.setattr("sys.argv", ["sparse.py", "some case"])

    def run(**changes):
        found = good | changes
        found["problems"] = sparse._problems(found)
        monkeypatch.setattr(sparse, "measure", lambda *_: found)
        sparse.main()

    run()
    assert "| some case | 1.00 | 1.00 | 3 | 300 | 400 | 100 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="some case: more than 1 GiB in total"):
        run(peak=1100 * 2**20)
    with pytest.raises(SystemExit, match="grew by more than 1 GiB"):
        run(peak=1400 * 2**20)
    with pytest.raises(SystemExit, match="some case: iteration limit"):
        run(status="iteration limit/solved/exact")
    with pytest.raises(SystemExit, match="some case: gradient"):
        run(gradient=float("nan"))


def test_a_case_that_takes_too_much_is_ended():
    (problem,) = sparse.measure("banded piqp/direct scipy", limit=50 * 2**20)["problems"]
    assert problem.startswith("ended beyond 0.0 GiB")
    (problem,) = sparse.measure("banded piqp/direct nothing")["problems"]
    assert problem == "ValueError: no layout 'nothing'; there are csr, scipy"
