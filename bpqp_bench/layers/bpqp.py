"""The BPQP layer: a convex QP as a torch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bpqp_bench.errors import InstanceError
from bpqp_bench.layers.autograd import Call, solve
from bpqp_bench.layers.dense_data import DenseData, read_dense, rows_of_bounds
from bpqp_bench.layers.passes import DenseOutcome, DensePass, Passes
from bpqp_bench.layers.primal_dual import batched, cpu
from bpqp_bench.layers.primal_dual.rules import Point
from bpqp_bench.layers.problem import Phase, no_clock
from bpqp_bench.layers.settings import Settings
from bpqp_bench.layers.solver_pass import BPQPWarning, Info, Instances, Outcome, SolverPass
from bpqp_bench.layers.torch_data import Argument, Batch, check_data, read_batch
from bpqp_bench.problem.instance import SecondOrderCone

__all__ = ["BPQP", "BPQPWarning"]


class BPQP(torch.nn.Module):
    """Differentiable solution of minimize ½zᵀPz + qᵀz subject to Az = b, Gz ≤ h.

    The backward pass is a quadratic program, too (Pan et al., NeurIPS 2024, Theorem 1). By default
    both passes share one factorization: an active-set method solves forward, and the backward QP is
    one more solve with its factors (`bpqp_bench.layers.primal_dual`). A batch is one computation,
    on the device of its tensors. The paper's layer, OSQP in both passes, is
    ``BPQP("osqp", "osqp")``.

    Parameters
    ----------
    forward
        "active-set"; or a solver: "osqp", "proxqp", "proxqp-sparse", "piqp", "clarabel", "daqp",
        "quadprog", "highs", "scs" or "scs-indirect". Instances that the active-set method does not
        settle go to other solvers, which ``last_info`` names.
    backward
        "direct", one factorization (that of the forward pass, where there is one); "minres", none
        at all (large sparse problems of irregular pattern); or a solver, as above.
    eps_abs, eps_rel, max_iter
        Stopping rule of the solvers; 0 leaves the solver's own default. The active-set method ends
        at rounding level and does not use them.
    polish
        What follows a solver: "active-set" solves the forward problem exactly on its binding rows
        and corrects the rows until the KKT conditions hold to rounding error; "solver" is OSQP's
        own polishing; "none".
    active_tol
        Slack and multiplier, relative to the scale of the data, below which a row counts as weakly
        active; 0 ties it to the residuals that were achieved.
    gradient
        "optimal"; or "general", the derivative that keeps the KKT residual of the point at which
        the solver stopped (see `bpqp_bench.layers.general_gradient`), for loose tolerances and
        ``polish="none"``.
    on_failure
        "raise" names all instances that have no solution; "nan" returns NaN for them, with zero
        gradients and the cause in ``last_info``, and the solutions of the others.
    time_limit
        Seconds for one instance in other solvers than the active-set method, 0 for none. It is
        given to those that know of limits, and no other is begun after it.
    equilibrate
        Whether other solvers get the problem in units of its own. The published configuration,
        ``BPQP("osqp", "osqp", eps_abs=0, eps_rel=0, max_iter=0, polish="none",
        equilibrate=False)``, leaves that to OSQP.
    check
        Whether to test beforehand that P is positive semidefinite where a solver other than the
        active-set method runs. Shapes and finiteness are always checked.
    clock
        Called with the name of a phase ("prepare", "setup", "solve", "extract"), returns a context
        manager that times it; see also the attribute.

    Attributes
    ----------
    last_info
        One dictionary per instance of the last call: status, iterations, residuals, number of
        binding and weakly active rows; after the backward pass also ``gradient``: "exact",
        "one-sided" (a row is weakly active: the solution has directional derivatives only, and the
        gradient is that of one side), "least-squares" (binding rows are dependent, or the
        objective is flat along a direction that they leave free: the solution of least norm) or
        "inaccurate" (the adjoint's residual is large); and ``adjoint_residual``, relative.
    state
        Mask of the binding rows of the last call, (nineq,) or (batch, nineq), from which a next
        call may start; None before the first.
    multipliers
        ν (neq,), λ (nineq,) and, where cones were given, μ (cones,) of the last call, with a
        leading dimension for a batch; copies in float64.
    clock
        The clock in force; may be set before either pass.

    Notes
    -----
    Only the symmetric part of P counts, since zᵀPz does not see the rest; ∇P is symmetric.
    Computations are in float64 whatever the tensors' type; results have the type of q. Second
    derivatives raise a RuntimeError. `torch.func` works (grad, vjp, jacrev, vmap).
    """

    def __init__(
        self,
        forward: str = "active-set",
        backward: str = "direct",
        *,
        eps_abs: float = 1e-5,
        eps_rel: float = 1e-5,
        max_iter: int = 100_000,
        polish: str = "active-set",
        active_tol: float = 0.0,
        gradient: str = "optimal",
        on_failure: str = "raise",
        time_limit: float = 0.0,
        equilibrate: bool = True,
        check: bool = True,
        clock: Phase = no_clock,
    ) -> None:
        super().__init__()
        self.settings = Settings(
            forward=forward,
            backward=backward,
            eps_abs=eps_abs,
            eps_rel=eps_rel,
            max_iter=max_iter,
            polish=polish,
            active_tol=active_tol,
            gradient=gradient,
            on_failure=on_failure,
            time_limit=time_limit,
            equilibrate=equilibrate,
        )
        self.check = check
        self.clock = clock
        self._last: Outcome | DenseOutcome | None = None

    @property
    def last_info(self) -> Info:
        """One dictionary per instance of the last call."""
        return [] if self._last is None else self._last.facts()

    @property
    def state(self) -> Tensor | None:
        """Mask of the binding rows of the last call."""
        return None if self._last is None else self._last.state

    @property
    def multipliers(self) -> tuple[Tensor, ...]:
        """Multipliers of the last call."""
        duals = () if self._last is None else self._last.duals
        return tuple(torch.as_tensor(dual).detach().clone() for dual in duals)

    def extra_repr(self) -> str:
        """Show the two solvers."""
        return f"forward={self.settings.forward!r}, backward={self.settings.backward!r}"

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
        l: Tensor | None = None,  # noqa: E741 - the name that solvers give it
        lb: Tensor | None = None,
        ub: Tensor | None = None,
        start: Tensor | None = None,
        clock: Phase | None = None,
    ) -> Tensor:
        """Solve.

        Parameters
        ----------
        P, q, A, b, G, h
            Shapes (n, n), (n,), (neq, n), (neq,), (nineq, n), (nineq,), each with or without a
            leading batch dimension; what has none is shared by the batch (factorized once), and its
            gradient is the sum. A and b, or G and h, may be None. P, A and G may be torch sparse
            tensors (COO, CSR, CSC; never batched) or SciPy sparse matrices (constants); nothing is
            made dense then, and gradients are sparse on the same pattern.
        cones
            Further constraints ‖Fz + g‖ ≤ cᵀz + d, the same for a whole batch, with arrays or
            tensors; constants, without gradients.
        l, lb, ub
            Lower side of l ≤ Gz ≤ h, (nineq,), and bounds lb ≤ z ≤ ub, (n,), batched or not;
            dense data only. They become rows of G and h, in the order h, l, ub, lb. Where a bound
            is infinite there is no row, and its gradient is zero; that holds for h, too.
        start
            Mask of the rows that are thought to bind, as in ``state``: where it is nearly right,
            the active-set method needs fewer steps. It never changes the solution.
        clock
            Sets the attribute ``clock``.

        Returns
        -------
        Tensor
            z*, shape (n,), or (batch, n) if any argument has a batch dimension.

        Raises
        ------
        InstanceError
            A ValueError that names the instance: misshapen, not finite, P not positive
            semidefinite, infeasible, unbounded.
        MethodError
            If the solver failed otherwise, or (in the backward pass) gave no answer.
        """
        if clock is not None:
            self.clock = clock
        if not (l is None and lb is None and ub is None):
            G, h = rows_of_bounds(q, G, h, l, lb, ub)
        # Under torch.compile, one break of the graph in place of one at each thing it cannot trace.
        disable: Any = torch.compiler.disable  # untyped
        run = disable(self._run) if torch.compiler.is_compiling() else self._run
        z: Tensor = run((P, q, A, b, G, h), start, cones)
        return z

    def _run(
        self, given: Sequence[Any], start: Tensor | None, cones: Sequence[SecondOrderCone]
    ) -> Tensor:
        call = Call(
            lambda *arguments: self._solve(arguments, start, cones), given, lambda: self.clock
        )
        z = solve(call, given)
        self.__dict__["_last"] = call.solved.outcome  # nn.Module's own assignment takes 3 µs
        return z

    def _solve(
        self, given: Sequence[Any], start: Tensor | None, cones: Sequence[SecondOrderCone]
    ) -> Passes:
        settings, clock = self.settings, self.clock
        with clock("prepare"):
            data = None if cones else read_dense(*given)
        if data is not None and (settings.shares_factors or data.count == 0):
            passes = _by_active_set(data, settings, start, clock)
            if passes is not None:
                return passes
        with clock("prepare"):
            P, q, A, b, G, h = given
            batch = read_batch(P, q, A, b, G, h, cones) if data is None else Batch.of(data)
            failures = check_data(batch, convex=self.check)
        likes = [value if isinstance(value, Tensor) else None for value in given]
        return SolverPass(batch, likes, failures, settings, clock)


def _by_active_set(
    data: DenseData, settings: Settings, start: Tensor | None, clock: Phase
) -> Passes | None:
    """Solve by the kernels; None where one problem alone needs another solver."""
    h = data.parts[5]
    mask = None if start is None else _mask(start, (data.count, h.shape[-1])).to(h.device)
    with clock("solve"):
        found = _by_kernel(data, settings, mask)
        left = found.left
        if left and bool(h.isposinf().any()):
            found = _by_kernel(data.without_infinite_rows(), settings, mask)
            left = found.left
    if not left:
        return DensePass(data, found, None)
    if data.count == 1 and h.is_cpu:
        return None
    with clock("prepare"):
        batch = Batch.of(data)
        failures = check_data(batch, left)
    return DensePass(data, found, Instances(batch, left, failures, settings, clock))


def _by_kernel(data: DenseData, settings: Settings, start: Tensor | None) -> Point:
    if not data.parts[1].is_cpu:
        return _by_torch(data, settings, start)
    return cpu.solve(*data.parts, start, settings.active_tol)


def _by_torch(data: DenseData, settings: Settings, start: Tensor | None) -> Point:
    P, _, A, _, G, _ = data.parts
    q, b, h = data.vectors()
    return batched.solve(P, q, A, b, G, h, start, settings.active_tol)


def _mask(start: Tensor, shape: tuple[int, ...]) -> Tensor:
    if start.dtype != torch.bool or start.numel() != torch.Size(shape).numel():
        raise InstanceError(
            f"start is {start.dtype} of shape {tuple(start.shape)}; expected a mask (torch.bool) "
            f"of shape {shape}, as in the layer's attribute state"
        )
    return start.detach().reshape(shape)
