"""Commands of ``bpqp-bench``, one file per group; `bpqp_bench.cli` says which is where."""
