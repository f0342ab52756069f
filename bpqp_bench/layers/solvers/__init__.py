"""One module per solver, each with ``solve(qp, tolerances, clock, **options) -> QPSolution``.

Module names end in an underscore so that none can hide the library that it calls. They are loaded
by name when first used, see `bpqp_bench.layers.qp_solvers`.
"""
