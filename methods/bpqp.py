"""BPQP: the backward pass as a quadratic program, any solver in either pass."""

from collections.abc import Mapping
from types import MappingProxyType

from bpqp_bench.errors import MethodError
from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Array, Instance, Matrix
from bpqp_bench.problem.solution import Solution


class BPQP(Method):
    """OSQP in both passes, as in the paper, unless told otherwise (Clarabel forward for cones).

    The forward solution is polished on its binding rows, so that its gradient can be trusted on
    every family; ``bpqp-paper`` leaves that out and has OSQP's default tolerances of 1e-3.
    """

    name = "bpqp"
    label = "BPQP"
    reference = "Pan et al., NeurIPS 2024, Theorem 1"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("osqp", "proxsuite", "piqp", "clarabel", "daqp", "quadprog", "highspy", "scs")
    parameters = MappingProxyType(
        {
            "forward": "osqp",
            "backward": "osqp",
            "cone_forward": "clarabel",
            "eps_abs": 1e-5,
            "eps_rel": 1e-5,
            "max_iter": 100_000,
            "polish": "active-set",
            "active_tol": 0.0,
            "gradient": "optimal",
        }
    )
    variants = MappingProxyType(
        {
            "bpqp-paper": Variant(
                "BPQP (OSQP default tolerances)",
                {"eps_abs": 0.0, "eps_rel": 0.0, "max_iter": 0, "polish": "none"},
                caveats={"lp": "a tolerance of 1e-3 hides multipliers next to P = 2e-6·I"},
            ),
            "bpqp-direct": Variant("BPQP (direct backward)", {"backward": "direct"}),
            "bpqp-fast": Variant(
                "BPQP (ProxQP, direct)",
                {"forward": "proxqp", "backward": "direct"},
            ),
        }
    )

    def build(self, template: Instance) -> None:
        """Check the parameters and load the solvers; every problem is set up anew."""
        from bpqp_bench.layers.bpqp_core import Settings

        del template
        self._settings = Settings(**self.options)

    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """Solve the problem and find its binding rows."""
        from bpqp_bench.layers.bpqp_core import forward_pass
        from bpqp_bench.layers.problem import ConvexQP

        done = forward_pass(ConvexQP.of(problem), self._settings, clock)
        found = done.solution
        if found.status in {"infeasible", "unbounded", "not convex"} or found.primal == float(
            "inf"
        ):
            raise MethodError(
                f"{done.info['forward']} calls instance {problem.name} {found.status}"
            )
        self._done = done
        # The dictionary is the solution's own: `backward` adds what it learns.
        self._info: dict[str, object] = dict(done.info) | {
            "active_rows": done.n_active,
            "weakly_active_rows": int(done.active.weak.sum()),
            "primal_residual": found.primal,
            "dual_residual": found.dual,
            "eps_abs": self._settings.eps_abs,
            "eps_rel": self._settings.eps_rel,
        }
        return Solution(
            found.z,
            found.nu,
            found.lam,
            found.mu,
            status=found.status,
            iterations=found.iterations,
            info=self._info,
        )

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array | Matrix]:
        """Solve the backward QP on the binding rows."""
        from bpqp_bench.layers.bpqp_core import backward_pass, gradients

        adjoint = backward_pass(self._done, upstream, self._settings, clock)
        self._info["gradient"] = adjoint.gradient
        self._info["backward_status"] = adjoint.status
        if adjoint.iterations is not None:
            self._info["backward_iterations"] = adjoint.iterations
        with clock("extract"):
            return gradients(self._done, adjoint, self.wrt)
