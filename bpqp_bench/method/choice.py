"""A method class with its parameters chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

from bpqp_bench.method.contract import Method, Variant
from bpqp_bench.problem.family import FamilyChoice
from bpqp_bench.problem.parameters import Parameters


@dataclass(frozen=True)
class MethodChoice:
    """A method class with parameters; ``key`` names it in results, ``label`` in tables.

    ``find_family`` is how its registry looks families up; methods that train need it.
    """

    cls: type[Method]
    parameters: Parameters
    key: str
    label: str
    variant: Variant | None = None
    find_family: Callable[[str], FamilyChoice] | None = field(default=None, repr=False)

    def create(
        self,
        wrt: tuple[str, ...] = ("q",),
        device: str = "cpu",
        dtype: str = "float64",
        batch: int = 1,
    ) -> Method:
        """Instantiate the method."""
        method = self.cls(wrt, device, dtype, **self.parameters)
        method.batch = batch
        method.find_family = self.find_family
        return method

    def missing(self) -> str | None:
        """Return why the method cannot run here (a library that is not installed), or None."""
        for name in self.cls.requires:
            try:
                found = importlib.util.find_spec(name) is not None
            except (ImportError, ValueError):
                found = False
            if not found:
                return f"No module named {name!r}; {self.cls.install}".rstrip("; ")
        return None
