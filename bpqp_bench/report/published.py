"""The figures that the paper published, as data of the package, to stand beside measured ones.

Source: the 2023 version of the paper (see ``published_data/README.md``). A figure that is not
available stays missing; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import pandas as pd

SOURCE = "Pan et al., 2023 version of arXiv 2411.19285 (16-core Xeon E5-2630 v3; qpth on a GPU)"

# What the paper calls the method whose registry name is the key: the method as tuned here, and
# the variant with the paper's settings. Variants of another kind have no published figure.
_PAPER_NAMES = {
    "exact": "Exact",
    "exact-paper": "Exact",
    "cvxpy-lp0": "CVXPY",
    "cvxpy": "CVXPY",
    "cvxpy-paper": "CVXPY",
    "qpth": "qpth/OptNet",
    "qpth-paper": "qpth/OptNet",
    "bpqp": "BPQP",
    "bpqp-paper": "BPQP",
}
_DATASETS = {"qp": "QP", "lp": "LP", "socp": "SOCP"}


@dataclass(frozen=True)
class Published:
    """Published mean and standard deviation (None where the paper gives none)."""

    mean: float
    std: float | None


def table(name: str) -> pd.DataFrame:
    """Read one of the packaged CSV files: "table1_efficiency", "table3_accuracy", ….

    Raises
    ------
    FileNotFoundError
        If there is no such file in the package.
    """
    return _read(name).copy()


@lru_cache
def _read(name: str) -> pd.DataFrame:
    source = resources.files("bpqp_bench.report") / "published_data" / f"{name}.csv"
    with source.open("r", encoding="utf-8") as stream:
        return pd.read_csv(stream)


def published_time(method: str, family: str, which: str, size: str) -> Published | None:
    """Return published seconds of "backward" or "total" on a family and size, or None.

    Parameters
    ----------
    method, family
        Registry names ("qpth", "qp").
    which
        "backward" or "total".
    size
        As "100x20".

    Notes
    -----
    The paper's CVXPY rows on LP are of the problem with ε = 0, so they belong to ``cvxpy-lp0``;
    ``cvxpy`` and ``cvxpy-paper`` on LP have none.
    """
    if family == "lp" and method in ("cvxpy", "cvxpy-paper"):
        return None
    if family != "lp" and method == "cvxpy-lp0":
        return None
    key = (_DATASETS.get(family), _PAPER_NAMES.get(method), which, size)
    return _times().get(key)


@lru_cache
def _times() -> dict[tuple[str | None, str | None, str, str], Published | None]:
    rows = _read("table1_efficiency")
    return {
        (str(row["dataset"]), str(row["method"]), str(row["pass"]), str(row["size"])): _figure(
            row["mean_s"], row["std_s"]
        )
        for _, row in rows.iterrows()
    }


def published_accuracy(method: str, family: str) -> Published | None:
    """Return the published L2 error of the gradient on a family, or None."""
    found = _read("table3_accuracy")
    rows = found[
        (found["dataset"] == _DATASETS.get(family)) & (found["method"] == _PAPER_NAMES.get(method))
    ]
    return None if rows.empty else _figure(rows["mean"].iloc[0], rows["std"].iloc[0])


def published_portfolio() -> pd.DataFrame:
    """Return the published portfolio table: columns method, metric, mean, std."""
    return table("table4_portfolio")


def claims() -> pd.DataFrame:
    """Return the paper's claims: columns id, claim, where, quantity."""
    return table("claims")


def _figure(mean: float, std: float) -> Published | None:
    # An empty cell is one that the paper leaves empty.
    if pd.isna(mean):
        return None
    return Published(float(mean), None if pd.isna(std) else float(std))
