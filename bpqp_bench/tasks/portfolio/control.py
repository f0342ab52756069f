"""Two markets on which it is known what end-to-end learning must do: the experiment's controls.

Half of the assets are calm and half are wild, and one feature x tells the expected return of both,
with opposite signs: m = 0.3 x % for a calm asset, −0.6 x % for a wild one. Returns are m plus
normal noise, independent, with standard deviations of 1 and 4 %, which the covariance states
exactly.

- **positive-control**: the predictor sees x alone and is linear, so it cannot be right about both.
  Least squares follows the wild assets, whose returns are larger, with a slope of −0.15; but mean
  variance holds the calm ones for their low risk, and for these the slope is wrong. Learning from
  regret must turn its sign.
- **negative-control**: the predictor sees x of the calm and x of the wild assets as two features.
  It is well specified, least squares finds the truth, and there is nothing that learning from
  regret could add.

Elmachtoub and Grigas ("Smart predict, then optimize", Management Science 68, 2022) report the same
pattern: decision-focused learning gains where the predictor is misspecified.
"""

from __future__ import annotations

import numpy as np

from bpqp_bench.tasks.portfolio.covariance import FactorCovariance
from bpqp_bench.tasks.portfolio.data import DataError, Market, invented_dates, split_days

_CALM, _WILD = 1.0, 4.0  # standard deviation a day, percent
_CALM_SLOPE, _WILD_SLOPE = 0.3, -0.6  # expected return for one unit of the feature, percent


def control_market(
    well_specified: bool, assets: int, train: int, valid: int, test: int, seed: int = 0
) -> Market:
    """Draw one of the two markets; both have the same returns.

    Parameters
    ----------
    well_specified
        Whether the feature of calm and of wild assets stands in columns of its own.
    assets
        At least four, and even.
    train, valid, test
        Numbers of days.
    """
    if assets < 4 or assets % 2:
        raise DataError(f"assets = {assets} of a control is not an even number of at least four")
    days = train + valid + test
    rng = np.random.default_rng((seed, 2207))
    calm = np.arange(assets) < assets // 2
    x = rng.standard_normal((days, assets))
    deviation = np.where(calm, _CALM, _WILD)
    signal = np.where(calm, _CALM_SLOPE, _WILD_SLOPE) * x / 100
    returns = signal + deviation * rng.standard_normal((days, assets)) / 100
    features = np.stack([x * calm, x * ~calm], axis=2) if well_specified else x[:, :, None]
    return Market(
        "negative-control" if well_specified else "positive-control",
        invented_dates(days),
        tuple(f"{'C' if quiet else 'W'}{i:03d}" for i, quiet in enumerate(calm)),
        features.astype(np.float32),
        returns,
        FactorCovariance(
            np.zeros((days, assets, 1)),
            np.tile(deviation**2, (days, 1)),
            np.ones((days, assets), dtype=bool),
        ),
        split_days(0, train, valid, test),
        signal,
    )
