"""ProxSuite's QPLayer: ProxQP forward, an augmented-Lagrangian KKT system backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bpqp_bench import Data, Instance, Method, PhaseClock, Solution, Variant
from bpqp_bench.method.torch_pass import autograd

_NO_BOUND = -1e20  # ProxQP's own infinity; every inequality here is one-sided


class QPLayer(Method):
    """`proxsuite.torch.qplayer.QPFunction`, which solves a batch one by one in C++.

    The library regularizes its backward system by 1e-6 on both sides and stops it at 1e-4. That is
    3e-6 of a well-scaled gradient, and as large as the curvature of an LP's 2e-6·I; smaller values
    cost no time (docs/methods.md). ``qplayer-defaults`` has the library's.
    """

    name = "qplayer"
    label = "QPLayer"
    reference = "Bambade et al., QPLayer, ICLR 2024; ProxSuite 0.8"
    group = "modern"
    framework = "torch"
    batched = True
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "ProxQP solves quadratic programs only"})
    requires = ("torch", "proxsuite")
    phases_split = False
    tolerance = "eps"
    parameters = MappingProxyType(
        {
            "eps": 1e-9,  # the library's default
            "max_iter": 1000,
            "eps_backward": 1e-10,
            "rho_backward": 1e-12,
            "mu_backward": 1e-12,
            "parallel": False,  # OpenMP over a batch, with half of the machine's cores
        }
    )
    variants = MappingProxyType(
        {
            "qplayer-defaults": Variant(
                "QPLayer (defaults)",
                {"eps_backward": 1e-4, "rho_backward": 1e-6, "mu_backward": 1e-6},
                caveats={"lp": "a regularization of 1e-6 is as large as the LP's curvature"},
            )
        }
    )

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to cones, to sparse data and to problems without constraints."""
        if instance.is_sparse:
            return "dense tensors only"
        if instance.problem_class in self.problem_classes and instance.neq + instance.nineq == 0:
            return "QPFunction needs at least one constraint"
        return super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Make the torch function; nothing is compiled."""
        from proxsuite.torch.qplayer import QPFunction

        del template
        o = self.options
        self._solve = QPFunction(
            eps=o["eps"],
            maxIter=o["max_iter"],
            eps_backward=o["eps_backward"],
            rho_backward=o["rho_backward"],
            mu_backward=o["mu_backward"],
            omp_parallel=o["parallel"],
        )

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Solve; the layer always returns a batch, and no status."""
        import torch

        self._data = data
        with clock("solve"):
            lower = torch.full_like(data.h, _NO_BOUND)
            given = (data.P, data.q, data.A, data.b, data.G, lower, data.h)
            # It makes a batch of one itself, but of a G without rows.
            z, nu, lam = self._solve(*(t if data.q.ndim == 2 else t[None] for t in given))
            self._z = z.reshape(data.q.shape)
        return Solution(self._z, nu.reshape(data.b.shape), lam.reshape(data.h.shape), status=None)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Differentiate by torch.autograd."""
        with clock("solve"):
            return autograd(self._z, self._data, self.wrt, upstream)
