"""The problems that a training run meets, one after the other: portfolios along Adam steps."""

import numpy as np

from bpqp_bench import Family, Instance, Planted, Size
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array

_STEPS, _FEATURES, _FACTORS = 200, 20, 10
_RATE = 1e-3
_SEED = 20241103  # of the one market that all instances share


def generate(size: Size, rng: np.random.Generator, assets: int, days: int) -> Instance:
    """Return the first problem of the run."""
    del size
    return pick(0, rng, assets, days)


def pick(seed: int, rng: np.random.Generator, assets: int, days: int) -> Instance:
    """Return day ``seed mod days`` at step ``seed // days`` of a training run.

    minimize ½wᵀΣw − μ_tᵀw subject to 1ᵀw = 1, w ≥ 0, with Σ of a factor model and μ_t = Xθ_t,
    where θ_t are the weights of a linear predictor of returns after t steps of Adam on the squared
    error of all days. After 200 steps the run begins again.

    Parameters
    ----------
    seed
        Number of the problem in the run.
    rng
        Not used: all problems are of one market.
    assets, days
        Variables of a problem, and days of data: so many problems share a step, and a batch of as
        many is one step.

    Notes
    -----
    Between two visits to a day only μ_t changes, by a little: what warm starts are for. No layer is
    needed to train, so that no method has a part in its own problems. Feasible: w = 1/n. The
    solution is unique, since Σ is positive definite. The loss is that of decisions, −rᵀw with r the
    day's returns; 1ᵀw is constant.
    """
    del rng
    market = np.random.default_rng(_SEED)
    exposure = 0.1 * market.standard_normal((assets, _FACTORS))
    risk = np.einsum("ik,jk->ij", exposure, exposure)
    risk += np.diag(market.uniform(0.01, 0.05, assets))
    X = market.standard_normal((days, assets, _FEATURES))
    noise = market.standard_normal((days, assets))
    returns = 0.02 * np.einsum("dak,k->da", X, market.standard_normal(_FEATURES)) + 0.05 * noise
    step, day = seed // days % _STEPS, seed % days
    theta = _trained(X, returns, step)
    return Instance(
        P=0.5 * (risk + risk.T),
        q=-np.einsum("ak,k->a", X[day], theta),
        A=np.ones((1, assets)),
        b=np.ones(1),
        G=-np.eye(assets),
        h=np.zeros(assets),
        problem_class="qp",
        planted=Planted(feasible=np.full(assets, 1.0 / assets)),
        upstream=-returns[day],
    )


def _trained(X: Array, returns: Array, steps: int) -> Array:
    """Weights after so many steps of Adam (Kingma and Ba, ICLR 2015, Algorithm 1), from zero."""
    theta, first, second = np.zeros((3, X.shape[-1]))
    for t in range(1, steps + 1):
        off = np.einsum("dak,k->da", X, theta) - returns
        slope = 2.0 * np.einsum("dak,da->k", X, off) / returns.size
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        theta = theta - _RATE * (first / (1.0 - 0.9**t)) / (
            np.sqrt(second / (1.0 - 0.999**t)) + 1e-8
        )
    return theta


def size_of(assets: int, days: int) -> Size:
    """Size of a day's problem."""
    if assets < 2 or days < 1:
        raise SpecError(f"training needs assets ≥ 2 and days ≥ 1, got {assets} and {days}")
    return Size.of(assets, 1, assets)


FAMILY = Family(
    name="training",
    label="Training run",
    problem_class="qp",
    source="Pan et al., NeurIPS 2024, section 5 (the portfolio problem); Adam: Kingma and Ba, 2015",
    generate=generate,
    parameters={"assets": 100, "days": 1},
    size_of=size_of,
    pick=pick,
    upstream=lambda instance, rng: instance.loss_gradient,  # that of its day, from `pick`
)
