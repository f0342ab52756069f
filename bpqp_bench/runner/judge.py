"""The desk: a process beside the workers that draws instances and judges answers.

It has all cores, because nothing of it is timed and no worker computes meanwhile. That it is a
process of its own keeps the parent small, and a reference that fails costs only its instance.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bpqp_bench.errors import BenchError
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.instance import Instance, Size
from bpqp_bench.reference import ReferenceCache, ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import gradient_accuracy, solution_accuracy
from bpqp_bench.runner.shared_arrays import read_parcel, write_parcel

__all__ = ["Desk"]

# Gradients of matrices at the largest sizes take hundreds of megabytes each; not kept on disk.
_LARGEST_CACHED = 16_000_000


class Desk:
    """Answers "draw", "reference", "judge" and "close".

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

    def __call__(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes | None]:
        """Answer one request; what goes wrong is an answer too."""
        arguments = {key: value for key, value in request.items() if key != "do"}
        what: Callable[..., Mapping[str, Any]] = getattr(self, f"_{request['do']}")
        try:
            return {"failed": None, **what(**arguments)}, None
        except BaseException as error:
            traceback.print_exc()
            return {"failed": _one_line(error), "yours": isinstance(error, BenchError)}, None

    def _draw(self, family: str, size: str, seed: int) -> Mapping[str, Any]:
        choice = self._registry.family(family)
        drawn = choice.draw(Size.parse(size), seed)
        bare = replace(drawn, planted=None)
        fd, path = write_parcel(bare)
        sha256 = bare.sha256
        self._close((sha256,))
        self._drawn[sha256], self._fds[sha256] = bare, fd
        return {"sha256": sha256, "path": path, "n": bare.n, "m": Size.parse(size).m}

    def _prefetch(
        self, family: str, size: str, seed: int, wrt: tuple[str, ...]
    ) -> Mapping[str, Any]:
        """Compute a reference into the cache and forget it."""
        drawn = self._registry.family(family).draw(Size.parse(size), seed)
        started = time.perf_counter()
        self._compute(replace(drawn, planted=None), wrt)
        return {"seconds": time.perf_counter() - started}

    def _reference(self, sha256: str, wrt: tuple[str, ...]) -> Mapping[str, Any]:
        started = time.perf_counter()
        found = self._find(self._drawn[sha256], wrt)
        return {
            "seconds": time.perf_counter() - started,
            "reason": found if isinstance(found, str) else None,
        }

    def _judge(self, sha256: str, wrt: tuple[str, ...], data: bytes) -> Mapping[str, Any]:
        """Compare an answer, as the worker packed it, with the reference of the problem posed."""
        solution, gradients, posed = pickle.loads(data)
        instance = self._drawn[sha256] if posed is None else posed
        started = time.perf_counter()
        reference = self._find(instance, wrt)
        seconds = time.perf_counter() - started
        if isinstance(reference, str):
            residuals = instance.residuals(solution.z, solution.nu, solution.lam, solution.mu)
            return {
                "seconds": seconds,
                "reason": reference,
                "solution": {
                    "primal_residual": residuals.primal,
                    "dual_residual": residuals.dual,
                    "complementarity": residuals.complementarity,
                },
                "accuracy": {},
                "reference": None,
            }
        accuracy = {
            name: gradient_accuracy(gradients[name], reference.gradients[name]) for name in wrt
        }
        return {
            "seconds": seconds,
            "reason": None,
            "solution": solution_accuracy(instance, solution, reference),
            "accuracy": accuracy,
            "reference": reference.summary(),
        }

    def _adopt(self, path: str, wrt: tuple[str, ...], reason: str) -> Mapping[str, Any]:
        """Take over an instance; a reason says why there is no reference of it, "" nothing."""
        instance: Instance = read_parcel(path)
        self._drawn[instance.sha256] = instance
        if reason:
            self._references[f"{instance.sha256} {wrt}"] = reason
        return {}

    def _close(self, sha256s: tuple[str, ...]) -> Mapping[str, Any]:
        for sha256 in sha256s:
            self._drawn.pop(sha256, None)
            fd = self._fds.pop(sha256, None)
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._references.clear()
        return {}

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


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
