"""Numbers as a reader wants them: three significant digits, no exponents where avoidable."""

from __future__ import annotations

import math

from bpqp_bench.results.cells import Outcome
from bpqp_bench.statistics import FEWEST_FOR_INTERVAL, Ratio, Summary


def significant(value: float, digits: int = 3) -> str:
    """Print to so many significant digits, thousands separated, without an exponent."""
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(digits - 1 - math.floor(math.log10(abs(rounded))), 0)
    if decimals > digits + 3:
        return tiny(value)
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def as_published(mean: float, std: float | None, scale: float = 1.0) -> str:
    """Print a published figure with the digits that it was published with, and no more."""
    parts = (mean,) if std is None else (mean, std)
    return " ± ".join(_shortest(part * scale) for part in parts)


def _shortest(value: float) -> str:
    # Ten digits: enough to take back what the change of unit did to the last binary digit.
    text = f"{float(f'{value:.10g}'):,.10f}"
    return text.rstrip("0").rstrip(".")


def tiny(value: float) -> str:
    """Print an error measure: two significant digits, always with exponent."""
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else "∞"
    return "0" if value == 0 else f"{value:.1e}".replace("-", "−").replace("e+", "e")


def plus_minus(mean: float, std: float | None, scale: float = 1.0) -> str:
    """Print "mean ± std"; the mean alone where there is no spread to give."""
    text = significant(mean * scale)
    if std is None or not math.isfinite(std):
        return text
    return f"{text} ± {significant(std * scale, 2)}"


def middle_half(found: Summary, scale: float = 1.0) -> str:
    """Print "(q25–q75)"; nothing below five values."""
    if found.n < FEWEST_FOR_INTERVAL:
        return ""
    return f"({significant(found.q25 * scale)}–{significant(found.q75 * scale)})"


def interval(low: float, high: float) -> str:
    """Print "[low, high]"; nothing where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{significant(low)}, {significant(high)}]"


def ratio(value: Ratio | None) -> str:
    """Print "12.3 [11.9, 12.8]"."""
    if value is None:
        return "n/a"
    return f"{significant(value.median)} {interval(value.low, value.high)}".strip()


def memory(size: float) -> str:
    """Print bytes as MiB or GiB."""
    mib = size / 2**20
    return f"{significant(mib)} MiB" if mib < 1000 else f"{significant(mib / 1024)} GiB"


def outcome_text(outcome: Outcome) -> str:
    """Print what stands in place of a figure that does not exist; nothing where there is one."""
    if outcome.state == "timeout":
        limit = "limit" if outcome.limit_s is None else f"{significant(outcome.limit_s)} s"
        return f">{limit}"
    return {
        "measured": "",
        "failed": "failed",
        "unsupported": "—",
        "unavailable": "unavailable",
        "missing": "not run",
    }[outcome.state]
