"""How BPQP solves its two problems."""

from __future__ import annotations

from dataclasses import dataclass

from bpqp_bench.errors import SpecError
from bpqp_bench.layers.problem import Tolerances
from bpqp_bench.layers.qp_solvers import CONE_SOLVERS, SOLVERS

BACKWARD_SOLVERS = (*SOLVERS, "direct", "minres")
POLISH = ("none", "solver", "active-set")
GRADIENTS = ("optimal", "general")
ON_FAILURE = ("raise", "nan")


@dataclass(frozen=True)
class Settings:
    """How BPQP solves its two problems.

    Attributes
    ----------
    forward, backward
        Solver of each pass: "active-set" (forward) or one of `SOLVERS`; "direct" factorizes the
        backward system, "minres" solves it (and the polishing's) without a factorization.
    cone_forward
        Solver of the forward pass where there are cones and ``forward`` takes none.
    eps_abs, eps_rel, max_iter
        Stopping rule of both passes; 0 leaves the solver's own.
    polish
        "none"; "solver", OSQP's own polishing in the passes that OSQP solves; "active-set", which
        solves the forward problem exactly on its binding rows and corrects them (`polish_qp`; where
        that fails, the solver is asked once more, with a tolerance of 1e-9, and then another one).
    active_tol
        Slack and multiplier, relative to the scale of the data, below which a row is weakly active;
        0 takes ten times the residuals that the solver achieved.
    gradient
        "optimal", the gradient of the solution on its binding rows; "general", that of the map
        which keeps the KKT residual of the point where the solver stopped (`general_adjoint`,
        always direct; no cones).
    on_failure
        "raise"; or "nan": an instance without a solution is NaN and has zero gradients.
    equilibrate
        Whether solvers get the problem in units of its own (`bpqp_bench.layers.equilibrate`). The
        published configuration leaves that to OSQP.
    time_limit
        Seconds for one instance's forward pass, 0 for none: given to the solvers that know of
        limits, and no other solver is begun after it.
    """

    forward: str = "osqp"
    backward: str = "osqp"
    cone_forward: str = "clarabel"
    eps_abs: float = 1e-5
    eps_rel: float = 1e-5
    max_iter: int = 100_000
    polish: str = "active-set"
    active_tol: float = 0.0
    gradient: str = "optimal"
    on_failure: str = "raise"
    equilibrate: bool = True
    time_limit: float = 0.0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("forward", self.forward, ("active-set", *SOLVERS)),
            ("backward", self.backward, BACKWARD_SOLVERS),
            ("cone_forward", self.cone_forward, CONE_SOLVERS),
            ("polish", self.polish, POLISH),
            ("gradient", self.gradient, GRADIENTS),
            ("on_failure", self.on_failure, ON_FAILURE),
        ):
            if value not in known:
                raise SpecError(f"{what}={value!r} of BPQP is not one of {', '.join(known)}")
        if min(self.eps_abs, self.eps_rel, self.max_iter, self.active_tol, self.time_limit) < 0:
            raise SpecError("tolerances and limits of BPQP cannot be negative")

    @property
    def shares_factors(self) -> bool:
        """Whether the backward pass is one more solve with the factors of the forward pass."""
        return (
            self.forward == "active-set"
            and self.backward == "direct"
            and self.gradient == "optimal"
        )

    @property
    def tolerances(self) -> Tolerances:
        """Stopping rule of the solvers."""
        return Tolerances(self.eps_abs, self.eps_rel, self.max_iter, self.time_limit)
