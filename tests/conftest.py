"""Fixtures of several folders, and how Hypothesis behaves on a busy machine."""

import pytest
from hypothesis import HealthCheck, settings

from bpqp_bench.plugins.registry import Registry

# No deadline: a busy machine takes ten times as long as an idle one.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All built-in plug-ins; not to be changed by a test."""
    return Registry()
