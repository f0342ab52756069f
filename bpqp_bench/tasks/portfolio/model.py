"""The predictor: a perceptron with batch normalization that scores one asset from its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Predictor(nn.Module):
    """``layers`` hidden layers of linear map, batch normalization and ReLU, then a linear one.

    The batch is the day: normalization runs over the assets of one date while training, over the
    running statistics afterwards.

    Parameters
    ----------
    features, hidden, layers
        F, width and number of the hidden layers; the paper has 256 and 2.
    """

    def __init__(self, features: int, hidden: int = 256, layers: int = 2) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        width = features
        for _ in range(layers):
            parts += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
            width = hidden
        parts.append(nn.Linear(width, 1))
        self.network = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, F) to predicted returns in percent, shape (n,), float64."""
        scores: Tensor = self.network(x)
        return scores.squeeze(-1).double()


def initial_predictor(features: int, hidden: int, layers: int, seed: int) -> Predictor:
    """Return a predictor whose initial weights depend on the seed alone.

    All methods of one seed begin with the same weights. torch's global generator is left as it
    was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Predictor(features, hidden, layers)
