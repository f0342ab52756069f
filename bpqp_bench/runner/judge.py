"""The judge: a process beside the workers that draws instances and judges answers.

It has all cores, because nothing of it is timed and no worker computes meanwhile. That it is a
process of its own keeps the parent small, and a reference that fails costs only its instance.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bpqp_bench.errors import BenchError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Instance, Size
from bpqp_bench.reference import ReferenceCache, ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import Accuracy, gradient_accuracy, solution_accuracy
from bpqp_bench.results.measurement import Status
from bpqp_bench.runner.messages import (
    Adopt,
    AnswerData,
    Close,
    Done,
    Draw,
    Drawn,
    Failure,
    FindReference,
    Found,
    Judge,
    Judged,
    Prefetch,
    Request,
    decode,
    unpack_answer,
)
from bpqp_bench.runner.shared_arrays import read_shared, write_shared

REQUESTS = Draw | Prefetch | FindReference | Judge | Adopt | Close

# Gradients of matrices at the largest sizes take hundreds of megabytes each; not kept on disk.
_LARGEST_CACHED = 16_000_000


@dataclass(frozen=True)
class _Verdict:
    """One problem of a batch; without a reference only residuals are known."""

    solution: dict[str, float]
    accuracy: dict[str, Accuracy]
    reference: ReferenceSolution | None
    reason: str


class JudgeServer:
    """Draws instances, computes references, judges answers.

    Parameters
    ----------
    registry
        Where families are found.
    cache
        Directory of references.
    """

    def __init__(self, registry: Registry, cache: str) -> None:
        self._registry = registry
        self._cache = ReferenceCache(Path(cache))
        self._drawn: dict[str, Instance] = {}
        self._fds: dict[str, int] = {}
        # By hash; a string is the reason why there is none.
        self._references: dict[str, ReferenceSolution | str] = {}
        self._answers: dict[type[Request], tuple[Callable[[Any], Done], type[Done]]] = {
            Draw: (self._draw, Drawn),
            Prefetch: (self._prefetch, Found),
            FindReference: (self._reference, Found),
            Judge: (self._judge, Judged),
            Adopt: (self._adopt, Done),
            Close: (self._close, Done),
        }

    def __call__(self, request: Draw | Prefetch | FindReference | Judge | Adopt | Close) -> Done:
        """Answer one request; what goes wrong is an answer too."""
        answer, reply = self._answers[type(request)]
        try:
            return answer(request)
        except BaseException as error:
            traceback.print_exc()
            return reply(Failure(Status.ERROR, _one_line(error)))

    def _instance(self, request: Draw | Prefetch) -> Instance:
        drawn = self._registry.family(request.family).draw(Size.parse(request.size), request.seed)
        bare = replace(drawn, planted=None)
        if request.upstream == "ones":
            return bare if bare.upstream is None else replace(bare, upstream=None, sha256="")
        if request.upstream == "random":
            rng = np.random.default_rng(np.random.SeedSequence((request.seed, 2)))
            return replace(bare, upstream=rng.standard_normal(bare.n), sha256="")
        return bare

    def _draw(self, request: Draw) -> Drawn:
        bare = self._instance(request)
        fd, path = write_shared(bare)
        self._close(Close((bare.sha256,)))
        self._drawn[bare.sha256], self._fds[bare.sha256] = bare, fd
        return Drawn(sha256=bare.sha256, path=path)

    def _prefetch(self, request: Prefetch) -> Found:
        bare = self._instance(request)
        started = time.perf_counter()
        self._compute(bare, request.wrt)
        return Found(seconds=time.perf_counter() - started)

    def _reference(self, request: FindReference) -> Found:
        started = time.perf_counter()
        found = [self._find(self._drawn[sha256], request.wrt) for sha256 in request.sha256s]
        reasons = [reason for reason in found if isinstance(reason, str)]
        return Found(seconds=time.perf_counter() - started, reason=reasons[0] if reasons else "")

    def _judge(self, request: Judge) -> Judged:
        answers = decode(request.answers, tuple[AnswerData, ...])
        started, verdicts = time.perf_counter(), []
        for sha256, data in zip(request.sha256s, answers, strict=True):
            verdicts.append(self._verdict(self._drawn[sha256], data, request.wrt))
        seconds = time.perf_counter() - started
        reasons = [verdict.reason for verdict in verdicts if verdict.reason]
        # Where the reference is degenerate or zero, an error says nothing about the method.
        telling = [v for v in verdicts if v.accuracy and _tells(v)] or verdicts
        worst = max(telling, key=lambda v: _size(v.accuracy.get(request.wrt[0])))
        names = {name for v in verdicts for name in v.solution}
        return Judged(
            seconds=seconds,
            reason=reasons[0] if reasons else "",
            solution={n: max((v.solution[n] for v in verdicts if n in v.solution), key=_key)
                      for n in names},
            accuracy={} if reasons else {
                name: max((v.accuracy[name] for v in telling), key=_size) for name in request.wrt
            },
            reference=None if reasons or worst.reference is None else worst.reference.summary(),
        )  # fmt: skip

    def _verdict(self, instance: Instance, data: AnswerData, wrt: tuple[str, ...]) -> _Verdict:
        """Compare an answer with the reference of the problem that was posed."""
        answer, posed = unpack_answer(data, wrt)
        instance, solution = posed or instance, answer.solution
        reference = self._find(instance, wrt)
        if isinstance(reference, str):
            residuals = instance.residuals(solution.z, solution.nu, solution.lam, solution.mu)
            found = {
                "primal_residual": residuals.primal,
                "dual_residual": residuals.dual,
                "complementarity": residuals.complementarity,
            }
            return _Verdict(found, {}, None, reference)
        accuracy = {
            name: gradient_accuracy(answer.gradients[name], reference.gradients[name])
            for name in wrt
        }
        return _Verdict(solution_accuracy(instance, solution, reference), accuracy, reference, "")

    def _adopt(self, request: Adopt) -> Done:
        instance = read_shared(request.path)
        self._drawn[instance.sha256] = instance
        if request.reason:
            self._references[f"{instance.sha256} {request.wrt}"] = request.reason
        return Done()

    def _close(self, request: Close) -> Done:
        for sha256 in request.sha256s:
            self._drawn.pop(sha256, None)
            fd = self._fds.pop(sha256, None)
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._references.clear()
        return Done()

    def _find(self, instance: Instance, wrt: tuple[str, ...]) -> ReferenceSolution | str:
        key = f"{instance.sha256} {wrt}"
        if key not in self._references:
            try:
                self._references[key] = self._compute(instance, wrt)
            except Exception as error:
                traceback.print_exc()
                self._references[key] = _one_line(error)
        return self._references[key]

    def _compute(self, instance: Instance, wrt: tuple[str, ...]) -> ReferenceSolution:
        upstream = instance.loss_gradient
        if sum(np.prod(getattr(instance, name).shape) for name in wrt) > _LARGEST_CACHED:
            return compute_reference(instance, upstream, wrt)
        return self._cache.get(instance, upstream, wrt)


def _tells(verdict: _Verdict) -> bool:
    reference = verdict.reference
    degenerate = reference is not None and reference.certificate.degenerate
    return not degenerate and any(a.right is not None for a in verdict.accuracy.values())


def _size(accuracy: Accuracy | None) -> float:
    return -1.0 if accuracy is None else _key(accuracy.rel_l2)


def _key(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
