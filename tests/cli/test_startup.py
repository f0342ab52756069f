"""Commands start without the libraries that only other commands need."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = ("scipy.sparse", "scipy.linalg", "torch", "jax", "pandas", "matplotlib", "pyarrow")


@pytest.mark.parametrize(
    ("arguments", "free_of"),
    [("--help", (*SLOW, "numpy", "rich")), ("run --help", (*SLOW, "numpy")), ("list", SLOW)],
)
def test_a_command_imports_what_it_needs(arguments: str, free_of: tuple[str, ...]) -> None:
    code = f"""
import sys
from bpqp_bench.cli.main import _WhenUsed, main
sys.argv = ["bpqp-bench", *{arguments.split()!r}]
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
loaded = [name for name, module in sys.modules.items() if type(module) is not _WhenUsed]
print("LOADED", *sorted(set(loaded) & set({free_of!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_what_stands_in_is_the_module_once_it_is_used() -> None:
    code = """
import sys
from bpqp_bench.cli.main import _WhenUsed
sys.modules["scipy.fft"] = _WhenUsed("scipy.fft")
import scipy.fft as fft
assert type(fft) is _WhenUsed
assert fft.fft([1.0, 0.0])[0] == 1.0
import scipy.fft
from scipy.fft import fft as again
assert scipy.fft.fft is again is fft.fft and type(sys.modules["scipy.fft"]) is not _WhenUsed
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_exports_what_it_lists() -> None:
    import bpqp_bench
    import bpqp_bench.reference

    for package in (bpqp_bench, bpqp_bench.reference):
        assert all(hasattr(package, name) for name in package.__all__)
        assert not hasattr(package, "no_such_name")
    assert set(bpqp_bench.__all__) <= set(dir(bpqp_bench))
