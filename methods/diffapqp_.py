"""DiffAPQP: CVXPY problems whose q, b and h are parameters, differentiated by their KKT system."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd
from bpqp_bench.problem.instance import DATA_NAMES

_PARAMETERS = ("q", "b", "h")


class DiffAPQP(Method):
    """`diffapqp.SolMapLayer`, with the reduced KKT system and a sparse direct solve.

    P, A and G are constants of its problems, so that each instance of this suite is another
    problem: it is declared and canonicalized inside the forward pass, where a user with such data
    would have to do it. With constant matrices that is paid once (docs/methods.md). The defaults,
    in ``diffapqp-defaults``, are OSQP at 1e-5, the full KKT system, and LSQR.
    """

    name = "diffapqp"
    label = "DiffAPQP"
    reference = "Xu, DiffAPQP 0.2.0, 2026"
    group = "modern"
    framework = "torch"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "DiffAPQP takes linear constraints only"})
    requires = ("torch", "cvxpy", "diffapqp", "clarabel", "osqp")
    tolerance = "tolerance"
    parameters = MappingProxyType(
        {
            "solver": "CLARABEL",  # or OSQP
            "tolerance": 1e-10,  # 0: the solver's own default
            "reduced": True,  # active rows and no complementarity
            "mode": "spsolve",  # or lsqr; minres with the reduced system
            "active_tol": 1e-7,  # a row binds below it; 0: the library's rule, 1e-4 or more
        }
    )
    variants = MappingProxyType(
        {
            "diffapqp-defaults": Variant(
                "DiffAPQP (defaults)",
                {"solver": "OSQP", "tolerance": 0.0, "reduced": False, "mode": "lsqr",
                 "active_tol": 0.0},
                caveats={"lp": "a tolerance of 1e-5 hides multipliers next to P = 2e-6·I"},
            )
        }
    )  # fmt: skip

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones and to gradients of matrices."""
        if matrices := [name for name in self.wrt if name not in _PARAMETERS]:
            return f"DiffAPQP's parameters are q, b and h: no gradient of {', '.join(matrices)}"
        return "dense data only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Choose the solver's options; matrices are constants, so nothing else can be kept."""
        from bpqp_bench.method.cvxpy_program import tolerances

        del template
        self._solver_args = tolerances(self.options["solver"], self.options["tolerance"])

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Declare this instance's problem, then solve it through the layer."""
        from diffapqp import SolMapLayer

        from bpqp_bench.method.cvxpy_program import constant

        o, self._data = self.options, data
        with clock("setup"):
            values = {name: getattr(data, name).detach().numpy() for name in DATA_NAMES}
            program = constant(replace(data, **values), _PARAMETERS)
            layer = SolMapLayer(
                program.problem,
                max_n_cores=1,
                act_ineq_tol=o["active_tol"] or None,
                act_ineq_tol_rel=o["active_tol"] or None,
            )
        with clock("solve"):
            try:
                primal, *_ = layer(
                    {name: getattr(data, name)[None] for name in program.given},
                    solver=o["solver"],
                    solver_args=self._solver_args,
                    reduced_kkt=o["reduced"],
                    mode=o["mode"],
                )
            except ValueError as error:
                raise MethodError(f"DiffAPQP: {error}") from error
            self._z = primal["z"][0]
        return Solution(self._z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
