"""cvxpylayers 1.2: a CVXPY problem as a torch layer, with Moreau or diffcp behind it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd


class CvxpyLayers(Method):
    """`cvxpylayers.torch.CvxpyLayer` with every datum a parameter, canonicalized once in `build`.

    Moreau takes ½zᵀPz with P a parameter as it is. diffcp has no quadratic objective, there it is
    ½‖Rz‖² with RᵀR = P: torch's Cholesky factor, or the roots of a diagonal P (the LP's ε·I).
    """

    name = "cvxpylayers"
    label = "cvxpylayers (Moreau)"
    reference = "Agrawal et al., NeurIPS 2019; cvxpylayers 1.2, Moreau 0.4"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("torch", "cvxpylayers", "moreau", "diffcp", "clarabel", "scs")
    phases_split = False
    tolerance = "tolerance"
    caveats = MappingProxyType({"lp": "a curvature of 2e-6 is lost in both derivatives"})
    parameters = MappingProxyType(
        {
            "solver": "MOREAU",  # or Clarabel, SCS: diffcp's
            "algorithm": "auto",  # Moreau's: auto (active set for QPs up to n = 500), ipm
            "mode": "auto",  # diffcp's: dense, lsqr, lsmr, lpgd; auto: lsqr on cones, else dense
            "tau": 1e-3,  # size of LPGD's perturbation
            "tolerance": 0.0,  # 0: the solver's own default
        }
    )
    _exact = MappingProxyType({"solver": "SCS", "tolerance": 1e-10})
    variants = MappingProxyType(
        {
            "cvxpylayers-ipm": Variant("cvxpylayers (Moreau, IPM)", {"algorithm": "ipm"}),
            "cvxpylayers-diffcp": Variant("cvxpylayers (diffcp)", _exact),
            "cvxpylayers-defaults": Variant(
                "cvxpylayers (defaults)", {"solver": "SCS", "mode": "lsqr"}
            ),
            "diffcp-lpgd": Variant("diffcp (LPGD)", dict(_exact) | {"mode": "lpgd"}),
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to sparse data, and to ∂P where there is no Cholesky factor to get it from."""
        if instance.cones and "P" in self.wrt and self.options["solver"] != "MOREAU":
            return "no gradient of P: diffcp's objective needs its factor, singular here"
        return "dense data only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Declare the problem with its parameters; CvxpyLayer canonicalizes it."""
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        n, moreau = template.n, self.options["solver"] == "MOREAU"
        self._diagonal = not moreau and "P" not in self.wrt and not np.triu(template.P, 1).any()
        z = cp.Variable(n)
        P = cp.Parameter(n) if self._diagonal else cp.Parameter((n, n), PSD=moreau)
        Rz = cp.multiply(P, z) if self._diagonal else P @ z
        objective = cp.quad_form(z, P) if moreau else cp.sum_squares(Rz)
        given = {name: cp.Parameter(getattr(template, name).shape) for name in "qAbGh"}
        rows = [given["A"] @ z == given["b"]] if template.neq else []
        rows += [given["G"] @ z <= given["h"]] if template.nineq else []
        for i, cone in enumerate(template.cones):
            F, g, c, d = (cp.Parameter(np.shape(getattr(cone, k))) for k in "Fgcd")
            given |= {f"F{i}": F, f"g{i}": g, f"c{i}": c, f"d{i}": d}
            identity = abs(cone.F - np.eye(*F.shape)).max() == 0.0  # then it is no parameter
            rows.append(cp.SOC(c @ z + d, (z if identity else F @ z) + g))
        problem = cp.Problem(cp.Minimize(0.5 * objective + given["q"] @ z), rows)
        used = {p.id for p in problem.parameters()}
        self._given = {name: p for name, p in ({"P": P} | given).items() if p.id in used}
        more = {"solver": "MOREAU" if moreau else None, "solver_args": self._solver_args(template)}
        self._layer = CvxpyLayer(problem, list(self._given.values()), [z], **more)

    def _solver_args(self, template: Instance) -> dict[str, Any]:
        from bpqp_bench.method.cvxpy_program import tolerances

        o, solver = self.options, self.options["solver"]
        tight = tolerances(solver, o["tolerance"])
        if solver == "MOREAU":
            return {"solver": o["algorithm"]} | ({"ipm_settings": tight} if tight else {})
        mode = {"auto": "lsqr" if template.cones else "dense"}.get(str(o["mode"]), o["mode"])
        lpgd = {"derivative_kwargs": {"tau": o["tau"], "rho": 0.0}} if mode == "lpgd" else {}
        return {"solve_method": solver, "mode": mode} | lpgd | tight

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the layer returns the point and no status."""
        import torch

        self._data, values = data, {name: getattr(data, name) for name in "PqAbGh"}
        with clock("solve"):
            for i, cone in enumerate(data.cones):  # F may be sparse, d is a number
                values |= {f"g{i}": cone.g, f"c{i}": cone.c, f"d{i}": data.q.new_tensor(cone.d)}
                values |= {f"F{i}": cone.F.to_dense()} if f"F{i}" in self._given else {}
            if self._diagonal:
                values["P"] = torch.diagonal(data.P, dim1=-2, dim2=-1).sqrt()
            elif self.options["solver"] != "MOREAU":
                values["P"] = torch.linalg.cholesky(data.P).mT
            try:
                (self._z,) = self._layer(*(values[name] for name in self._given))
            except Exception as error:  # diffcp's SolverError, and what CVXPY makes of it
                raise MethodError(f"cvxpylayers: {error}") from error
        return Solution(self._z, status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
