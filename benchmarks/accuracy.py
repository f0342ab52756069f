"""What must not get worse when something gets faster: accuracy, iterations, memory."""

from __future__ import annotations

import numpy as np

from benchmarks.cells import FAMILIES, METHODS, SIZES, prepared, registry
from bpqp_bench import Size
from bpqp_bench.reference import ReferenceSolution, compute_reference
from bpqp_bench.reference.accuracy import gradient_accuracy, solution_accuracy


class Accuracy:
    """1 − cosine similarity to the reference, KKT residual and iterations, on a fixed instance."""

    params = (METHODS, FAMILIES, SIZES)
    param_names = ("method", "family", "size")
    timeout = 120

    def setup_cache(self) -> dict[tuple[str, str], ReferenceSolution]:
        """Compute each reference once, in a process of its own."""
        references = {}
        for family in FAMILIES:
            for size in SIZES:
                instance = registry().family(family).draw(Size.parse(size), 0)
                references[family, size] = compute_reference(instance, instance.loss_gradient)
        return references

    def setup(
        self,
        references: dict[tuple[str, str], ReferenceSolution],
        method: str,
        family: str,
        size: str,
    ) -> None:
        cell = prepared(method, family, size)
        self.instance = cell.instance
        call = cell.run()
        self.solution, self.gradients = call.solution, call.gradients
        self.reference = references[family, size]

    def track_one_minus_cos(self, references: object, method: str, family: str, size: str) -> float:
        accuracy = gradient_accuracy(self.gradients["q"], self.reference.gradients["q"])
        return accuracy.one_minus_cos

    track_one_minus_cos.unit = "1 - cos"  # type: ignore[attr-defined]

    def track_relative_error(
        self, references: object, method: str, family: str, size: str
    ) -> float:
        # The cosine does not see a gradient of the wrong length.
        return gradient_accuracy(self.gradients["q"], self.reference.gradients["q"]).rel_l2

    track_relative_error.unit = "relative error"  # type: ignore[attr-defined]

    def track_kkt_residual(self, references: object, method: str, family: str, size: str) -> float:
        found = solution_accuracy(self.instance, self.solution, self.reference)
        residuals = [found["primal_residual"], found["dual_residual"], found["complementarity"]]
        return float(max(value for value in residuals if np.isfinite(value)))

    track_kkt_residual.unit = "residual"  # type: ignore[attr-defined]

    def track_iterations(self, references: object, method: str, family: str, size: str) -> float:
        if self.solution.iterations is None:
            return float("nan")
        return float(self.solution.iterations)

    track_iterations.unit = "iterations"  # type: ignore[attr-defined]


class Memory:
    """Peak resident memory of a process that builds and runs one cell."""

    params = (METHODS, FAMILIES, SIZES)
    param_names = ("method", "family", "size")
    timeout = 120

    def setup(self, method: str, family: str, size: str) -> None:
        self.cell = prepared(method, family, size)

    def peakmem_passes(self, method: str, family: str, size: str) -> None:
        self.cell.run()
