"""A seeded factor market with a weak planted signal, for anyone without market data.

Return of asset i from t to t + 1::

    r = m + Σ_k B_ik f_k + e_i,    f_k, e_i ~ √h · Student t(5),

with one stochastic variance h common to all (a log-AR(1), so that volatility clusters) and the
expected return m = IC · σ_i · s_i: alpha is volatility times information coefficient times score
(Grinold, "Alpha is volatility times IC times score", J. Portfolio Management 20(4), 1994). The
features fall into twelve styles: those of a style are correlated, as the windows of one indicator
are, and persist over days. The score s is a function of the means of four styles, partly linear,
partly not; the other styles carry nothing. Since m is known, so is the best decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpqp_bench.problem.instance import Array
from bpqp_bench.tasks.portfolio.covariance import rolling_covariance
from bpqp_bench.tasks.portfolio.data import DataError, Market, invented_dates, split_days

MAX_ASSETS = 500
_DEGREES = 5  # of freedom of all shocks
_STYLES = 12  # groups of correlated features
_RELEVANT = 4  # styles that the signal uses


@dataclass(frozen=True)
class SyntheticSettings:
    """Parameters of the market.

    Attributes
    ----------
    assets, features
        At most 500 assets; features a day.
    train, valid, test
        Numbers of days.
    ic
        Planted information coefficient: mean correlation over assets of m and r on a day.
    factors
        Of the returns.
    nonlinear
        Share of the score's variance that is not linear in the features.
    window
        Days of the covariance's window, drawn in front of the first training day.
    seed
        Of everything.
    """

    assets: int = 100
    features: int = 158
    train: int = 360
    valid: int = 120
    test: int = 480
    ic: float = 0.045
    factors: int = 10
    nonlinear: float = 0.3
    window: int = 240
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.assets <= MAX_ASSETS:
            raise DataError(f"assets = {self.assets} is not between 2 and {MAX_ASSETS}")
        if self.features < _STYLES:
            raise DataError(f"features = {self.features} is less than {_STYLES}, the styles")
        if min(self.train, self.valid, self.test) < 2:
            raise DataError("each of train, valid and test needs at least two days")
        if not 0 <= self.nonlinear <= 1 or not 0 <= self.ic < 1:
            raise DataError("nonlinear must lie in [0, 1] and ic in [0, 1)")


def synthetic_market(settings: SyntheticSettings | None = None) -> Market:
    """Draw the market; the same settings give the same numbers."""
    s = settings or SyntheticSettings()
    days = s.window + s.train + s.valid + s.test
    # One stream for each part: a longer sample begins with the shorter one.
    shape, feature_rng, shock_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence((s.seed, 158)).spawn(3)
    )
    structure = _structure(s, shape)
    features = _features(s, structure, days, feature_rng)
    score = _score(s, structure, features)
    signal, realized = _returns(s, structure, score, days, shock_rng)
    splits = split_days(s.window, s.train, s.valid, s.test)
    # `realized[t]` is earned from t to t + 1; what is known at the close of t is realized[t − 1].
    past = np.vstack([np.zeros((1, s.assets)), realized[:-1]])
    covariance = rolling_covariance(past, range(s.window, days), s.window, s.factors)
    dates = invented_dates(days)
    names = tuple(f"S{i:03d}" for i in range(s.assets))
    return Market("synthetic", dates, names, features, realized, covariance, splits, signal)


@dataclass(frozen=True, eq=False)
class _Structure:
    # What does not change over time.
    loadings: Array  # (N, K) of the returns' factors, for daily returns as fractions
    specific: Array  # (N,) standard deviations
    style: NDArray[np.intp]  # (F,) style of each feature
    common: NDArray[np.float32]  # (F,) share of its variance that it has in common with its style
    persistence: NDArray[np.float32]  # (F,)
    relevant: NDArray[np.intp]  # (4,) styles that carry the signal
    weights: Array  # (4,)


def _structure(s: SyntheticSettings, rng: np.random.Generator) -> _Structure:
    N, K = s.assets, s.factors
    # One market factor of 1 % a day with betas around 1, the others of 0.4 % around 0.
    loadings = rng.normal(0.0, 0.004, (N, K)) * np.linspace(1.0, 0.5, K)
    loadings[:, 0] = 0.01 * rng.normal(1.0, 0.25, N)
    specific = 0.016 * np.exp(rng.normal(0.0, 0.3, N))
    persistence = rng.uniform(0.5, 0.97, _STYLES)
    style = np.arange(s.features) % _STYLES  # every style has its features
    relevant = rng.choice(_STYLES, _RELEVANT, replace=False)
    weights = rng.uniform(0.5, 1.0, _RELEVANT) * rng.choice([-1.0, 1.0], _RELEVANT)
    return _Structure(
        loadings,
        specific,
        style,
        rng.uniform(0.5, 0.95, s.features).astype(np.float32),
        persistence[style].astype(np.float32),
        relevant,
        weights / np.linalg.norm(weights),
    )


def _features(
    s: SyntheticSettings, at: _Structure, days: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    # Stationary AR(1) in time, unit variance; correlated within a style.
    out = np.empty((days, s.assets, s.features), dtype=np.float32)
    fresh = np.sqrt(1 - at.persistence**2)
    shared, own = np.sqrt(at.common), np.sqrt(1 - at.common)
    for t in range(days):
        styles = rng.standard_normal((s.assets, _STYLES), dtype=np.float32)
        noise = rng.standard_normal((s.assets, s.features), dtype=np.float32)
        shock = styles[:, at.style] * shared + noise * own
        out[t] = shock if t == 0 else at.persistence * out[t - 1] + fresh * shock
    return out


def _score(s: SyntheticSettings, at: _Structure, features: NDArray[np.float32]) -> Array:
    z = np.stack(
        [features[:, :, at.style == k].mean(axis=2, dtype=np.float64) for k in at.relevant], axis=2
    )
    z = (z - z.mean(axis=(0, 1))) / z.std(axis=(0, 1))
    linear = _standardized(z @ at.weights)
    # A product of two styles and a saturating bend: no linear model sees the first.
    bent = _standardized(z[..., 0] * z[..., 1] + np.tanh(2 * z[..., 2]))
    return _standardized(np.sqrt(1 - s.nonlinear) * linear + np.sqrt(s.nonlinear) * bent)


def _standardized(values: Array) -> Array:
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / centred.std(axis=1, keepdims=True))


def _returns(
    s: SyntheticSettings, at: _Structure, score: Array, days: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    log_h = np.zeros(days)
    steps = rng.normal(0.0, 0.2, days)
    for t in range(1, days):
        log_h[t] = 0.95 * log_h[t - 1] + steps[t]
    # E[h] = 1 in the stationary law, whose log-variance is 0.2²/(1 − 0.95²).
    log_variance = 0.2**2 / (1 - 0.95**2)
    root_h = np.exp(0.5 * (log_h - 0.5 * log_variance))[:, None]
    unit = np.sqrt((_DEGREES - 2) / _DEGREES)  # gives Student's t variance 1
    f = rng.standard_t(_DEGREES, (days, s.factors)) * unit * root_h
    e = rng.standard_t(_DEGREES, (days, s.assets)) * unit * root_h * at.specific
    # Dispersion over assets of a day: what factors add to it, the market's mean taken out.
    centred = at.loadings - at.loadings.mean(axis=0)
    spread = np.sqrt(at.specific**2 + (centred**2).sum(axis=1))
    # A day's correlation goes with 1/√h, whose mean is above 1.
    signal = s.ic * np.exp(-0.375 * log_variance) * spread * score
    realized = np.maximum(signal + f @ at.loadings.T + e, -0.95)  # nobody loses more than all
    return signal, realized
