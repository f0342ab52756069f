"""Discovery of plug-in files: problem families and methods, found and loaded by path."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from bpqp_bench.errors import PluginError, SpecError
from bpqp_bench.method.choice import MethodChoice
from bpqp_bench.method.contract import Method
from bpqp_bench.plugins.specification import parse_spec
from bpqp_bench.problem.family import Family, FamilyChoice
from bpqp_bench.problem.parameters import format_spec, typed_parameters

_T = TypeVar("_T")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plug-in file that raised while it was loaded."""

    path: str
    error: str
    traceback: str


@dataclass(frozen=True)
class Found(Generic[_T]):
    """A plug-in with the place it came from."""

    plugin: _T
    path: str


@dataclass
class Registry:
    """All families and methods that can be named.

    Parameters
    ----------
    methods_dirs, problems_dirs
        Folders of a user's own plug-ins, searched after the built-in ones; a plug-in of the same
        name as a built-in one is an error, not a replacement.
    """

    methods_dirs: tuple[Path, ...] = ()
    problems_dirs: tuple[Path, ...] = ()
    methods: dict[str, Found[type[Method]]] = field(default_factory=dict)
    families: dict[str, Found[Family]] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def __post_init__(self) -> None:
        installed = importlib.metadata.entry_points()  # takes its time, so once for both
        entries = installed.select(group="bpqp_bench.problems")
        self._load("problems", self.problems_dirs, entries, _families_in, self.families)
        entries = installed.select(group="bpqp_bench.methods")
        self._load("methods", self.methods_dirs, entries, _methods_in, self.methods)

    def method(self, text: str) -> MethodChoice:
        """Read ``bpqp[backward=direct]``, or the name of a variant.

        Raises
        ------
        SpecError
            If no such method or parameter exists.
        """
        name, given = parse_spec(text)
        for found in self.methods.values():
            cls = found.plugin
            if name == cls.name:
                return self._choice(cls, given)
            if name in cls.variants:
                return self._choice(cls, dict(cls.variants[name].parameters) | given)
        known = ", ".join(self.method_names())
        raise SpecError(f"unknown method {name!r}; known methods: {known}{self._broken_hint()}")

    def family(self, text: str) -> FamilyChoice:
        """Read ``qp[delta=1e-3]``.

        Raises
        ------
        SpecError
            If no such family or parameter exists.
        """
        name, given = parse_spec(text)
        if name not in self.families:
            known = ", ".join(sorted(self.families))
            raise SpecError(
                f"unknown problem family {name!r}; known families: {known}{self._broken_hint()}"
            )
        family = self.families[name].plugin
        changed = typed_parameters(f"family {name}", given, family.all_parameters)
        return FamilyChoice(family, changed, format_spec(name, changed))

    def method_names(self) -> list[str]:
        """Names of all methods and their variants."""
        names: list[str] = []
        for name in sorted(self.methods):
            names += [name, *sorted(self.methods[name].plugin.variants)]
        return names

    def group(self, name: str) -> list[str]:
        """Names of all methods of a group ("paper", "modern", "ours", "user") and their variants.

        Raises
        ------
        SpecError
            If no method is of that group.
        """
        groups = {found.plugin.group for found in self.methods.values()}
        if name not in groups:
            raise SpecError(f"unknown group {name!r}; groups are {', '.join(sorted(groups))}")
        return [text for text in self.method_names() if self.method(text).cls.group == name]

    def at_tolerances(self, text: str, values: Iterable[float]) -> list[str]:
        """Return a method's specification at each value of its tolerance; none if it has none."""
        choice = self.method(text)
        name = choice.cls.tolerance
        if name is None:
            return []
        given = [dict(choice.parameters) | {name: value} for value in values]
        return [self._choice(choice.cls, parameters).key for parameters in given]

    def _choice(self, cls: type[Method], given: Mapping[str, object]) -> MethodChoice:
        changed = typed_parameters(f"method {cls.name}", given, cls.parameters)
        label = format_spec(cls.label, changed)
        chosen = None
        for variant in cls.variants.values():
            if typed_parameters(cls.name, variant.parameters, cls.parameters) == changed:
                chosen, label = variant, variant.label
        key = format_spec(cls.name, changed)
        return MethodChoice(cls, changed, key, label, chosen, self.family)

    def _broken_hint(self) -> str:
        if not self.broken:
            return ""
        return f" (not loaded: {', '.join(plugin.path for plugin in self.broken)})"

    def _load(
        self,
        kind: str,
        extra: tuple[Path, ...],
        entries: Iterable[importlib.metadata.EntryPoint],
        read: Callable[[ModuleType], Iterable[tuple[str, _T]]],
        into: dict[str, Found[_T]],
    ) -> None:
        for directory in (builtin_directory(kind), *extra):
            if not directory.is_dir():
                raise PluginError(f"plug-in folder {directory} does not exist")
            for path in sorted(directory.glob("*.py")):
                if not path.name.startswith(("_", "template_")):
                    self._add(str(path), partial(_load_file, path, kind), read, into)
        for entry in entries:
            self._add(f"entry point {entry.name}", partial(_as_module, entry), read, into)

    def _add(
        self,
        path: str,
        load: Callable[[], ModuleType],
        read: Callable[[ModuleType], Iterable[tuple[str, _T]]],
        into: dict[str, Found[_T]],
    ) -> None:
        # Anything may go wrong in a stranger's file; it must not stop the other plug-ins.
        try:
            loaded = list(read(load()))
            if not loaded:
                raise PluginError("declares no plug-in (a Method subclass, or FAMILY)")
            for name, plugin in loaded:
                if name in into:
                    raise PluginError(f"the name {name!r} is taken by {into[name].path}")
                into[name] = Found(plugin, path)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            # What the registry refuses needs no traceback: the sentence says it.
            trace = "" if isinstance(error, PluginError) else traceback.format_exc()
            self.broken.append(BrokenPlugin(path, text, trace))


def builtin_directory(kind: str) -> Path:
    """Return the built-in folder "problems" or "methods": in the wheel, or in the checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "_plugins" / kind
    return shipped if shipped.is_dir() else package.parent / kind


def _load_file(path: Path, kind: str) -> ModuleType:
    # A private module name: nobody's environment gets a module called "methods" or "osqp".
    name = f"bpqp_bench._loaded_{kind}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _as_module(entry: importlib.metadata.EntryPoint) -> ModuleType:
    loaded: Any = entry.load()
    if isinstance(loaded, ModuleType):
        return loaded
    module = ModuleType(f"entry_point_{entry.name}")
    if isinstance(loaded, Family):
        module.FAMILY = loaded  # type: ignore[attr-defined]
    else:
        setattr(module, loaded.__name__, loaded)
        loaded.__module__ = module.__name__
    return module


def _methods_in(module: ModuleType) -> Iterable[tuple[str, type[Method]]]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        own = cls.__module__ == module.__name__
        if own and issubclass(cls, Method) and not inspect.isabstract(cls):
            for name, kind in (("name", str), ("label", str), ("reference", str),
                               ("problem_classes", frozenset)):  # fmt: skip
                if not isinstance(getattr(cls, name, None), kind):
                    raise PluginError(f"class {cls.__name__} declares no {name} ({kind.__name__})")
            yield cls.name, cls


def _families_in(module: ModuleType) -> Iterable[tuple[str, Family]]:
    family = getattr(module, "FAMILY", None)
    if family is not None:
        if not isinstance(family, Family):
            raise PluginError("FAMILY is not a bpqp_bench.Family")
        yield family.name, family
