"""Errors that a user can act on; everything else is a bug and keeps its traceback."""

from __future__ import annotations

__all__ = [
    "BenchError",
    "InstanceError",
    "MethodError",
    "PluginError",
    "ResultsError",
    "SpecError",
]


class BenchError(Exception):
    """Base of all errors whose one-line message is meant for the user."""


class InstanceError(BenchError, ValueError):
    """Problem data are misshapen, not finite or otherwise unusable."""


class SpecError(BenchError, ValueError):
    """A name, size, seed or parameter given by the user does not exist or does not parse."""


class PluginError(BenchError):
    """A plug-in file cannot be used."""


class ResultsError(BenchError):
    """A run directory or results file cannot be read or continued."""


class MethodError(RuntimeError):
    """A method says that it cannot give an answer, with the cause; recorded as a failure."""
