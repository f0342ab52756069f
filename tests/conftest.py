"""Fixtures of several folders, the order of the files, and Hypothesis on a busy machine."""

import gc

import pytest
from hypothesis import HealthCheck, settings

from bpqp_bench.plugins.registry import Registry

# No deadline: a busy machine takes ten times as long as an idle one.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: a long one at the end would keep one process alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_frozen() -> None:
    """Spare the collection before every measured call all objects of the libraries, as workers do.

    With torch, JAX and CVXPY loaded it takes longer than most of what the tests do.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All built-in plug-ins; not to be changed by a test."""
    return Registry()
