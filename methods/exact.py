"""Exact: differentiate the full KKT system, the paper's first baseline."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.problem.solution import Solution


class Exact(Method):
    """OSQP forward (Clarabel for cones); backward by the whole KKT matrix.

    ``backward=inverse`` is the paper's: all inequalities in the matrix, `numpy.linalg.inv`, and the
    phase "solve" is the inversion alone. ``backward=solve`` has the same forward pass and the same
    equations, made symmetric and factorized once.
    """

    name = "exact"
    label = "Exact"
    reference = "Amos and Kolter, ICML 2017, eq. 6; Pan et al., NeurIPS 2024, section 5.1"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("osqp", "clarabel")
    parameters = MappingProxyType(
        {
            "backward": "inverse",
            # The forward pass is BPQP's: the same solver, stopping rule and polishing.
            "forward": "osqp",
            "eps": 1e-5,  # absolute and relative tolerance; 0: the solver's own default
            "max_iter": 100_000,
            "polish": "active-set",
        }
    )
    variants = MappingProxyType(
        {
            "exact-solve": Variant("Exact (factorized)", {"backward": "solve"}),
            "exact-paper": Variant(
                "Exact (OSQP default tolerances)",
                {"eps": 0.0, "max_iter": 0, "polish": "none"},
                caveats={"lp": "a tolerance of 1e-3 hides multipliers next to P = 2e-6·I"},
            ),
        }
    )

    def build(self, template: Instance) -> None:
        """Do nothing: the solver is set up anew for every problem, as in the paper.

        Raises
        ------
        SpecError
            If the parameter ``backward`` is neither "inverse" nor "solve".
        """
        if self.options["backward"] not in ("inverse", "solve"):
            raise SpecError(f"backward={self.options['backward']} of {self.key}: inverse or solve")

    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """Solve by OSQP, or by Clarabel where there are cones."""
        from bpqp_bench.layers.bpqp_core import Settings
        from bpqp_bench.layers.exact import solve_forward

        o: Any = self.options
        settings = Settings(
            forward=o["forward"],
            eps_abs=o["eps"],
            eps_rel=o["eps"],
            max_iter=o["max_iter"],
            polish=o["polish"],
        )
        self._problem = problem
        self._solution = solve_forward(problem, settings, clock)
        return self._solution

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array]:
        """Evaluate the optimality conditions (prepare), assemble, invert or solve."""
        from bpqp_bench.layers.exact import exact_adjoint, gradients, kkt_point

        s = self._solution
        with clock("prepare"):
            point = kkt_point(self._problem, s.z, s.nu, s.lam, s.mu)
        adjoint = exact_adjoint(point, upstream, self.options["backward"], clock)
        with clock("extract"):
            return gradients(point, adjoint, self.wrt)
