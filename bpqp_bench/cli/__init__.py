"""Commands of ``bpqp-bench``, one file per group; `bpqp_bench.cli.main` says which is where."""
