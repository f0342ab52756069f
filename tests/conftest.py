"""Fixtures of several folders."""

import pytest

from bpqp_bench.plugins.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All built-in plug-ins; not to be changed by a test."""
    return Registry()
