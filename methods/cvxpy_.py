"""CVXPY: a parametrized problem, solved and differentiated through diffcp."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array

_CHOICES = {
    "form": ("parameters", "constants"),
    "solver": ("CLARABEL", "SCS"),
    "mode": ("auto", "dense", "lsqr", "lsmr"),
}
_PAPER = {"form": "constants", "solver": "SCS", "mode": "lsqr"}


class Cvxpy(Method):
    """A CVXPY problem with ``requires_grad=True``; its derivative is diffcp's.

    ``form=parameters`` declares all data as parameters of one problem, canonicalized once, in
    `build`; "prepare" holds the assignment, "solve" the cone solver with diffcp's preparation of
    the derivative, "extract" the way back to CVXPY's variables. ``form=constants`` is what the
    paper runs: q alone is a parameter, each call canonicalizes anew, and the whole of
    `Problem.solve` is "solve". Both are declared in `bpqp_bench.method.cvxpy_program`.
    """

    name = "cvxpy"
    label = "CVXPY"
    reference = "Agrawal et al., NeurIPS 2019; Agrawal et al., J. Appl. Numer. Optim. 2019"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("cvxpy", "diffcp", "clarabel", "scs")
    group = "paper"
    tolerance = "tolerance"
    parameters = MappingProxyType(
        {
            "form": "parameters",
            "solver": "CLARABEL",
            "mode": "auto",  # how diffcp solves for the derivative: dense, lsqr, lsmr; see `build`
            "tolerance": 0.0,  # 0: the solver's own default
            "drop_epsilon": False,  # LP without its ε‖z‖²: another problem, see `poses`
        }
    )
    caveats = MappingProxyType({"lp": "tolerances of 1e-8 hide multipliers next to P = 2e-6·I"})
    variants = MappingProxyType(
        {
            "cvxpy-paper": Variant("CVXPY (defaults)", _PAPER),
            "cvxpy-lsqr": Variant("CVXPY (LSQR)", {"mode": "lsqr"}),
            "cvxpy-lp0": Variant("CVXPY (ε = 0)", {"drop_epsilon": True}),
        }
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key, known in _CHOICES.items():
            if self.options[key] not in known:
                raise SpecError(f"{key}={self.options[key]} of {self.name}: {' or '.join(known)}")
        self.phases_split = self.options["form"] == "parameters"

    def unsupported(self, instance: Instance) -> str | None:
        """Return why not: ε = 0 is for LPs, and constants carry no gradient."""
        if self.options["drop_epsilon"] and instance.problem_class != "lp":
            return "this variant drops the term ε‖z‖² that only the LP has"
        if self.options["drop_epsilon"] and "P" in self.wrt:
            return "this variant drops P, so that there is no gradient of it"
        if self.options["form"] == "constants" and set(self.wrt) - {"q"}:
            return "with form=constants q alone is a parameter; use form=parameters"
        return super().unsupported(instance)

    def poses(self, instance: Instance) -> Instance:
        """Return the LP with ε = 0 where this variant drops it."""
        if not self.options["drop_epsilon"]:
            return instance
        return replace(instance, P=np.zeros((instance.n, instance.n)), planted=None, sha256="")

    def build(self, template: Instance) -> None:
        """Choose diffcp's mode; declare the parametrized problem and canonicalize it."""
        from bpqp_bench.method.cvxpy_program import parametrized, tolerances

        o = self.options
        # Measured: dense is exact and 4 times faster on QP and LP, whose systems are too badly
        # conditioned for LSQR; on cones alone LSQR needs a few steps and is as exact.
        mode = {"auto": "lsqr" if template.cones else "dense"}.get(str(o["mode"]), o["mode"])
        tight = tolerances(o["solver"], o["tolerance"])
        self._solver_options = {"solve_method": o["solver"], "mode": mode} | tight
        if o["form"] == "parameters":
            self._program = parametrized(template, self.wrt, not o["drop_epsilon"])
            self._program.canonicalize(template)

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Assign, canonicalize, solve."""
        from bpqp_bench.method.cvxpy_program import constant

        o = self.options
        with clock("prepare"):
            if o["form"] == "constants":
                self._program = constant(data, ("q",), not o["drop_epsilon"])
            else:
                self._program.canonicalize(data)
        with clock("solve"):
            raw = self._program.solve(data, self._solver_options)
        with clock("extract"):
            self._program.unpack(data, raw)
            # SCS stops at 1e-5 by default, above the 2e-6 of the LP's quadratic term.
            coarse = o["solver"] == "SCS" and not 0 < o["tolerance"] < 1e-6
            blind = {"approximate": True} if coarse and data.problem_class == "lp" else {}
            return self._program.solution(data, blind)

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array]:
        """Differentiate by `Problem.backward`; ∇P follows from ∇R by the chain rule."""
        with clock("prepare"):
            self._program.z.gradient = upstream
        with clock("solve"):
            self._program.problem.backward()
        with clock("extract"):
            return {name: self._program.gradient(name) for name in self.wrt}
