"""Reference solutions and gradients, computed without any of the methods under test.

Own interior-point method → exact active set → refinement in double-double → certificate.
"""

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
