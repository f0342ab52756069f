"""The optimization of a day: maximize μᵀw − γ/2 wᵀΣw subject to 1ᵀw = 1, w ≥ 0.

As a QP: P = γΣ, q = −μ, A = 1ᵀ, b = 1, G = −I, h = 0. Returns are in percent and covariances in
percent², as Qlib's risk models have them (``scale_return``); γ = 1 then weighs a variance of
1 %² like a mean of 0.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from bpqp_bench.problem.instance import Array, Instance, Size
from bpqp_bench.reference import compute_reference
from bpqp_bench.tasks.portfolio.covariance import CovarianceError

PERCENT = 100.0
_CORRECTIONS = 30  # of the held assets; a handful is usual


@dataclass(frozen=True, eq=False)
class MeanVariance:
    """Value of a decision: f(w) = μᵀw − γ/2 wᵀΣw, return less risk.

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

    def risk(self, w: Array) -> float:
        """Return γ/2 wᵀΣw, percent."""
        return float(0.5 * self.gamma * (w @ (self.sigma @ w)))

    def value(self, w: Array) -> float:
        """Return f(w), percent."""
        return float(self.mu @ w) - self.risk(w)


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


def optimum(problem: MeanVariance) -> Array:
    """Return the certified best decision: what regret is measured against.

    Raises
    ------
    NoReferenceError
        If it could not be certified.
    """
    instance = portfolio_instance(problem.mu, problem.sigma, problem.gamma)
    return compute_reference(instance, np.zeros(len(problem.mu)), wrt=()).z


def exact_decision(problem: MeanVariance) -> Array:
    """Decide for predictions, by no method under test; some ten times faster than `optimum`.

    A guess of the assets that are held is corrected until its decision meets the KKT conditions,
    which prove it: w ≥ 0 on the held assets, and no other asset whose marginal value μᵢ − γ(Σw)ᵢ
    exceeds that of the held ones (primal-dual active set method; Hintermüller, Ito and Kunisch,
    SIAM J. Optim. 13, 2002). Where the guesses cycle, `optimum` decides.
    """
    mu, risk = problem.mu, problem.gamma * problem.sigma
    held = np.ones(len(mu), dtype=bool)
    for _ in range(_CORRECTIONS):
        # On the held assets risk·w + ν·1 = μ and 1ᵀw = 1.
        factor = cho_factor(risk[np.ix_(held, held)], check_finite=False)
        free, unit = cho_solve(factor, np.stack([mu[held], np.ones(held.sum())], axis=1)).T
        nu = (free.sum() - 1.0) / unit.sum()
        w = np.zeros(len(mu))
        w[held] = free - nu * unit
        # The value that more of an asset would add; rounding aside it is 0 where the asset is held.
        gain = mu - risk @ w - nu
        following = np.where(held, w > 0, gain > 0)
        if (following == held).all():
            return w
        held = following if following.any() else mu == mu.max()
    return optimum(problem)


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
