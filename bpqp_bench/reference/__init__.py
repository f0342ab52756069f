"""Reference solutions and gradients, computed without any of the methods under test.

Own interior-point method → exact active set → refinement in double-double → certificate.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpqp_bench.reference.cache import ReferenceCache
    from bpqp_bench.reference.compute import compute_reference
    from bpqp_bench.reference.solution import Certificate, NoReferenceError, ReferenceSolution

__all__ = [
    "Certificate",
    "NoReferenceError",
    "ReferenceCache",
    "ReferenceSolution",
    "compute_reference",
]

_HOME = {
    "ReferenceCache": "cache",
    "compute_reference": "compute",
    **dict.fromkeys(("Certificate", "NoReferenceError", "ReferenceSolution"), "solution"),
}


def __getattr__(name: str) -> Any:
    # Imported when used: reading measurements needs the accuracy's record, not the solvers.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
