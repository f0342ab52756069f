"""Experiments that learn through a layer, one sub-package each; `task` says what one is."""

import pkgutil

__all__ = ["task_names"]


def task_names() -> list[str]:
    """Return the names of all tasks; nothing is imported for it."""
    return [info.name for info in pkgutil.iter_modules(__path__) if info.ispkg]
