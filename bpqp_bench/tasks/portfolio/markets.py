"""From a configuration to its market."""

from __future__ import annotations

from typing import Any

from bpqp_bench.tasks.portfolio.config import PortfolioConfig
from bpqp_bench.tasks.portfolio.control import control_market
from bpqp_bench.tasks.portfolio.data import Market
from bpqp_bench.tasks.portfolio.prices import PriceSettings, price_market, sp500_prices
from bpqp_bench.tasks.portfolio.qlib_data import QlibSettings, qlib_market
from bpqp_bench.tasks.portfolio.synthetic import SyntheticSettings, synthetic_market


def make_market(c: PortfolioConfig) -> Market:
    """Make the market that a configuration names.

    Raises
    ------
    DataError
        If its data are missing or unusable.
    """
    days = {"train": c.train_days, "valid": c.valid_days, "test": c.test_days}
    at_most: dict[str, Any] = {"assets": c.assets} | {
        f"{part}_days": count for part, count in days.items()
    }
    match c.data:
        case "synthetic":
            return synthetic_market(SyntheticSettings(assets=c.assets, seed=c.data_seed, **days))
        case "sp500":
            return price_market("sp500", sp500_prices(), PriceSettings(**at_most))
        case "qlib":
            return qlib_market(QlibSettings(directory=c.qlib_dir, market=c.qlib_market, **at_most))
    return control_market(c.data == "negative-control", c.assets, seed=c.data_seed, **days)
