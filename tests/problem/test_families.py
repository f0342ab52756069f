"""Problem families: feasible, bounded, planted solutions optimal, bit-identical, sparing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from places import ROOT
from qp_samples import dense
from scipy.optimize import linprog

from bpqp_bench import Registry, Size, draw
from bpqp_bench.errors import SpecError
from bpqp_bench.plugins.registry import builtin_directory

REGISTRY = Registry()
FAMILIES = ("qp", "lp", "lp[eps=0]", "socp", "socp-robust", "qp-active", "qp-active[density=0.3]")
quick = settings(max_examples=20)

seeds = st.integers(0, 10**6)
# 2m ≤ n and m ≥ 1: every family takes these.
sizes = st.integers(2, 24).flatmap(lambda n: st.builds(Size, st.just(n), st.integers(1, n // 2)))


def drawn(family, size, seed=0):
    size = Size.parse(size) if isinstance(size, str) else size
    return REGISTRY.family(family).draw(size, seed)


def linear_program(instance, objective, bound=None):
    return linprog(
        objective,
        A_ub=dense(instance.G) if instance.nineq else None,
        b_ub=instance.h if instance.nineq else None,
        A_eq=dense(instance.A) if instance.neq else None,
        b_eq=instance.b if instance.neq else None,
        bounds=(bound, None) if bound is not None else (None, None),
        method="highs",
    )


def assert_optimal(instance):
    planted = instance.planted
    found = instance.residuals(planted.z, planted.nu, planted.lam, planted.mu)
    scale = 1.0 + max(np.abs(instance.q).max(initial=0.0), np.abs(planted.z).max(initial=0.0))
    assert found.primal <= 1e-13 * scale * instance.n
    assert found.dual <= 1e-13 * scale * instance.n
    assert found.complementarity <= 1e-13 * scale**2 * instance.n


# --- what all families promise -------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@quick
@given(size=sizes, seed=seeds)
def test_shapes_class_and_identity(family, size, seed):
    instance = drawn(family, size, seed)
    cones = instance.problem_class == "socp"
    assert instance.n == size.n
    assert (instance.neq, instance.nineq) == ((0, 0) if cones else (size.m, size.m))
    assert instance.problem_class == REGISTRY.family(family).family.problem_class
    assert instance.name == f"{family}-{size}-{seed}"
    P = dense(instance.P)
    assert np.array_equal(P, P.T)


@pytest.mark.parametrize("family", FAMILIES)
@quick
@given(size=sizes, seed=seeds)
def test_regeneration_is_bit_identical_and_seeds_differ(family, size, seed):
    one = drawn(family, size, seed)
    assert drawn(family, size, seed).sha256 == one.sha256
    assert replace(one, sha256="").sha256 == one.sha256
    assert drawn(family, size, seed + 1).sha256 != one.sha256


@pytest.mark.parametrize("family", ["lp[eps=0]", "socp", "socp-robust", "qp-active"])
@quick
@given(size=sizes, seed=seeds)
def test_planted_solutions_are_optimal(family, size, seed):
    instance = drawn(family, size, seed)
    assert_optimal(instance)
    inactive = ~instance.planted.active
    slack = np.concatenate([instance.h - instance.G @ instance.planted.z])
    slack = np.concatenate([slack, -instance.cone_values(instance.planted.z)])
    assert (slack[inactive] > 0.0).all()


@pytest.mark.parametrize("family", FAMILIES)
@quick
@given(size=sizes, seed=seeds)
def test_planted_feasible_points_are_feasible(family, size, seed):
    instance = drawn(family, size, seed)
    if family == "qp":
        assert instance.planted is None  # feasible by rank: see the linear program below
    else:
        assert instance.residuals(instance.planted.feasible).primal <= 1e-12 * instance.n


@quick
@given(size=sizes, seed=seeds)
def test_qp_is_feasible_and_bounded(size, seed):
    instance = drawn("qp", size, seed)
    assert linear_program(instance, np.zeros(instance.n)).status == 0
    # Bounded: P is a Gram matrix plus δI; Cholesky is the proof that it is positive definite.
    np.linalg.cholesky(instance.P)


@pytest.mark.parametrize("family", ["lp[eps=0]", "lp[eps=0,fixed=true]"])
@quick
@given(size=sizes, seed=seeds)
def test_lp_is_bounded(family, size, seed):
    instance = drawn(family, size, seed)
    found = linear_program(instance, instance.q)
    assert found.status == 0
    if instance.planted is not None:
        assert found.fun == pytest.approx(
            instance.objective(instance.planted.z), rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize("family", ["lp", "socp", "socp-robust", "qp-active"])
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_survive_a_fresh_process(family, threads):
    code = (
        "import json, sys\n"
        "from bpqp_bench import Registry, Size\n"
        "from bpqp_bench.problem.instance import Size\n"
        "f = Registry().family\n"
        f"print(json.dumps([f(x).draw(Size(200, 60), 7).sha256 for x in ({family!r}, 'qp')]))\n"
    )
    environment = dict(os.environ)
    environment |= {
        "PYTHONHASHSEED": str(100 + threads),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [drawn(name, "200x60", 7).sha256 for name in (family, "qp")]


@pytest.mark.parametrize("family", ["qp", "lp", "socp", "socp-robust"])
@quick
@given(size=sizes, seed=seeds)
def test_fixed_shares_everything_but_q(family, size, seed):
    one, other = drawn(f"{family}[fixed=true]", size, seed), drawn(f"{family}[fixed=true]", size, 0)
    assume(seed != 0)
    for name in ("P", "A", "b", "G", "h"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    for mine, yours in zip(one.cones, other.cones, strict=True):
        assert np.array_equal(mine.c, yours.c)
        assert mine.d == yours.d
    assert one.planted is None
    assert one.sha256 == replace(one, sha256="").sha256
    # An LP of one inequality may draw λ = 0 twice, and q with it.
    if family != "lp" or one.q.any() or other.q.any():
        assert not np.array_equal(one.q, other.q)
        assert one.sha256 != other.sha256


@pytest.mark.parametrize("family", FAMILIES)
def test_a_negative_seed_is_an_error(family):
    with pytest.raises(SpecError, match="seed -1 is negative"):
        drawn(family, "10x5", -1)


def test_qp_active_has_no_fixed_data():
    with pytest.raises(SpecError, match="no parameter 'fixed'"):
        drawn("qp-active[fixed=true]", "10x5")


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("qp", "10x6", r"qp at size 10x6 need not be feasible; choose M ≤ N/2, here M ≤ 5"),
        ("qp[delta=0]", "10x5", "delta > 0"),
        ("qp[delta=nan]", "10x5", "delta > 0"),
        ("lp", "4x5", r"lp at size 4x5 has dependent equalities; choose M ≤ N = 4"),
        ("lp[eps=-1]", "10x5", "eps ≥ 0"),
        ("lp[eps=nan]", "10x5", "eps ≥ 0"),
        ("socp-robust", "10x0", "no cone; choose M ≥ 1"),
        ("socp-robust[active_share=0]", "10x5", "0 < active_share ≤ 1, got 0"),
        ("socp-robust[margin=0]", "10x5", "0 < margin ≤ 1, got 0"),
        ("socp-robust[active_share=1]", "4x8", "8 active cones for 4 variables; .* ≤ 0.5"),
        ("qp-active[active_share=1.5]", "10x5", "0 ≤ active_share ≤ 1, got 1.5"),
        ("qp-active[margin=-0.1]", "10x5", "0 < margin ≤ 1"),
        ("qp-active[condition=0.5]", "10x5", "condition ≥ 1, got 0.5"),
        ("qp-active[density=0]", "10x5", "0 < density ≤ 1, got 0"),
        ("qp-active[density=2]", "10x5", "0 < density ≤ 1, got 2"),
        ("qp-active", "10x8", "8 equalities and 4 active inequalities for 10 .* ≤ 0.25"),
        ("qp-active", "4x8", "for 4 variables; choose M ≤ 4"),
    ],
)
def test_impossible_requests_are_clear_errors(family, size, message):
    with pytest.raises(SpecError, match=message):
        drawn(family, size)


def test_the_remedy_in_the_error_works():
    assert drawn("qp-active[active_share=0.25]", "10x8").planted.active.sum() == 2
    assert drawn("socp-robust[active_share=0.5]", "4x8").planted.active.sum() == 4


# --- each family by itself -----------------------------------------------------------------------


def test_qp_entries_are_exact_and_uniform():
    instance = drawn("qp", "60x20")
    # P − δI is a sum of products of multiples of 2⁻²⁰: exact in float64, whatever BLAS did.
    gram = instance.P * 2.0**40
    off = ~np.eye(60, dtype=bool)
    assert np.array_equal(gram[off], np.round(gram[off]))
    # E[P_ij] = n/4 and E[P_ii] = n/3 for U(0, 1) entries.
    assert instance.P[off].mean() == pytest.approx(15.0, rel=0.05)
    assert np.diag(instance.P).mean() == pytest.approx(20.0, rel=0.1)
    for name in ("q", "A", "b", "G"):
        values = getattr(instance, name)
        assert values.min() >= 0.0
        assert values.max() < 1.0


def test_delta_is_added_to_the_diagonal():
    one, other = drawn("qp[delta=1]", "10x5"), drawn("qp[delta=2]", "10x5")
    # Parameters are part of the seed, so the data differ; the diagonal tells by its remainder.
    for instance, delta in ((one, 1.0), (other, 2.0)):
        root = instance.P - delta * np.eye(10)
        assert np.linalg.eigvalsh(root).min() > -1e-12
        assert np.linalg.eigvalsh(instance.P).min() == pytest.approx(delta, rel=0.2)


def test_lp_is_the_smoothed_lp():
    instance = drawn("lp[eps=0.5]", "10x5")
    assert np.array_equal(instance.P, np.eye(10))
    assert instance.planted.z is None  # x0 is optimal for ε = 0 only
    assert drawn("lp[eps=0]", "10x5").planted.z is not None
    # θ = −Gᵀλ with λ ≥ 0, for redrawn q too
    for one in (instance, drawn("lp[fixed=true]", "10x5", 3)):
        lam, residual, *_ = np.linalg.lstsq(one.G.T, -one.q, rcond=None)
        assert residual.max(initial=0.0) < 1e-20
        assert lam.min() > -1e-10


@quick
@given(size=sizes, seed=seeds)
def test_socp_multiplier_is_the_length_of_q(size, seed):
    instance = drawn("socp", size, seed)
    assert instance.planted.mu[0] == pytest.approx(np.linalg.norm(instance.q), rel=1e-14)
    assert instance.cones[0].value(instance.planted.z) == pytest.approx(0.0, abs=1e-13)


@quick
@given(size=sizes, seed=seeds, share=st.floats(0.05, 1.0), margin=st.floats(1e-4, 1.0))
def test_socp_robust_is_compact_smooth_and_strictly_complementary(size, seed, share, margin):
    instance = drawn(f"socp-robust[active_share={share},margin={margin}]", size, seed)
    planted = instance.planted
    a = np.array([-cone.c for cone in instance.cones])
    values = instance.cone_values(planted.z)
    assert np.linalg.norm(a, axis=1).max() < 0.9  # each cone alone bounds z
    assert instance.cone_values(np.zeros(instance.n)).max() < 0.0  # Slater
    assert np.linalg.norm(planted.z) > 0.0
    assert planted.active.sum() == max(1, round(share * size.m))
    assert planted.mu[planted.active].min() >= margin
    assert values[~planted.active].max(initial=-np.inf) <= -margin * (1.0 - 1e-9)


@quick
@given(
    size=sizes,
    seed=seeds,
    share=st.floats(0.0, 1.0),
    margin=st.floats(1e-6, 1.0),
    condition=st.floats(1.0, 1e6),
    density=st.sampled_from([1.0, 0.5, 0.1]),
)
def test_qp_active_has_what_was_asked_for(size, seed, share, margin, condition, density):
    text = f"active_share={share},margin={margin},condition={condition},density={density}"
    instance = drawn(f"qp-active[{text}]", size, seed)
    planted, G = instance.planted, dense(instance.G)
    assert_optimal(instance)
    assert instance.is_sparse == (density < 1.0)
    assert planted.active.sum() == round(share * size.m)
    assert planted.lam[planted.active].min(initial=np.inf) >= margin
    slack = instance.h - G @ planted.z
    assert slack[~planted.active].min(initial=np.inf) >= margin * (1.0 - 1e-9)
    eigenvalues = np.linalg.eigvalsh(dense(instance.P))
    assert eigenvalues[-1] == pytest.approx(1.0)
    assert eigenvalues[0] == pytest.approx(1.0 / condition, rel=1e-6)
    jacobian = np.vstack([dense(instance.A), G[planted.active]])
    assert np.linalg.cond(jacobian) < 10.0


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_qp_active_is_as_dense_as_asked(density):
    instance = drawn(f"qp-active[density={density}]", "200x60")
    for name in ("P", "A", "G"):
        matrix = getattr(instance, name)
        assert sp.issparse(matrix)
        assert matrix.format == "csc"
        share = matrix.nnz / np.prod(matrix.shape)
        assert 0.75 * density <= share <= 1.4 * density
        assert np.diff(matrix.tocsr().indptr).min() > 0


@pytest.mark.parametrize("condition", ["1", "1.0000000000000002"])
def test_no_rotation_fills_a_multiple_of_the_identity(condition):
    instance = drawn(f"qp-active[condition={condition},density=0.5]", "40x10")
    assert np.abs(dense(instance.P) - np.eye(40)).max() <= 1e-13


# --- cost ----------------------------------------------------------------------------------------

MEASURE = """
import sys
import scipy.sparse as sp
from bpqp_bench import Registry, Size

def high_water():
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return [1024 * int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM")]

choice = Registry().family(sys.argv[1])
choice.draw(Size(20, 10), 0)  # whatever is imported or allocated once
before, _ = high_water()
instance = choice.draw(Size(1500, 500), 0)
_, peak = high_water()
stored = {}
for part in (instance.P, instance.A, instance.G, *(c.F for c in instance.cones),
             *(c.c for c in instance.cones)):
    for array in (part.data, part.indices, part.indptr) if sp.issparse(part) else (part,):
        stored[id(array)] = array.nbytes
print(peak - before, sum(stored.values()))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
@pytest.mark.parametrize("family", ["qp", "lp", "socp-robust", "qp-active", "qp[fixed=true]"])
def test_generation_takes_at_most_three_times_its_data(family):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, family], capture_output=True, text=True, check=True
    )
    extra, stored = map(int, done.stdout.split())
    assert stored > 18e6
    assert extra <= 3 * stored


# --- the template --------------------------------------------------------------------------------


def test_a_copy_of_the_template_is_a_family(tmp_path):
    shutil.copy(builtin_directory("problems") / "template_family.py", tmp_path / "nearest.py")
    registry = Registry(problems_dirs=(tmp_path,))
    choice = registry.family("nearest-point[slack=0.2]")
    instance = choice.draw(Size(12, 4), 3)
    assert instance.name == "nearest-point[slack=0.2]-12x4-3"
    assert instance.residuals(instance.planted.feasible).primal <= 1e-13
    assert draw(choice.family, Size(12, 4), 3, {"slack": 0.2}).sha256 == instance.sha256
    fixed = [registry.family("nearest-point[fixed=true]").draw(Size(12, 4), s) for s in (0, 1)]
    assert np.array_equal(fixed[0].G, fixed[1].G)
    assert not np.array_equal(fixed[0].q, fixed[1].q)
    with pytest.raises(SpecError, match="choose M ≤ N = 3"):
        choice.draw(Size(3, 4), 0)


def test_the_page_shows_the_template_as_it_is():
    page = (ROOT / "docs" / "add-a-family.md").read_text(encoding="utf-8")
    code = (builtin_directory("problems") / "template_family.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in page
