"""qpth: the primal-dual interior-point layer of OptNet."""

from collections.abc import Mapping
from types import MappingProxyType

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution, Variant
from bpqp_bench.method.contract import FrameworkArray
from bpqp_bench.method.torch_pass import autograd


class Qpth(Method):
    """`qpth.qp.QPFunction` on any torch device; backward by torch's autograd.

    qpth factorizes inside the call and reuses the factorization backward; its forward call cannot
    be split. It reports neither status nor iterations: it stops when three iterations have not
    improved its residual, and returns the best point.
    """

    name = "qpth"
    label = "qpth/OptNet"
    reference = "Amos and Kolter, OptNet, ICML 2017"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "qpth solves quadratic programs only"})
    requires = ("torch", "qpth")
    group = "paper"
    tolerance = "eps"
    framework = "torch"
    devices = frozenset({"cpu", "cuda"})
    dtypes = frozenset({"float64", "float32"})
    batched = True
    phases_split = False
    parameters = MappingProxyType(
        {
            "eps": 1e-12,  # qpth's default; a sum of absolute residuals, met only on small problems
            "max_iter": 50,  # qpth's default of 20 cuts some LPs short
            "not_improved": 3,
            "check_spd": False,  # one more Cholesky factorization of P, in qpth on by default
        }
    )
    caveats = MappingProxyType(
        {"lp": "qpth keeps multipliers above 1e-8, which is not small next to P = 2e-6·I"}
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

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; building the graph is part of the call."""
        self._data = data
        # qpth's convention for "no equalities" is an empty tensor.
        A, b = (data.A, data.b) if data.neq else (data.q.new_empty(0), data.q.new_empty(0))
        with clock("solve"):
            try:
                self._z = self._solve(data.P, data.q, data.G, data.h, A, b)
            except RuntimeError as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise MethodError(f"qpth failed on {data.name}: {reason}") from error
        node = self._z.grad_fn  # qpth keeps the multipliers on its autograd node
        parts = self._z, node.nus if data.neq else None, node.lams
        # One problem comes back as a batch of one.
        z, nu, lam = (p[0] if p is not None and data.batch == 1 else p for p in parts)
        return Solution(z=z, nu=nu, lam=lam, status=None)

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Differentiate by torch.autograd; qpth solves with its forward factorization."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream.reshape(self._z.shape))
