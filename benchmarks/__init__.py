"""asv benchmarks over the suite's own registry and phase clock."""
