"""The optimization of a day: maximize μᵀw − γ/2 wᵀΣw subject to 1ᵀw = 1, w ≥ 0.

As a QP: P = γΣ, q = −μ, A = 1ᵀ, b = 1, G = −I, h = 0. Returns are in percent and covariances in
percent², as Qlib's risk models have them (``scale_return``); γ = 1 then weighs a variance of
1 %² like a mean of 0.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpqp_bench.errors import MethodError
from bpqp_bench.problem.instance import Array, Instance, Size
from bpqp_bench.tasks.portfolio.covariance import CovarianceError

__all__ = [
    "PERCENT",
    "MeanVariance",
    "exact_decision",
    "portfolio_instance",
    "simplex_projection",
]

PERCENT = 100.0


@dataclass(frozen=True, eq=False)
class MeanVariance:
    """Value of a decision: f(w) = μᵀw − γ/2 wᵀΣw.

    Attributes
    ----------
    mu
        Returns in percent, shape (n,).
    sigma
        Covariance in percent², shape (n, n).
    gamma
        Risk aversion γ > 0.
    """

    mu: Array
    sigma: Array
    gamma: float

    def value(self, w: Array) -> float:
        """Return f(w), percent."""
        return float(self.mu @ w - 0.5 * self.gamma * (w @ (self.sigma @ w)))


def portfolio_instance(mu: Array, sigma: Array, gamma: float) -> Instance:
    """Write the problem as a QP instance with n variables, one equality and n inequalities.

    Raises
    ------
    CovarianceError
        If Σ is not positive definite up to a diagonal that is not positive, or γ ≤ 0, so that the
        problem would have no unique solution.
    """
    n = len(mu)
    if not gamma > 0:
        raise CovarianceError(f"gamma = {gamma} is not positive: no unique portfolio")
    if sigma.shape != (n, n) or not (np.diagonal(sigma) > 0).all():
        raise CovarianceError(
            f"covariance of shape {sigma.shape} for {n} assets, or with a diagonal entry that is "
            "not positive"
        )
    return Instance(
        P=gamma * sigma,
        q=-mu,
        A=np.ones((1, n)),
        b=np.ones(1),
        G=-np.eye(n),
        h=np.zeros(n),
        family="portfolio",
        size=Size(n, n),
        sha256="portfolio",  # one of thousands a second: nobody asks for its hash
    )


def exact_decision(problem: MeanVariance) -> Array:
    """Solve to rounding accuracy: ProxQP, then the equations of its active set.

    The oracle, the two-stage decisions and the learning curves use it; it is no method under test.

    Raises
    ------
    MethodError
        If the result is not optimal by its own KKT residuals.
    """
    from bpqp_bench.layers.bpqp_core import Settings, forward_pass  # noqa: PLC0415 - solvers
    from bpqp_bench.layers.problem import ConvexQP  # noqa: PLC0415

    instance = portfolio_instance(problem.mu, problem.sigma, problem.gamma)
    settings = Settings(forward="proxqp", backward="direct", polish="active-set")
    found = forward_pass(ConvexQP.of(instance), settings).solution
    r = instance.residuals(found.z, found.nu, found.lam)
    scale = 1.0 + float(np.abs(instance.q).max()) + float(np.abs(instance.P).max())
    worst = max(r.primal, r.dual / scale, r.complementarity / scale)
    if not worst <= 1e-7:
        raise MethodError(
            f"the day's problem was not solved: status {found.status}, KKT residual {worst:.1e}"
        )
    return np.asarray(found.z)


def simplex_projection(w: Array) -> Array:
    """Nearest portfolio in the Euclidean norm: 1ᵀw = 1, w ≥ 0.

    max(w − τ, 0) with the τ that makes it sum to one, found by sorting (Held, Wolfe and Crowder,
    "Validation of subgradient optimization", Mathematical Programming 6, 1974).
    """
    descending = np.sort(w)[::-1]
    excess = np.cumsum(descending) - 1.0
    count = np.arange(1, len(w) + 1)
    last = int(np.flatnonzero(descending - excess / count > 0)[-1])
    return np.asarray(np.maximum(w - excess[last] / count[last], 0.0))
