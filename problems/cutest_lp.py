"""The LPs among the CUTEst problems, AGG of the Netlib collection with them."""

from bpqp_bench.problem.s2mpj import cutest_family

# Every problem whose objective and constraints are linear.
_SIZES = """
    AGG 163x615, DEGENLPA 20x40, DEGENLPB 20x40, EXTRASIM 2x1, GOFFIN 51x50, LINSPANH 97x162,
    MAKELA4 21x40, OET1 3x1002, OET3 4x1002, PDE1 65x250, PDE2 112x344, PT 2x501, READING2 33x42,
    SIMPLLPA 2x4, SIMPLLPB 2x5, SIPOW1 2x2000, SIPOW2 2x2000, SIPOW2M 2x2000, SIPOW3 4x2000,
    SIPOW4 4x2000, SUPERSIM 2x2, TFI2 3x101
"""

FAMILY = cutest_family("cutest-lp", "CUTEst LP", "lp", _SIZES, example="AGG")
