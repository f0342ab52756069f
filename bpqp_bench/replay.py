"""Failed calls and how to make them again: ``bpqp-bench replay RUN KEY``."""

from __future__ import annotations

from pathlib import Path

from bpqp_bench.measurement import Measurement
from bpqp_bench.registry import Registry

__all__ = ["keep_inputs"]


def keep_inputs(run: Path, measurement: Measurement, parcel: str, registry: Registry) -> None:
    """Keep what is needed."""
