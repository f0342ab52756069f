"""Discovery: a user's folders, broken files, missing libraries, name clashes, entry points."""

import importlib.metadata
import sys
from types import ModuleType

import pytest

from bpqp_bench import Registry, Size
from bpqp_bench.errors import PluginError, SpecError
from bpqp_bench.plugins.registry import builtin_directory

FAMILY_FILE = """
import numpy as np
from bpqp_bench import Family, Instance

def generate(size, rng, scale):
    n = size.n
    return Instance(P=np.eye(n), q=scale * rng.random(n), A=np.zeros((0, n)), b=np.zeros(0),
                    G=np.zeros((0, n)), h=np.zeros(0))

FAMILY = Family("{name}", "Mine", "qp", "here", generate, {{"scale": 2.0}})
"""

METHOD_FILE = """
from types import MappingProxyType
from bpqp_bench import Method, Solution, Variant

class Mine(Method):
    name = "{name}"
    label = "Mine"
    reference = "here"
    problem_classes = frozenset({{"qp"}})
    requires = {requires}
    parameters = MappingProxyType({{"eps": 1e-6, "mode": "fast"}})
    variants = MappingProxyType({{"{name}-slow": Variant("Mine (slow)", {{"mode": "slow"}})}})

    def build(self, template): ...
    def forward(self, problem, clock): return Solution(problem.q)
    def backward(self, upstream, clock): return {{"q": upstream}}
"""


@pytest.fixture
def problems(tmp_path):
    folder = tmp_path / "problems"
    folder.mkdir()
    return folder


@pytest.fixture
def methods(tmp_path):
    folder = tmp_path / "methods"
    folder.mkdir()
    return folder


def write_method(folder, file="mine.py", name="mine", requires="()"):
    (folder / file).write_text(METHOD_FILE.format(name=name, requires=requires))


def test_the_built_in_families_are_found():
    registry = Registry()
    assert {"qp", "lp", "socp", "socp-robust", "qp-active"} <= set(registry.families)
    assert not [plugin for plugin in registry.broken if "problems" in plugin.path]


def test_a_template_or_underscore_file_is_no_plug_in(problems):
    (problems / "template_mine.py").write_text(FAMILY_FILE.format(name="unseen"))
    (problems / "_helper.py").write_text("raise RuntimeError('must not be loaded')")
    registry = Registry(problems_dirs=(problems,))
    assert "unseen" not in registry.families
    assert "nearest-point" not in registry.families  # problems/template_family.py
    assert not [plugin for plugin in registry.broken if str(problems) in plugin.path]


def test_a_users_family_is_added_and_drawn(problems):
    (problems / "mine.py").write_text(FAMILY_FILE.format(name="mine"))
    choice = Registry(problems_dirs=(problems,)).family("mine[scale=3]")
    instance = choice.draw(Size(4, 0), 1)
    assert choice.key == "mine[scale=3]"
    assert instance.name == "mine[scale=3]-4x0-1"


def test_a_users_method_is_added_with_parameters_and_variants(methods):
    write_method(methods)
    registry = Registry(methods_dirs=(methods,))
    assert registry.method("mine").label == "Mine"
    assert registry.method("mine[eps=1e-6]").key == "mine"
    assert registry.method("mine[eps=1e-3]").label == "Mine[eps=0.001]"
    slow = registry.method("mine-slow")
    assert (slow.key, slow.label) == ("mine[mode=slow]", "Mine (slow)")
    assert registry.method("mine[mode=slow]").label == "Mine (slow)"
    assert registry.method("mine-slow[eps=1e-3]").key == "mine[eps=0.001,mode=slow]"
    assert {"mine", "mine-slow"} <= set(registry.method_names())
    assert registry.method("mine-slow").create().options == {"eps": 1e-6, "mode": "slow"}


def test_loading_leaves_no_top_level_module(methods):
    write_method(methods)
    before = set(sys.modules)
    Registry(methods_dirs=(methods,))
    assert not {name for name in set(sys.modules) - before if "." not in name} & {"mine", "methods"}


def test_a_broken_file_is_reported_and_the_others_load(methods):
    (methods / "bad.py").write_text("def oops():\n    raise ZeroDivisionError('at home')\noops()\n")
    (methods / "syntax.py").write_text("class Mine(:\n")
    (methods / "empty.py").write_text("x = 1\n")
    write_method(methods)
    registry = Registry(methods_dirs=(methods,))
    broken = {plugin.path: plugin for plugin in registry.broken if str(methods) in plugin.path}
    assert set(broken) == {str(methods / name) for name in ("bad.py", "syntax.py", "empty.py")}
    bad = broken[str(methods / "bad.py")]
    assert bad.error == "ZeroDivisionError: at home"
    assert "in oops" in bad.traceback
    assert "SyntaxError" in broken[str(methods / "syntax.py")].error
    assert "declares no plug-in" in broken[str(methods / "empty.py")].error
    assert "mine" in registry.methods
    assert "qp" in registry.families


def test_a_family_that_is_none_is_reported(problems):
    (problems / "wrong.py").write_text("FAMILY = 'qp'\n")
    registry = Registry(problems_dirs=(problems,))
    assert "FAMILY is not a bpqp_bench.Family" in registry.broken[-1].error


def test_unknown_names_list_the_known_ones_and_the_files_not_loaded(methods):
    (methods / "bad.py").write_text("raise ValueError('no')")
    registry = Registry(methods_dirs=(methods,))
    with pytest.raises(SpecError, match="unknown method 'nosuch'; known methods") as error:
        registry.method("nosuch")
    assert str(methods / "bad.py") in str(error.value)
    with pytest.raises(SpecError, match=r"unknown problem family 'nosuch'; known families: .*qp"):
        registry.family("nosuch")
    with pytest.raises(SpecError, match="family qp has no parameter 'eps'; it has: delta, fixed"):
        registry.family("qp[eps=1]")


def test_a_missing_library_makes_the_method_unavailable_and_not_broken(methods):
    write_method(methods, requires="('numpy', 'no_such_library')")
    registry = Registry(methods_dirs=(methods,))
    assert registry.method("mine").missing() == "No module named 'no_such_library'"
    write_method(methods, requires="('no_such_package.module',)")
    registry = Registry(methods_dirs=(methods,))
    assert "no_such_package" in registry.method("mine").missing()
    write_method(methods, requires="('no_such_library',)\n    install = 'it needs Python 4'")
    reason = Registry(methods_dirs=(methods,)).method("mine").missing()
    assert reason == "No module named 'no_such_library'; it needs Python 4"
    write_method(methods, requires="('numpy', 'scipy.sparse')")
    assert Registry(methods_dirs=(methods,)).method("mine").missing() is None


def test_a_taken_name_is_an_error_and_no_replacement(problems, methods):
    (problems / "other.py").write_text(FAMILY_FILE.format(name="qp"))
    write_method(methods, "a.py")
    write_method(methods, "b.py")
    registry = Registry(problems_dirs=(problems,), methods_dirs=(methods,))
    errors = [plugin.error for plugin in registry.broken]
    assert any("the name 'qp' is taken by" in error for error in errors)
    assert any("the name 'mine' is taken by" in error for error in errors)
    assert registry.families["qp"].path == str(builtin_directory("problems") / "qp.py")
    assert registry.methods["mine"].path == str(methods / "a.py")


def test_two_folders_may_hold_files_of_the_same_name(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_method(folder, "same.py", name=folder.name)
    registry = Registry(methods_dirs=tuple(folders))
    assert {"one", "two"} <= set(registry.methods)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(PluginError, match="nowhere does not exist"):
        Registry(methods_dirs=(tmp_path / "nowhere",))


def test_entry_points_are_loaded_and_a_broken_one_is_reported(monkeypatch, tmp_path):
    module = ModuleType("entry_family_for_test")
    exec(FAMILY_FILE.format(name="entered"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    group = "bpqp_bench.problems"
    points = [
        importlib.metadata.EntryPoint("good", f"{module.__name__}:FAMILY", group),
        importlib.metadata.EntryPoint("bad", "no_such_module_for_test:FAMILY", group),
    ]
    found = importlib.metadata.EntryPoints(points)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda: found)
    registry = Registry()
    assert registry.families["entered"].path == "entry point good"
    broken = [plugin for plugin in registry.broken if plugin.path == "entry point bad"]
    assert "no_such_module_for_test" in broken[0].error


def test_a_group_is_its_methods_with_their_variants():
    registry = Registry()
    assert set(registry.group("ours")) >= {"bpqp", "bpqp-direct"}
    assert set(registry.group("paper")) >= {"exact", "exact-solve", "qpth", "cvxpy-paper"}
    modern = registry.group("modern")
    assert {"qplayer", "qplayer-defaults", "cvxpylayers", "qpax", "dxpp"} <= set(modern)
    assert not set(modern) & (set(registry.group("ours")) | set(registry.group("paper")))
    with pytest.raises(SpecError, match="unknown group 'newest'; groups are modern, ours, paper"):
        registry.group("newest")


def test_every_named_tolerance_is_a_parameter_and_can_be_swept():
    registry = Registry()
    swept = 0
    for found in registry.methods.values():
        cls = found.plugin
        if cls.tolerance is None:
            assert registry.at_tolerances(cls.name, [1e-3]) == []
            continue
        swept += 1
        default = cls.parameters[cls.tolerance]
        assert isinstance(default, float)
        for text, value in zip(
            registry.at_tolerances(cls.name, [1.5e-3, 2.5e-7]), [1.5e-3, 2.5e-7], strict=True
        ):
            assert registry.method(text).create().options[cls.tolerance] == value
    assert swept >= 10
    # what a variant sets beside its tolerance stays
    (text,) = registry.at_tolerances("qpax-explicit", [1e-4])
    assert registry.method(text).parameters == {"backend": "explicit", "solver_tol": 1e-4}


def test_groups_and_tolerances_are_planned(tmp_path):
    from click.testing import CliRunner

    from bpqp_bench.cli.run import run

    command = ["--dry-run", "--family", "qp-active", "--size", "10x5"]
    curve = ["--tolerance", "1e-3", "--tolerance", "1e-6"]
    found = CliRunner().invoke(run, [*command, "--group", "modern", *curve])
    assert found.exit_code == 0, found.output
    assert "qplayer[eps=0.001]" in found.output or "qplayer[eps=1e-3]" in found.output
    assert "jaxopt-cvxpyqp" in found.output  # no tolerance: measured as it is
    wrong = CliRunner().invoke(run, [*command, "--group", "newest"])
    assert wrong.exit_code != 0
