"""docs/known-faults.md is true: its lines are run, so that a fault that is mended is noticed."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "known-faults.md").read_text()
SETUP, *SECTIONS = re.split(r"^## ", TEXT, flags=re.M)
LIBRARIES = {"qpax": "qpax", "cvxpylayers": "cvxpylayers", "diffcp": "cvxpylayers",
             "Moreau": "moreau", "ffolayer": "ffolayer", "ProxSuite": "proxsuite",
             "JAXOpt": "jaxopt", "SCQPTH": "torch", "dXPP": "proxsuite",
             "Alt-Diff": "torch"}  # fmt: skip


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


def code(wanted):
    """The setup, the blocks that define functions for later sections, and the wanted section's."""
    shared = [block for section in SECTIONS for block in blocks(section) if "\ndef " in block]
    before = shared if "solved(" in wanted else []
    return [*blocks(SETUP), *before, *blocks(wanted)]


@pytest.mark.parametrize("section", [s for s in SECTIONS if blocks(s)], ids=lambda s: s.split()[0])
def test_fault_is_there(section):
    pytest.importorskip(LIBRARIES[section.split()[0]])
    namespace = {}
    for block in dict.fromkeys(code(section)):
        exec(compile(block, section.splitlines()[0], "exec"), namespace)
