"""2,000 problems for the default layer, none of them wrong silently or refused falsely."""

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .judge import FAULTS, PAIRS, run
from .kinds import KINDS

DEFAULT = PAIRS[0]
PROBLEMS = 2000

# The same problems every time; others are for `make fuzz`. To shrink a seed means nothing.
settings.register_profile(
    "fuzz",
    max_examples=-(-PROBLEMS // len(KINDS)),
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
fuzz = settings.get_profile("fuzz")
# Bits, since Hypothesis takes integers from the constants of the code, which change with it.
SEEDS = st.lists(st.booleans(), min_size=32, max_size=32).map(
    lambda bits: sum(bit << i for i, bit in enumerate(bits))
)

#: Problems that were answered wrongly once.
KEPT: list[tuple[str, int]] = [
    ("scalar", 372),
    ("faint", 185),
    ("integers", 148),
    ("integers", 1001369366),
    ("unbounded", 0),
    ("unbounded", 138),
    ("unbounded", 43105425),
    ("unbounded", 1102650647),
    ("unbounded", 1102667031),
    ("unbounded", 1116847289),
    ("unbounded", 1352088771),
    ("unbounded", 1541676958),
    ("unbounded", 2803858353),
    ("unbounded", 3384162733),
    ("unbounded", 3828092044),
    ("contradictory", 1),
    ("contradictory", 1001369398),
    ("contradictory", 1107624350),
    ("redundant", 1352088779),
    ("weak", 984592150),
    ("negated", 1),
    ("unbounded", 40000064),
    ("vertex", 80000039),
    ("lp", 91000034),
    ("faint", 91000048),
    ("scalar", 300000194),
    ("scalar", 610000041),
    ("scalar", 610000146),
    ("contradictory", 70000958),
    ("weak", 700000333),
    ("unbounded", 710000084),
    ("lp", 800001914),
    ("units", 800001994),
    ("contradictory", 820001585),
    ("contradictory", 840000536),
    ("singular", 880001153),
    ("near", 930000913),
    ("weak", 930002060),
    ("sparse", 930002300),
    ("sparse", 930002829),
]

#: And with other solvers.
KEPT_OTHERS: list[tuple[str, str, int]] = [
    ("osqp/osqp", "bounds", 600000015),
    ("clarabel/direct", "bounds", 90003),
    ("osqp/osqp", "scalar", 600000099),
    ("clarabel/direct", "scalar", 600000144),
    ("piqp/direct", "separable", 600000098),
    ("quadprog/direct", "weak", 600000118),
    ("osqp/osqp", "redundant", 600000097),
    ("osqp/osqp", "near", 600000193),
    ("piqp/direct", "bounds", 610000314),
    ("clarabel/direct", "faint", 650000204),
    ("proxqp/direct", "scalar", 850000019),
    ("quadprog/direct", "sparse", 850000000),
    ("clarabel/direct", "faint", 630000033),
    ("exact-kkt", "lp", 630000002),
    ("exact-kkt", "weak", 630000002),
    ("exact-kkt", "redundant", 630000002),
    ("exact-kkt", "near", 630000008),
    ("convex-program", "scalar", 630000005),
    ("convex-program", "box", 630000043),
    ("convex-program", "units", 630000010),
    ("convex-program", "weak", 630000040),
    ("convex-program", "unbounded", 630000000),
    ("convex-program", "contradictory", 630000046),
    ("convex-program", "indefinite", 630000001),
    ("convex-program", "strides", 630000017),
    ("convex-program", "negated", 630000000),
    ("alt-diff", "indefinite", 630000001),
    ("alt-diff", "separable", 630000000),
    ("alt-diff", "contradictory", 630000030),
    ("alt-diff", "single", 630000000),
    ("alt-diff", "separable", 640000006),
    ("alt-diff", "unbounded", 640000092),
    ("alt-diff", "contradictory", 640000036),
    ("convex-program", "indefinite", 640000101),
]


def tell(kind, which, pair=DEFAULT):
    found = run(kind, which, pair)
    assert found.outcome not in FAULTS, f"{kind} {which}: {found.outcome}: {found.why}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_layer_tells_the_truth(kind):
    @seed(0)
    @settings(fuzz)
    @given(which=SEEDS)
    def check(which):
        tell(kind, which)

    check()


@pytest.mark.parametrize(("kind", "which"), KEPT)
def test_problems_that_were_answered_wrongly_once(kind, which):
    tell(kind, which)


@pytest.mark.parametrize(("pair", "kind", "which"), KEPT_OTHERS)
def test_problems_that_other_solvers_were_wrong_on_once(pair, kind, which):
    tell(kind, which, pair)
