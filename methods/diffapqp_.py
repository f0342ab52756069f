"""DiffAPQP: CVXPY problems whose q, b and h are parameters, differentiated by their KKT system."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant

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
        del template
        o = self.options
        names: tuple[str, ...] = ("eps_abs", "eps_rel")
        if o["solver"] == "CLARABEL":
            names = ("tol_feas", "tol_gap_abs", "tol_gap_rel")
        self._solver_args = {name: o["tolerance"] for name in names if o["tolerance"]}

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Declare this instance's problem, then solve it through the layer."""
        import cvxpy as cp
        from diffapqp import SolMapLayer

        o, self._data = self.options, data
        with clock("setup"):
            P, A, G = (t.detach().numpy() for t in (data.P, data.A, data.G))
            z = cp.Variable(len(data.q), name="z")
            given = {name: cp.Parameter(len(getattr(data, name)), name=name)
                     for name in _PARAMETERS if len(getattr(data, name))}  # fmt: skip
            rows = [A @ z == given["b"]] if "b" in given else []
            rows += [G @ z <= given["h"]] if "h" in given else []
            # psd_wrap spares CVXPY's eigenvalue test of P, as its manual advises
            objective = 0.5 * cp.quad_form(z, cp.psd_wrap(P)) + given["q"] @ z
            layer = SolMapLayer(
                cp.Problem(cp.Minimize(objective), rows),
                max_n_cores=1,
                act_ineq_tol=o["active_tol"] or None,
                act_ineq_tol_rel=o["active_tol"] or None,
            )
        with clock("solve"):
            try:
                primal, *_ = layer(
                    {name: getattr(data, name)[None] for name in given},
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
        import torch

        with clock("solve"):
            wanted = [getattr(self._data, name) for name in self.wrt]
            found = torch.autograd.grad(self._z, wanted, upstream, materialize_grads=True)
        return dict(zip(self.wrt, found, strict=True))
