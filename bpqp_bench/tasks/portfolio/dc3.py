"""DC3 as decision maker: one network for all days of a market.

DC3 learns a map from q to a solution for *fixed* constraints. Here the constraints are fixed (the
simplex) but the covariance changes by day, and the published method has no place for it. The
network therefore takes the predicted returns alone; the covariance of a training day enters its
loss, so that the network learns the best decision for the covariances that it has seen, on average.
It is trained beforehand on random predictions and then held fixed, like a solver. Its answers sum
to one by completion; nonnegativity is what correction reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from bpqp_bench.errors import MethodError
from bpqp_bench.layers.dc3 import DC3, Settings
from bpqp_bench.method.contract import Data, FrameworkArray, Method
from bpqp_bench.method.phase_clock import PhaseClock
from bpqp_bench.problem.instance import Instance
from bpqp_bench.problem.solution import Solution
from bpqp_bench.tasks.portfolio.data import Market
from bpqp_bench.tasks.portfolio.problem import portfolio_instance

_SMALLEST, _LARGEST = 0.02, 1.0  # standard deviation of the predictions it is trained for, percent


class PortfolioDC3(DC3):
    """`DC3` on the simplex whose loss takes the covariance of each sample's day."""

    def day_loss(self, mu: Tensor, loadings: Tensor, specific: Tensor, gamma: float) -> Tensor:
        """Mean of −f(w) plus the soft loss of negative weights.

        Parameters
        ----------
        mu
            Predictions in percent, shape (batch, n).
        loadings, specific
            Factor models, shapes (batch, n, k) and (batch, n).
        gamma
            Risk aversion.
        """
        partial = self.correct(self.network(-mu))
        w = self.complete(partial)
        exposure = torch.einsum("bnk,bn->bk", loadings, w)
        variance = exposure.square().sum(1) + (specific * w.square()).sum(1)
        value = (mu * w).sum(1) - 0.5 * gamma * variance
        soft = self.violation(partial).square().sum(1)
        return (-value + self.settings.soft_weight * soft).mean()


def train_dc3(market: Market, gamma: float, settings: Settings) -> PortfolioDC3:
    """Train on random predictions and the covariances of the market's training days.

    Predictions are normal with a standard deviation drawn log-uniformly from 0.02 to 1 percent,
    which covers those of a predictor from its first to its last epoch.

    Raises
    ------
    MethodError
        If the market's assets are not the same on all days: the network has one output for each.
    """
    days = [t for part in market.splits for t in part]
    if not market.present[days].all():
        raise MethodError("DC3 has one output for each asset, but the assets change by day")
    n = len(market.assets)
    template = portfolio_instance(np.zeros(n), np.eye(n), gamma)
    layer = PortfolioDC3(
        template.P, template.A, template.b, template.G, template.h, settings=settings
    )
    rng = np.random.default_rng(np.random.SeedSequence((settings.seed, 0xDC3)))
    spread = np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST), (settings.samples, 1)))
    mu = torch.from_numpy(spread * rng.standard_normal((settings.samples, n)))
    day = rng.choice(np.arange(market.splits.train.start, market.splits.train.stop), len(mu))
    optimizer = torch.optim.Adam(layer.network.parameters(), lr=settings.lr)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        layer.train()
        for _ in range(settings.epochs):
            for rows in torch.split(torch.randperm(len(mu)), settings.batch):
                if len(rows) < 2:
                    continue  # batch normalization needs two
                at = day[rows.numpy()]
                optimizer.zero_grad()
                loss = layer.day_loss(
                    mu[rows],
                    torch.from_numpy(market.covariance.loadings[at]),
                    torch.from_numpy(market.covariance.specific[at]),
                    gamma,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    layer.eval()
    return layer


class _Adapter(Method):
    """The trained network under the benchmark's contract."""

    name = "dc3"
    label = "DC3"
    reference = "Donti, Rolnick and Kolter, DC3, ICLR 2021"
    problem_classes = frozenset({"qp"})
    framework = "torch"
    parameters = MappingProxyType({})

    network: PortfolioDC3

    def build(self, template: Instance) -> None:
        """Nothing: the network is trained before it is handed over."""

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Network, completion, correction; P is not looked at."""
        with clock("solve"):
            w = self.network(data.q)
        self._graph = data.q, w
        return Solution(w, status="approximate")

    def backward(self, upstream: FrameworkArray, clock: PhaseClock) -> Mapping[str, FrameworkArray]:
        """Gradient of the network's answer."""
        q, w = self._graph
        with clock("solve"):
            (gradient,) = torch.autograd.grad(w, q, upstream)
        return {"q": gradient}


@dataclass(frozen=True, eq=False)
class DC3Choice:
    """A trained network where a `bpqp_bench.plugins.registry.MethodChoice` is expected."""

    network: PortfolioDC3
    label: str = "DC3"

    def create(self, wrt: tuple[str, ...] = ("q",), device: str = "cpu") -> Method:
        """Put the network under the contract."""
        if wrt != ("q",) or device != "cpu":
            raise MethodError("DC3's network is a function of q alone, on the CPU here")
        adapter = _Adapter(wrt, device)
        adapter.network = self.network
        return adapter

    def missing(self) -> str | None:
        """Nothing is missing: the network exists."""
        return None
