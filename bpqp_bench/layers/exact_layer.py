"""The exact KKT layer in torch; the mathematics is in `bpqp_bench.layers.exact`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.autograd import OneProblemLayer
from bpqp_bench.layers.dense_data import read_dense
from bpqp_bench.layers.exact import Mode, exact_adjoint, gradients, kkt_adjoint_residual, kkt_point
from bpqp_bench.layers.primal_dual.rules import ACCURATE
from bpqp_bench.layers.problem import Phase, no_clock
from bpqp_bench.layers.settings import Settings
from bpqp_bench.layers.solver_pass import Outcome, flag, solve_instance
from bpqp_bench.layers.torch_data import NAMES, Argument, Batch, check_data, read_batch
from bpqp_bench.problem.instance import SecondOrderCone

_SINGULAR = 1e13  # condition number from which nothing of a multiplier is certain


class _ExactPass:
    """One problem and its KKT system, see `bpqp_bench.layers.passes.Passes`."""

    native = False

    def __init__(self, batch: Batch, settings: Settings, mode: Mode, clock: Phase) -> None:
        for error in check_data(batch).values():
            raise error
        qp = batch.instance(0)
        done = solve_instance(qp, 0, settings, clock)
        found, self._facts = done.solution, done.facts()
        self._qp, self._at, self._mode = qp, found, mode
        self._weak = bool(done.active.weak.any())
        self.z = torch.from_numpy(found.z)
        rows = torch.from_numpy(done.active.rows)
        self.outcome = Outcome([self._facts], rows, (found.nu, found.lam, found.mu))

    def solution(self) -> Tensor:
        """``z`` in memory of its own."""
        return self.z.clone()

    def pullback(
        self, upstream: Tensor, needed: Sequence[bool], clock: Phase, apart: bool = False
    ) -> list[Tensor | None]:
        """Gradients with respect to P, q, A, b, G, h."""
        v = upstream.to(device="cpu", dtype=torch.float64).numpy()
        at = self._at
        with clock("prepare"):
            point = kkt_point(self._qp, at.z, at.nu, at.lam, at.mu)
        adjoint = exact_adjoint(point, v, self._mode, clock)
        residual = kkt_adjoint_residual(point, adjoint, v)
        # A solver leaves rounding where a slack or a multiplier is zero, and the matrix of
        # dependent rows is then not singular, but as good as that.
        accurate = residual <= ACCURATE and adjoint.condition <= _SINGULAR
        kind = flag(residual, self._weak) if accurate else "inaccurate"
        self._facts.update(gradient=kind, adjoint_residual=residual)
        wanted = [name for name, need in zip(NAMES, needed, strict=True) if need]
        found = gradients(point, adjoint, wanted)
        parts = [torch.from_numpy(np.asarray(found[n])) if n in found else None for n in NAMES]
        return [part.unsqueeze(0) if apart and part is not None else part for part in parts]


class ExactKKT(OneProblemLayer):
    """QP layer differentiated by its full KKT system.

    Parameters
    ----------
    backward
        "solve": one symmetric factorization; "inverse": the explicit inverse of the paper's
        baseline, many times slower and no more exact.
    settings
        Forward solver, stopping rule and polishing; what they say of a backward pass is not used.
    clock
        As in `BPQP`.

    Attributes
    ----------
    last_info
        A list of one dictionary, as in `BPQP`.
    multipliers
        ν, λ and μ (of cones) of the last call.
    clock
        The clock in force; may be set before either pass.

    Raises
    ------
    ValueError
        If ``backward`` is neither.

    Notes
    -----
    Tensors of any float type and device are taken; the computation is in float64 on the CPU. A
    backward pass raises `MethodError` where the KKT matrix is singular; `BPQP` is the layer that
    has an answer there. Second derivatives raise a RuntimeError.
    """

    def __init__(
        self,
        backward: Mode = "solve",
        settings: Settings | None = None,
        *,
        clock: Phase = no_clock,
    ) -> None:
        super().__init__(clock)
        if backward not in get_args(Mode):
            raise ValueError(f"backward {backward!r} is neither 'inverse' nor 'solve'")
        self.backward_mode: Mode = backward
        self.settings = settings or Settings()

    def forward(
        self,
        P: Argument,
        q: Tensor,
        A: Argument | None = None,
        b: Tensor | None = None,
        G: Argument | None = None,
        h: Tensor | None = None,
        *,
        cones: Sequence[SecondOrderCone] = (),
        clock: Phase | None = None,
    ) -> Tensor:
        """Return z* of shape (n,) of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

        Parameters
        ----------
        P, q, A, b, G, h
            Tensors (n, n) symmetric, (n,), (neq, n), (neq,), (nineq, n), (nineq,); A and b, or G
            and h, may be None. Sparse matrices are made dense and get no gradient.
        cones
            Further constraints ‖Fz + g‖ ≤ cᵀz + d; constants.
        clock
            Sets the attribute ``clock``.

        Raises
        ------
        InstanceError
            If shapes don't fit, entries are not finite, or the problem is proved to be infeasible
            or unbounded.
        MethodError
            If no solver finds a solution.
        """
        if clock is not None:
            self.clock = clock
        given = (P, q, A, b, G, h)
        for name, value in zip(NAMES, given, strict=True):
            if isinstance(value, Tensor) and value.requires_grad and value.layout != torch.strided:
                raise InstanceError(f"ExactKKT has no gradient of a sparse {name}; BPQP has")

        def solver(*arguments: Any) -> _ExactPass:
            with self.clock("prepare"):
                batch = _read(arguments, cones)
            return _ExactPass(batch, self.settings, self.backward_mode, self.clock)

        return self.solve(solver, given)


def _read(given: Sequence[Any], cones: Sequence[SecondOrderCone]) -> Batch:
    data = None if cones else read_dense(*given)
    P, q, A, b, G, h = given
    batch = read_batch(P, q, A, b, G, h, cones) if data is None else Batch.of(data)
    if batch.batched:
        raise InstanceError("ExactKKT takes one problem a call, without a batch dimension")
    return batch
