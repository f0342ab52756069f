"""What every table and figure is rendered from: one run directory, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bpqp_bench.errors import ResultsError, SpecError
from bpqp_bench.method.contract import Method
from bpqp_bench.plugins.registry import Registry
from bpqp_bench.problem.parameters import format_spec
from bpqp_bench.results.cells import Cells, settings
from bpqp_bench.results.measurement import method_of_schema_1
from bpqp_bench.results.run_directory import load_measurements, to_frame
from bpqp_bench.results.store import read_json
from bpqp_bench.runner.profiles import Profile, profile


@dataclass(frozen=True)
class MethodName:
    """A method as asked for (``name``), as kept in results (``key``), as printed (``label``)."""

    name: str
    key: str
    label: str


class Names:
    """Translates between what tables ask for and what results are kept under.

    A table asks for ``bpqp-direct``; results hold ``bpqp[backward=direct]``. A name that the
    registry does not know (a plug-in that is no longer there) stands for itself.

    Parameters
    ----------
    registry
        None: names are their own keys.
    """

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry
        # Tables ask for the same few again and again.
        self._methods: dict[str, MethodName] = {}
        self._tolerances: dict[str, tuple[MethodName, float] | None] = {}

    def method(self, text: str) -> MethodName:
        """Return name, key and label of a method."""
        if text not in self._methods:
            self._methods[text] = self._method(text)
        return self._methods[text]

    def _method(self, text: str) -> MethodName:
        if self._registry is not None:
            try:
                choice = self._registry.method(text)
            except SpecError:
                pass
            else:
                return MethodName(text, choice.key, choice.label)
        return MethodName(text, text, text)

    def at_tolerance(self, key: str) -> tuple[MethodName, float] | None:
        """Split a method's key into the method without its tolerance, and the tolerance.

        None for a method that names none, and for one that the registry does not know.
        """
        if key not in self._tolerances:
            self._tolerances[key] = self._at_tolerance(key)
        return self._tolerances[key]

    def _at_tolerance(self, key: str) -> tuple[MethodName, float] | None:
        if self._registry is None:
            return None
        try:
            choice = self._registry.method(key)
        except SpecError:
            return None
        name = choice.cls.tolerance
        if name is None:
            return None
        value = (dict(choice.cls.parameters) | dict(choice.parameters))[name]
        rest = {k: v for k, v in choice.parameters.items() if k != name}
        return self.method(format_spec(choice.cls.name, rest)), float(str(value))

    def declared(self, key: str) -> type[Method] | None:
        """Return the class of a method, where the registry knows it."""
        if self._registry is None:
            return None
        try:
            return self._registry.method(key).cls
        except SpecError:
            return None

    def family(self, text: str) -> str:
        """Return the key that results of a family are kept under."""
        if self._registry is not None:
            try:
                return self._registry.family(text).key
            except SpecError:
                pass
        return text

    def family_label(self, key: str) -> str:
        """Return the printed name of a family with its parameters: "Nearest point [slack=0.2]"."""
        if self._registry is not None:
            try:
                label = self._registry.family(key).family.label
            except SpecError:
                return key
            options = key.partition("[")[2]
            return f"{label} [{options}" if options else label
        return key

    def methods(self, texts: Iterable[str]) -> list[MethodName]:
        """Translate several; names of the same method appear once, the first one wins."""
        found: dict[str, MethodName] = {}
        for text in texts:
            name = self.method(text)
            found.setdefault(name.key, name)
        return list(found.values())


@dataclass(frozen=True)
class Inputs:
    """One run, ready for rendering.

    Attributes
    ----------
    cells
        Its measurements.
    names
        Translation of method and family names.
    profile
        The profile it was planned with; None if it was not one of `reproduce`.
    run_dir
        Where further results of the run may lie (the portfolio's); None in tests.
    requested
        Names of the methods that any table asks for.
    planned
        Every (family, size, method) of the run's plan, by key; None if it is not known.
    settings
        Its measurements in every setting (batch, dtype, device, …), a `Cells` each.
    environment, config
        The contents of environment.json and config.json.
    """

    cells: Cells
    names: Names
    profile: Profile | None = None
    run_dir: Path | None = None
    requested: tuple[str, ...] = ()
    planned: frozenset[tuple[str, str, str]] | None = None
    settings: tuple[Cells, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def suites(self) -> tuple[str, ...]:
        """The commands that it was measured by: "reproduce", "survey"; none of the user's own."""
        found = self.config.get("suites")
        return tuple(str(one) for one in found) if isinstance(found, list) else ()

    @property
    def frame(self) -> pd.DataFrame:
        """The tidy frame behind `cells`."""
        return self.cells.frame

    def expects(
        self, *families: str, sizes: Iterable[str] = (), methods: Iterable[str] = ()
    ) -> bool:
        """Whether a table should have a place for these: they were planned or measured.

        True where the plan is not known. No sizes or methods given: any.
        """
        if self.planned is None:
            return True
        wanted = set(sizes), set(methods)
        return any(
            (not wanted[0] or size in wanted[0]) and (not wanted[1] or method in wanted[1])
            for family in families or self._places
            for size, method in self._places.get(family, ())
        )

    @cached_property
    def _places(self) -> dict[str, set[tuple[str, str]]]:
        """Size and method of every cell that was planned or measured, by family."""
        found: dict[str, set[tuple[str, str]]] = {}
        for family, size, method in (*(self.planned or ()), *self.cells.keys()):
            found.setdefault(family, set()).add((size, method))
        return found

    def rows(self, asked: Iterable[str], *families: str) -> list[MethodName]:
        """Methods of a table: those it asked for, then a user's own that were measured.

        A method that it asked for but that the run's plan left out has no row. Solver pairs and
        the like, which other tables ask for, stay in their tables.
        """
        named = self.names.methods(asked)
        known = {name.key for name in named}
        elsewhere = {name.key for name in self.names.methods(self.requested)}
        extra = [
            MethodName(key, key, self.cells.label(key) or key)
            for key in self.cells.methods(*families)
            if key not in known | elsewhere
        ]
        seen = [
            MethodName(name.name, name.key, self.cells.label(name.key) or name.label)
            for name in named
            if self.expects(*families, methods=(name.key,))
        ]
        return seen + extra


def load_inputs(run_dir: Path, registry: Registry | None = None) -> Inputs:
    """Read a run directory.

    Parameters
    ----------
    run_dir
        Holds measurements.jsonl (or .gz), environment.json and config.json; all but the first may
        be missing.
    registry
        Where names are looked up; the built-in plug-ins by default.

    Raises
    ------
    ResultsError
        If the directory is not a run or cannot be read.
    """
    if not run_dir.is_dir():
        raise ResultsError(f"{run_dir} is not a run directory")
    frame = to_frame(load_measurements(run_dir))
    config = _read(run_dir / "config.json")
    cells = Cells(frame)
    return Inputs(
        cells=cells,
        settings=tuple(
            cells if setting == cells.setting else Cells(frame, setting)
            for setting in settings(frame)
        ),
        names=Names(registry if registry is not None else Registry()),
        profile=_profile(config),
        run_dir=run_dir,
        planned=_planned(config, set(cells.methods(*cells.families()))),
        environment=_read(run_dir / "environment.json"),
        config=config,
    )


def _planned(
    config: Mapping[str, Any], measured: set[str]
) -> frozenset[tuple[str, str, str]] | None:
    def today(method: str) -> str:
        former = method_of_schema_1(method)
        return former if method not in measured and former in measured else method

    try:
        return frozenset(
            (str(block["family"]), str(block["size"]), today(str(cell["method"])))
            for block in config["plan"]["blocks"]
            for cell in block["cells"]
        )
    except (KeyError, TypeError):
        return None


def _profile(config: Mapping[str, Any]) -> Profile | None:
    name = config.get("profile")
    if isinstance(name, Mapping):
        name = name.get("name")
    if not isinstance(name, str):
        return None
    try:
        return profile(name)
    except SpecError:
        return None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
