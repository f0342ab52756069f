"""Exact: differentiate the full KKT system, the paper's first baseline."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench.clock import PhaseClock
from bpqp_bench.contract import Method, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.instance import Array, Instance


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
            "forward": "osqp",  # any solver of `bpqp_bench.layers.qp_solvers`
            "eps": 1e-9,  # absolute and relative tolerance; 0: the solver's own default
            "max_iter": 10_000,
            "polish": True,  # OSQP's own
            "socp_eps": 1e-9,  # Clarabel's; at 1e-10 it stops short on some of socp-robust
        }
    )
    variants = MappingProxyType(
        {
            "exact-solve": Variant("Exact (factorized)", {"backward": "solve"}),
            "exact-paper": Variant(
                "Exact (OSQP default tolerances)", {"eps": 0.0, "max_iter": 0, "polish": False}
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
        from bpqp_bench.layers.exact import solve_forward
        from bpqp_bench.layers.problem import Tolerances

        o: Any = self.options
        self._problem = problem
        if problem.cones:
            limits = Tolerances(o["socp_eps"], o["socp_eps"])
            self._solution = solve_forward(problem, "clarabel", limits, phase=clock)
        else:
            limits = Tolerances(o["eps"], o["eps"], o["max_iter"])
            self._solution = solve_forward(problem, o["forward"], limits, o["polish"], clock)
            if problem.problem_class == "lp" and not 0 < o["eps"] < 1e-6:
                # The LP's quadratic term has 2e-6 on its diagonal: the solver can't see it.
                self._solution = replace(self._solution, info={"approximate": True})
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
