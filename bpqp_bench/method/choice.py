"""A method class with its parameters chosen."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.problem.parameters import Parameters

__all__ = ["MethodChoice"]


@dataclass(frozen=True)
class MethodChoice:
    """A method class with parameters; ``key`` names it in results, ``label`` in tables."""

    cls: type[Method]
    parameters: Parameters
    key: str
    label: str
    variant: Variant | None = None

    def create(self, wrt: tuple[str, ...] = ("q",), device: str = "cpu") -> Method:
        """Instantiate the method."""
        return self.cls(wrt=wrt, device=device, **self.parameters)

    def missing(self) -> str | None:
        """Return why the method cannot run here (a library that is not installed), or None."""
        for name in self.cls.requires:
            try:
                found = importlib.util.find_spec(name) is not None
            except (ImportError, ValueError):
                found = False
            if not found:
                return f"No module named {name!r}"
        return None
