"""Where files are kept that can be made again: references, trained networks."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "BPQP_BENCH_CACHE"


def cache_directory(name: str) -> Path:
    """Return the folder ``name`` under $BPQP_BENCH_CACHE, else under the user's cache folder."""
    import platformdirs  # noqa: PLC0415  # commands that need no cache start without it

    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("bpqp_bench")
    return Path(root) / name
