"""Experiments that learn through a layer, one sub-package each."""
