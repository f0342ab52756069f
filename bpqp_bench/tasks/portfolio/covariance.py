"""Structured covariance of returns: a statistical factor model over a trailing window.

Σ = V C Vᵀ + D, with V the leading principal components of the window's centred returns, C the
covariance of their scores and D the variances of what they leave. It is what Qlib's
StructuredCovEstimator computes with ``factor_model="pca"`` (10 components; window of the paper:
240 days). D makes Σ positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from bpqp_bench.errors import BenchError
from bpqp_bench.problem.instance import Array

_FLOOR = 1e-4  # least specific variance, relative to the mean total variance of the date
_PERCENT = 100.0


class CovarianceError(BenchError, ValueError):
    """A covariance is not positive definite, or cannot be estimated."""


@dataclass(frozen=True, eq=False)
class FactorCovariance:
    """Factor models of all dates, percent².

    Attributes
    ----------
    loadings
        Principal components scaled by the standard deviations of their scores, (T, N, k).
    specific
        Specific variances, shape (T, N); 0 in rows of assets that are not known.
    known
        Whether the asset's covariance is known on the date, shape (T, N).
    """

    loadings: Array
    specific: Array
    known: NDArray[np.bool_]

    def __post_init__(self) -> None:
        bad = np.argwhere(self.known & ~(self.specific > 0))
        if len(bad):
            raise CovarianceError(
                f"specific variance of asset {bad[0][1]} on day {bad[0][0]} is not positive"
            )

    def sigma(self, t: int, assets: NDArray[np.intp]) -> Array:
        """Covariance matrix of some assets on day t, dense, shape (n, n)."""
        B = self.loadings[t, assets]
        sigma = B @ B.T
        sigma[np.diag_indices_from(sigma)] += self.specific[t, assets]
        return np.asarray(sigma)


def estimate_covariance(window: Array, factors: int = 10) -> tuple[Array, Array]:
    """Fit the factor model to one window.

    Parameters
    ----------
    window
        Returns in percent, shape (days, n), finite.
    factors
        Number of components; at most min(days, n).

    Returns
    -------
    loadings, specific
        Shapes (n, factors) and (n,); Σ = loadings loadingsᵀ + diag(specific). Covariances divide
        by days − 1. Specific variances are at least 1e-4 of the mean variance, which matters only
        for an asset that the components explain fully, or whose price stands still.
    """
    days, n = window.shape
    if days < 2:
        raise CovarianceError(f"a covariance needs at least two days, not {days}")
    k = min(factors, days, n)
    X = window - window.mean(axis=0)
    total = (X * X).sum(axis=0) / (days - 1)
    if not total.any():
        raise CovarianceError("no return in the window differs from the mean: all variances are 0")
    # The smaller of the two Gram matrices has the same leading part.
    if n <= days:
        values, vectors = eigh(X.T @ X, subset_by_index=(n - k, n - 1))
        values = np.maximum(values, 0.0)
    else:
        values, left = eigh(X @ X.T, subset_by_index=(days - k, days - 1))
        values = np.maximum(values, 0.0)
        norms = np.sqrt(values)
        vectors = X.T @ left * np.where(norms > 0, 1.0 / np.where(norms > 0, norms, 1.0), 0.0)
    loadings = vectors * np.sqrt(values / (days - 1))
    specific = total - (loadings * loadings).sum(axis=1)
    return loadings, np.maximum(specific, _FLOOR * total.mean())


def rolling_covariance(
    realized: Array,
    days: range,
    window: int = 240,
    factors: int = 10,
    coverage: float = 0.9,
    clip: float = 0.0,
) -> FactorCovariance:
    """Factor model for every day in ``days`` from the ``window`` returns realized up to it.

    Parameters
    ----------
    realized
        Returns from t − 1 to t as fractions, shape (T, N): known at the close of t.
    days
        Where the covariance is wanted; all other dates are marked unknown.
    window, factors
        Length of the window in days, number of components.
    coverage
        Share of the window that an asset must have returns for; missing ones count as 0 (Qlib's
        ``nan_option="fill"``), and an asset without a return at t is out.
    clip
        Returns of an asset are clipped at this quantile of its window and at its mirror image (the
        authors' data preparation: 0.025); 0 for no clipping.

    Raises
    ------
    CovarianceError
        If ``days`` begins before a window is full.
    """
    T, N = realized.shape
    if days.start + 1 < window:
        raise CovarianceError(
            f"day {days.start} has {days.start + 1} past returns, the covariance needs {window}"
        )
    percent = realized * _PERCENT
    there = np.isfinite(percent)
    loadings = np.zeros((T, N, factors))
    specific = np.zeros((T, N))
    known = np.zeros((T, N), dtype=bool)
    for t in days:
        part = slice(t - window + 1, t + 1)
        assets = np.flatnonzero(there[t] & (there[part].mean(axis=0) >= coverage))
        if len(assets) < 2:
            continue
        sample = percent[part][:, assets]
        if clip > 0:
            low, high = np.nanquantile(sample, [clip, 1 - clip], axis=0)
            sample = np.clip(sample, low, high)
        B, d = estimate_covariance(np.nan_to_num(sample), factors)
        loadings[t, assets, : B.shape[1]] = B
        specific[t, assets] = d
        known[t, assets] = True
    return FactorCovariance(loadings, specific, known)
