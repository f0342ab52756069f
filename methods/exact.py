"""Exact: differentiate the full KKT system, the paper's first baseline."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.torch_pass import autograd


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
    requires = ("torch", "osqp", "clarabel")
    group = "paper"
    framework = "torch"
    dtypes = frozenset({"float64", "float32"})
    parameters = MappingProxyType(
        {
            "backward": "inverse",
            # The forward pass is BPQP's: the same solver, stopping rule and polishing.
            "forward": "osqp",
            "eps": 1e-5,  # absolute and relative tolerance; 0: the solver's own default
            "max_iter": 100_000,
            "polish": "active-set",
            "equilibrate": True,
        }
    )
    variants = MappingProxyType(
        {
            "exact-solve": Variant("Exact (factorized)", {"backward": "solve"}),
            "exact-paper": Variant(
                "Exact (OSQP default tolerances)",
                {"eps": 0.0, "max_iter": 0, "polish": "none", "equilibrate": False},
                caveats={"lp": "a tolerance of 1e-3 hides multipliers next to P = 2e-6·I"},
            ),
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to gradients of sparse matrices: the whole KKT matrix is dense."""
        if instance.is_sparse and {"P", "A", "G"} & set(self.wrt):
            return "no gradient of a sparse matrix: the whole KKT matrix is dense"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the layer; the solver is set up anew for every problem, as in the paper.

        Raises
        ------
        SpecError
            If a parameter has an unknown value.
        """
        from bpqp_bench.layers import ExactKKT
        from bpqp_bench.layers.settings import Settings

        o: Any = self.options
        settings = Settings(
            forward=o["forward"],
            eps_abs=o["eps"],
            eps_rel=o["eps"],
            max_iter=o["max_iter"],
            polish=o["polish"],
            equilibrate=o["equilibrate"],
        )
        try:
            self._layer = ExactKKT(o["backward"], settings)
        except ValueError as error:
            raise SpecError(f"{self.key}: {error}") from None

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve by OSQP, or by Clarabel where there are cones."""
        self._data = d = data
        self._z = self._layer(d.P, d.q, d.A, d.b, d.G, d.h, cones=d.cones, clock=clock)
        return Solution(self._z)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Evaluate the optimality conditions (prepare), assemble, invert or solve."""
        return autograd(self._z, self._data, self.wrt, upstream)

    def describe(self, solution: Solution) -> Solution:
        """Add multipliers and what the layer says."""
        (info,) = self._layer.last_info
        nu, lam, mu = self._layer.multipliers
        return replace(
            solution,
            nu=nu,
            lam=lam,
            mu=mu,
            status=info["status"],
            iterations=info["iterations"],
            info=info,
        )
