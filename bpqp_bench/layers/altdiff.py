"""Alt-Diff as a torch layer; the algorithm is in `bpqp_bench.layers.altdiff_core`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError, MethodError
from bpqp_bench.layers.altdiff_core import Settings, factorize, iterate, jacobian, vjp
from bpqp_bench.layers.autograd import OneProblemLayer
from bpqp_bench.layers.certificates import (
    farkas_vector,
    recession_direction,
    worth_a_proof,
)
from bpqp_bench.layers.dense_data import read_dense
from bpqp_bench.layers.equilibrate import equilibrate
from bpqp_bench.layers.problem import (
    ConvexQP,
    Phase,
    QPSolution,
    componentwise_residual,
    no_clock,
    relative_residual,
    residuals,
)
from bpqp_bench.layers.solver_pass import BPQPWarning, Outcome
from bpqp_bench.layers.torch_data import NAMES, Batch, check_data
from bpqp_bench.problem.instance import Array

_SLACK = 100.0  # residual over the threshold at which a point is still called solved


class _AltDiffPass:
    """One run of the iteration, see `bpqp_bench.layers.passes.Passes`."""

    native = False

    def __init__(
        self,
        given: Sequence[Any],
        matrices: bool,
        settings: Settings,
        derivative: str,
        check: bool,
        clock: Phase,
    ) -> None:
        data = read_dense(*given)
        if data is None or data.batched:
            raise InstanceError("AltDiff takes dense tensors without a batch dimension")
        batch = Batch.of(data)
        for failure in check_data(batch, convex=check).values():
            raise failure
        whole = batch.instance(0)
        if (whole.h == -np.inf).any():
            raise InstanceError("the problem is infeasible: a row of h is -infinity")
        # A bound at infinity is no row.
        self._bounded = whole.h < np.inf
        qp = replace(whole, G=whole.G[self._bounded], h=whole.h[self._bounded])
        try:
            with clock("setup"):
                self._split = factorize(qp.P, qp.A, qp.G, settings)
            with clock("solve"):
                self._run = iterate(self._split, qp.q, qp.b, qp.h, settings, record=matrices)
        except (ValueError, FloatingPointError) as why:  # what LAPACK raises is a ValueError
            _refuse(qp)
            raise MethodError(f"{why}; or take BPQP") from None
        self._derivative = derivative
        run = self._run
        primal, dual = residuals(qp, run.z, run.nu, run.lam, np.zeros(0))
        status = run.status
        error = _error(qp, run.z, run.nu, run.lam)
        if check:
            found = QPSolution(run.z, run.nu, run.lam, np.zeros(0), status, None, primal, dual)
            error = max(error, componentwise_residual(qp, found))
            if worth_a_proof(qp, run.z, dual):
                _refuse(qp)  # a gap between the rows, or a slope, that the threshold hides
        lam = self._widened(run.lam)
        if status == "solved" and error > _SLACK * settings.tolerance:
            status = "inaccurate"
        if status != "solved":
            _refuse(qp)
            warnings.warn(
                f"Alt-Diff ended with status {status!r} after {run.iterations} iterations, its "
                f"relative KKT residual is {error:.1e}; raise max_iterations, or take BPQP",
                BPQPWarning,
                stacklevel=2,
            )
        self._facts: dict[str, object] = {
            "forward": "alt-diff",
            "status": status,
            "iterations": run.iterations,
            "primal_residual": primal,
            "dual_residual": dual,
            "rho": self._split.rho,
            "relative_primal_residual": run.primal_residual,
            "relative_dual_residual": run.dual_residual,
            "relative_residual": error,
        }
        self.z = torch.from_numpy(run.z)
        self.outcome = Outcome([self._facts], torch.from_numpy(lam > 0.0), (run.nu, lam))

    def _widened(self, rows: Array) -> Array:
        """Put zeros where a row has no bound."""
        wide = np.zeros((len(self._bounded), *rows.shape[1:]))
        wide[self._bounded] = rows
        return wide

    def solution(self) -> Tensor:
        """``z`` in memory of its own."""
        return self.z.clone()

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h."""
        names = [name for name, need in zip(NAMES, needed, strict=True) if need]
        v = upstream.to(device="cpu", dtype=torch.float64).numpy()
        with clock("solve"):
            if self._derivative == "jacobian":
                by_name = jacobian(self._split, self._run.masks, names)
                found = {name: J.T @ v for name, J in by_name.items()}
            else:
                found = vjp(self._split, self._run, v, names)
        found |= {name: self._widened(found[name]) for name in ("G", "h") if name in found}
        self._facts["gradient"] = "as converged as the solution"
        parts = [torch.from_numpy(found[name]) if name in found else None for name in NAMES]
        return [part.unsqueeze(0) if apart and part is not None else part for part in parts]


def _error(qp: ConvexQP, z: np.ndarray, nu: np.ndarray, lam: np.ndarray) -> float:
    """Relative KKT residual in the problem's own units."""
    scaled, scaling = equilibrate(qp)
    return relative_residual(
        scaled,
        replace(
            QPSolution(z, nu, lam, np.zeros(0), "solved", None, 0.0, 0.0),
            z=z / scaling.columns,
            nu=nu * scaling.objective / scaling.rows_a,
            lam=lam * scaling.objective / scaling.rows_g,
        ),
    )


def _refuse(qp: ConvexQP) -> None:
    """Raise if there is a proof that the problem has no solution."""
    if farkas_vector(qp) is not None:
        raise InstanceError("the problem is infeasible: no z satisfies Az = b, Gz ≤ h")
    if recession_direction(qp) is not None:
        raise InstanceError("the problem is unbounded below: add constraints, or curvature to P")


class AltDiff(OneProblemLayer):
    """Differentiable QP layer by Alt-Diff.

    Parameters
    ----------
    settings
        Penalty, truncation threshold, stopping rule.
    derivative
        "vjp" (all six parameters) or "jacobian" (as published; q, b and h): the same gradients.
        The Jacobian recursion runs in the backward pass; see docs/altdiff.md.
    check
        Test that P is positive semidefinite, hold every KKT condition to its own terms, and look
        for proofs of infeasibility or unboundedness that the truncation threshold hides: two
        linear programs a call. Without it, the iteration alone decides.
    clock
        As in `BPQP`.

    Attributes
    ----------
    last_info
        A list of one dictionary: status, iterations, residuals. The status is "solved" only where
        the KKT residual says so as well.
    multipliers
        ν and λ of the last call.
    clock
        The clock in force; may be set before either pass.

    Raises
    ------
    ValueError
        If ``derivative`` is neither.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        derivative: str = "vjp",
        *,
        check: bool = True,
        clock: Phase = no_clock,
    ) -> None:
        super().__init__(clock)
        if derivative not in {"jacobian", "vjp"}:
            raise ValueError(f"derivative {derivative!r} is neither 'jacobian' nor 'vjp'")
        self.settings = settings or Settings()
        self.derivative = derivative
        self.check = check

    def forward(
        self,
        P: Tensor,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        *,
        clock: Phase | None = None,
    ) -> Tensor:
        """Return z of shape (n,); see ``last_info`` for whether it is a solution.

        Parameters
        ----------
        P, q, A, b, G, h
            Dense tensors: (n, n), (n,), (neq, n), (neq,), (nineq, n), (nineq,). A and b, or G and
            h, may be None; h may be infinite. The computation is in float64 on the CPU.
        clock
            Sets the attribute ``clock``.

        Warns
        -----
        BPQPWarning
            If the iteration did not end at a solution.

        Raises
        ------
        InstanceError
            A ValueError: shapes do not fit, data are not finite, P is not positive semidefinite, or
            the problem is proved to be infeasible or unbounded.
        MethodError
            If the iteration cannot begin, since P + ρAᵀA + ρGᵀG is singular, or diverges.
        ValueError
            If the Jacobian form is asked for the gradient of a matrix.
        """
        if clock is not None:
            self.clock = clock
        given = (P, q, A, b, G, h)
        matrices = any(part is not None and part.requires_grad for part in (P, A, G))
        if self.derivative == "jacobian" and matrices:
            raise ValueError(
                "the Jacobian with respect to P, A or G has n·n² entries; use derivative='vjp'"
            )

        def solver(*arguments: Any) -> _AltDiffPass:
            return _AltDiffPass(
                arguments, matrices, self.settings, self.derivative, self.check, self.clock
            )

        return self.solve(solver, given)
