"""Regression check between two commits, beside asv (`benchmarks/`)."""
