"""``python -m bpqp_bench`` is the command ``bpqp-bench``."""

from bpqp_bench.cli.main import main

main()
