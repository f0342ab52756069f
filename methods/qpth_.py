"""qpth: the primal-dual interior-point layer of OptNet."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from bpqp_bench.errors import MethodError
from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Array, Instance
from bpqp_bench.problem.solution import Solution


class Qpth(Method):
    """`qpth.qp.QPFunction` in float64 on any torch device; backward by torch's autograd.

    qpth factorizes inside the call and reuses the factorization backward; its forward call cannot
    be split. It reports neither status nor iterations: it stops when three iterations have not
    improved its residual, and returns the best point. The status here is judged from the residual
    of the constraints at that point, relative to the right-hand sides.
    """

    name = "qpth"
    label = "qpth/OptNet"
    reference = "Amos and Kolter, OptNet, ICML 2017"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "qpth solves quadratic programs only"})
    requires = ("torch", "qpth")
    phases_split = False
    parameters = MappingProxyType(
        {
            "eps": 1e-12,  # qpth's default; a sum of absolute residuals, met only on small problems
            "max_iter": 50,  # qpth's default of 20 cuts some LPs short
            "not_improved": 3,
            "check_spd": False,  # one more Cholesky factorization of P, in qpth on by default
        }
    )
    variants = MappingProxyType(
        {"qpth-paper": Variant("qpth/OptNet (defaults)", {"max_iter": 20, "check_spd": True})}
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones, and to problems without inequalities, which qpth divides by."""
        if instance.problem_class in self.problem_classes and instance.nineq == 0:
            return "qpth needs at least one inequality: it divides by their number"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the torch function; nothing is compiled."""
        from qpth.qp import QPFunction

        self._solve = QPFunction(
            verbose=-1,
            eps=float(self.options["eps"]),
            maxIter=int(self.options["max_iter"]),
            notImprovedLim=int(self.options["not_improved"]),
            check_Q_spd=bool(self.options["check_spd"]),
        )

    def forward(self, problem: Instance, clock: PhaseClock) -> Solution:
        """Solve; building the graph is part of the call."""
        import torch

        def tensor(value, requires_grad):
            dense = value.toarray() if hasattr(value, "toarray") else value
            # A copy, so that nothing that torch does can reach the caller's arrays.
            moved = torch.tensor(dense, dtype=torch.float64, device=self.device)
            return moved.requires_grad_(requires_grad)

        with clock("prepare"):
            self._tensors = {
                name: tensor(getattr(problem, name), name in self.wrt)
                for name in ("P", "q", "A", "b", "G", "h")
            }
            t = self._tensors
            # qpth's convention for "no equalities" is an empty tensor.
            A, b = (t["A"], t["b"]) if problem.neq else (t["A"].new_empty(0), t["b"].new_empty(0))
        with clock("solve"):
            try:
                self._z = self._solve(t["P"], t["q"], t["G"], t["h"], A, b)
            except (RuntimeError, torch.linalg.LinAlgError) as error:
                reason = str(error).splitlines()[0]
                raise MethodError(f"qpth failed on {problem.name}: {reason}") from error
        with clock("extract"):
            z = self._z.detach().cpu().numpy()[0]
            node = self._z.grad_fn  # qpth keeps the multipliers on its autograd node
            lam = node.lams.cpu().numpy()[0]
            nu = node.nus.cpu().numpy()[0] if problem.neq else np.zeros(0)
            return Solution(z=z, nu=nu, lam=lam, status=_status(problem, z))

    def backward(self, upstream: Array, clock: PhaseClock) -> Mapping[str, Array]:
        """Differentiate by torch.autograd; qpth solves with its forward factorization."""
        import torch

        wanted = [self._tensors[name] for name in self.wrt]
        with clock("prepare"):
            v = torch.tensor(upstream, dtype=torch.float64, device=self.device)[None]
        with clock("solve"):
            found = torch.autograd.grad(self._z, wanted, v, allow_unused=True)
        with clock("extract"):
            return {
                # Unused: the empty A and b of a problem without equalities.
                name: np.zeros(like.shape) if value is None else value.cpu().numpy()
                for name, like, value in zip(self.wrt, wanted, found, strict=True)
            }


def _status(problem: Instance, z: Array) -> str:
    if not np.isfinite(z).all():
        raise MethodError(f"qpth returned a solution of {problem.name} that is not finite")
    eq = np.abs(problem.A @ z - problem.b).max(initial=0.0)
    ineq = (problem.G @ z - problem.h).max(initial=0.0)
    scale = 1.0 + max(np.abs(problem.b).max(initial=0.0), np.abs(problem.h).max(initial=0.0))
    residual = max(eq, ineq) / scale
    if residual > 1e-2:
        raise MethodError(
            f"qpth found no feasible point of {problem.name} (relative residual {residual:.1e}); "
            "it may be infeasible"
        )
    return "solved" if residual < 1e-6 else f"inaccurate (relative residual {residual:.1e})"
