"""Instance and Size: shapes checked, identity by content, residuals judged from the point."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from bpqp_bench import Instance, SecondOrderCone, Size
from bpqp_bench.errors import InstanceError, SpecError


def small() -> Instance:
    """Minimize ½‖z‖² − z₀ − 2z₁ s.t. z₀ + z₁ = 1, z₀ ≤ −1: z* = (−1, 2), ν* = 0, λ* = 2."""
    return Instance(
        P=np.eye(2),
        q=np.array([-1.0, -2.0]),
        A=np.array([[1.0, 1.0]]),
        b=np.array([1.0]),
        G=np.array([[1.0, 0.0]]),
        h=np.array([-1.0]),
    )


def ball() -> Instance:
    cone = SecondOrderCone(F=np.eye(2), g=np.zeros(2), c=np.zeros(2), d=5.0)
    return Instance(
        P=np.zeros((2, 2)),
        q=np.array([3.0, 4.0]),
        A=np.zeros((0, 2)),
        b=np.zeros(0),
        G=np.zeros((0, 2)),
        h=np.zeros(0),
        cones=(cone,),
        problem_class="socp",
    )


# --- Size ----------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_size_reads_what_it_prints(n, m):
    assert Size.parse(str(Size(n, m))) == Size(n, m)


@pytest.mark.parametrize("text", ["", "10", "x5", "10x", "10x5x2", "axb", "1.5x2", "0x1", "-3x1"])
def test_a_wrong_size_is_an_error_that_quotes_it(text):
    with pytest.raises(SpecError) as error:
        Size.parse(text)
    assert repr(text) in str(error.value)


def test_sizes_sort_by_number_of_variables():
    sizes = [Size.parse(text) for text in ("500x100", "10x5", "50x10")]
    assert [str(size) for size in sorted(sizes)] == ["10x5", "50x10", "500x100"]


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("P", np.eye(3)),
        ("A", np.ones((2, 2))),
        ("G", np.ones((1, 3))),
        ("h", np.zeros(2)),
    ],
)
def test_misshapen_data_are_an_error_that_names_them(name, value):
    with pytest.raises(InstanceError, match="has shape"):
        replace(small(), **{name: value}, sha256="")


def test_other_precision_and_entries_that_are_not_finite_are_errors():
    with pytest.raises(InstanceError, match="q of instance custom-1x0-0 is float32"):
        replace(small(), q=np.zeros(2, dtype=np.float32), sha256="")
    with pytest.raises(InstanceError, match="b of instance custom-1x0-0 has entries"):
        replace(small(), b=np.array([np.nan]), sha256="")
    sparse = sp.csc_matrix(np.array([[np.inf, 0.0], [0.0, 1.0]]))
    with pytest.raises(InstanceError, match="P of instance"):
        replace(small(), P=sparse, sha256="")


def test_cones_and_class_go_together():
    with pytest.raises(InstanceError, match="go together"):
        replace(small(), problem_class="socp", sha256="")
    with pytest.raises(InstanceError, match="go together"):
        replace(ball(), problem_class="qp", sha256="")


# --- hash ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "G", "h"])
def test_any_datum_changes_the_hash(name):
    instance = small()
    value = getattr(instance, name).copy()
    value.flat[-1] = np.nextafter(value.flat[-1], np.inf)
    assert replace(instance, **{name: value}, sha256="").sha256 != instance.sha256


@pytest.mark.parametrize("name", ["F", "g", "c", "d"])
def test_any_datum_of_a_cone_changes_the_hash(name):
    instance = ball()
    cone = instance.cones[0]
    changed = replace(cone, **{name: getattr(cone, name) + 1e-12})
    assert replace(instance, cones=(changed,), sha256="").sha256 != instance.sha256


def test_class_storage_and_shape_are_part_of_the_hash():
    instance = small()
    hashes = {
        instance.sha256,
        replace(instance, problem_class="lp", sha256="").sha256,
        replace(instance, P=sp.csc_matrix(instance.P), sha256="").sha256,
        replace(instance, A=instance.A[:0], b=instance.b[:0], sha256="").sha256,
    }
    assert len(hashes) == 4


def test_the_hash_is_of_the_data_alone():
    instance = small()
    columns = np.asfortranarray(instance.P)
    other = replace(instance, P=columns, family="x", seed=3, size=Size(2, 1), sha256="")
    assert other.sha256 == instance.sha256
    assert other.name == "x-2x1-3"


# --- residuals -----------------------------------------------------------------------------------


def test_residuals_vanish_at_the_solution():
    found = small().residuals(np.array([-1.0, 2.0]), np.array([0.0]), np.array([2.0]))
    assert (found.primal, found.dual, found.complementarity) == (0.0, 0.0, 0.0)


def test_each_residual_sees_its_own_fault():
    instance, z, nu = small(), np.array([-1.0, 2.0]), np.array([0.0])
    assert instance.residuals(z + np.array([0.0, 0.5]), nu, np.array([2.0])).primal == 0.5
    assert instance.residuals(z + np.array([0.25, -0.25]), nu, np.array([2.0])).primal == 0.25
    assert instance.residuals(z, nu, np.array([1.5])).dual == 0.5
    inside = instance.residuals(np.array([-2.0, 3.0]), np.array([-1.0]), np.array([3.0]))
    assert (inside.primal, inside.complementarity) == (0.0, 3.0)


def test_a_negative_multiplier_counts_as_dual_residual():
    # Stationary at z = (0, 1) of the problem without the row's sign: λ = −1 balances the gradient.
    instance = replace(small(), h=np.array([0.0]), q=np.array([1.0, -1.0]), sha256="")
    found = instance.residuals(np.array([0.0, 1.0]), np.array([0.0]), np.array([-1.0]))
    assert found.dual == 1.0


def test_missing_multipliers_are_infinite_residuals():
    found = small().residuals(np.array([-1.0, 2.0]), nu=np.array([0.0]))
    assert found.primal == 0.0
    assert found.dual == found.complementarity == float("inf")
    assert ball().residuals(np.zeros(2)).dual == float("inf")


def test_residuals_of_a_cone():
    z = np.array([-3.0, -4.0])
    found = ball().residuals(z, mu=np.array([5.0]))
    assert max(found.primal, found.dual, found.complementarity) <= 1e-15
    assert ball().residuals(2 * z, mu=np.array([5.0])).primal == 5.0


def test_sparse_and_dense_data_have_the_same_residuals():
    dense = small()
    matrices = {name: sp.csc_matrix(getattr(dense, name)) for name in ("P", "A", "G")}
    sparse = replace(dense, **matrices, sha256="")
    assert sparse.is_sparse
    assert not dense.is_sparse
    z, nu, lam = np.array([0.3, -0.2]), np.array([0.7]), np.array([1.1])
    assert sparse.residuals(z, nu, lam) == dense.residuals(z, nu, lam)
    assert sparse.objective(z) == dense.objective(z)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3).filter(lambda z: max(map(abs, z)) > 0.1))
def test_derivatives_of_a_cone_against_central_differences(z):
    rng = np.random.default_rng(5)
    cone = SecondOrderCone(rng.normal(size=(4, 3)), 5 + rng.random(4), rng.normal(size=3), 0.5)
    z, step = np.array(z), 1e-5
    basis = step * np.eye(3)
    gradient = [(cone.value(z + e) - cone.value(z - e)) / (2 * step) for e in basis]
    hessian = [(cone.gradient(z + e) - cone.gradient(z - e)) / (2 * step) for e in basis]
    np.testing.assert_allclose(cone.gradient(z), gradient, atol=1e-7)
    np.testing.assert_allclose(cone.hessian(z), hessian, atol=1e-7)
