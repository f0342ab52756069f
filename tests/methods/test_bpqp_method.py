"""The adapter `bpqp`: accuracy against the reference, parameters, phases, failures."""

import subprocess
import sys

import numpy as np
import osqp
import pytest
import scipy.sparse as sp
import torch
from references import reference_of

from bpqp_bench.errors import InstanceError, SpecError
from bpqp_bench.method.data import make_data, make_upstream
from bpqp_bench.method.measure import clock_for, measure_call
from bpqp_bench.problem.instance import DATA_NAMES, Instance, Size
from bpqp_bench.reference.accuracy import gradient_accuracy


def run(registry, method, instance, wrt=("q",)):
    adapter = registry.method(method).create(wrt)
    adapter.build(instance)
    data, v = make_data([instance], adapter), make_upstream([instance], adapter)
    call = measure_call(adapter, data, v, clock_for(adapter))
    return call.solution, call.gradients, call.forward, call.backward


# The smallest sizes; every family, where "lp" is the one whose active set is hard to find.
CASES = ["qp", "lp", "qp-active", "socp", "socp-robust"]


@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize(
    ("method", "bound"),
    [("bpqp", 1e-12), ("bpqp-osqp", 1e-6), ("bpqp-direct", 1e-12), ("bpqp-fast", 1e-12)],
)
def test_gradients_agree_with_the_reference(registry, method, bound, family):
    for size in (Size(10, 5), Size(50, 10)):
        for seed in range(3):
            instance = registry.family(family).draw(size, seed)
            reference = reference_of(instance, np.ones(instance.n), DATA_NAMES)
            if reference.certificate.degenerate:
                continue
            solution, found, _, _ = run(registry, method, instance, DATA_NAMES)
            assert solution.status == "solved"
            assert solution.info["gradient"] == "exact"
            for name in DATA_NAMES:
                if np.any(reference.gradients[name]):
                    error = gradient_accuracy(found[name], reference.gradients[name])
                    assert error.one_minus_cos <= bound, (name, instance.name)
                else:
                    np.testing.assert_allclose(found[name], 0.0, atol=1e-12)
            residuals = instance.residuals(solution.z, solution.nu, solution.lam, solution.mu)
            assert residuals.primal < 1e-8
            assert residuals.dual < 1e-8


def test_the_papers_tolerances_miss_binding_rows_of_the_lp(registry):
    # Why the default polishes: at OSQP's own tolerances the active set is wrong.
    instance = registry.family("lp").draw(Size(100, 20), 1)
    reference = reference_of(instance, np.ones(instance.n))
    solution, found, _, _ = run(registry, "bpqp-paper", instance)
    assert solution.info["active_rows"] < reference.certificate.n_active
    assert gradient_accuracy(found["q"], reference.gradients["q"]).one_minus_cos > 1e-3
    solution, found, _, _ = run(registry, "bpqp", instance)
    assert solution.info["active_rows"] == reference.certificate.n_active
    assert gradient_accuracy(found["q"], reference.gradients["q"]).one_minus_cos < 1e-12


@pytest.mark.parametrize("spec", ["forward=proxqp,backward=direct", "forward=daqp,backward=piqp"])
def test_any_solver_from_the_command_line(registry, spec):
    instance = registry.family("qp-active").draw(Size(10, 5), 0)
    reference = reference_of(instance, np.ones(instance.n))
    solution, found, forward, backward = run(registry, f"bpqp[{spec}]", instance)
    assert gradient_accuracy(found["q"], reference.gradients["q"]).one_minus_cos < 1e-9
    assert solution.info["forward"] == spec.split(",")[0].removeprefix("forward=")
    assert forward.solve > 0
    # With a direct backward pass the factorization of the polishing serves both.
    assert backward.solve > 0
    assert (backward.setup == 0) == ("direct" in spec)


def test_a_warm_start_takes_fewer_steps_to_the_same_point(registry):
    choice = registry.family("training[assets=30]")
    run_ = [choice.draw(choice.size, seed) for seed in range(50, 60)]
    cold, warm = (registry.method(name).create(("q",)) for name in ("bpqp", "bpqp[warm=true]"))
    steps = {"cold": [], "warm": []}
    for adapter in (cold, warm):
        adapter.build(run_[0])
    for number, instance in enumerate(run_):
        found = []
        for adapter in (cold, warm):
            data, v = make_data([instance], adapter), make_upstream([instance], adapter)
            found.append(measure_call(adapter, data, v, clock_for(adapter)))
        start = "warm" if number else "cold"
        assert [call.solution.info["start"] for call in found] == ["cold", start]
        np.testing.assert_allclose(found[1].solution.z, found[0].solution.z, atol=1e-12)
        if number:
            steps["cold"].append(found[0].solution.iterations)
            steps["warm"].append(found[1].solution.iterations)
    assert sum(steps["warm"]) < 0.6 * sum(steps["cold"])


def test_information_states_residuals_and_the_active_set(registry):
    instance = registry.family("qp-active").draw(Size(10, 5), 0)
    info = run(registry, "bpqp", instance)[0].info
    assert {"primal_residual", "active_rows", "gradient", "backward_status"} <= set(info)


def test_unknown_solver_is_one_clear_line(registry):
    adapter = registry.method("bpqp[forward=gurobi]").create()
    with pytest.raises(SpecError, match="forward='gurobi' of BPQP is not one of active-set, osqp"):
        adapter.build(registry.family("qp").draw(Size(10, 5), 0))


def test_infeasible_instance_is_named(registry):
    instance = registry.family("qp").draw(Size(10, 5), 0)
    broken = Instance(
        instance.P,
        instance.q,
        np.concatenate([instance.A, instance.A[:1]]),
        np.append(instance.b, instance.b[0] + 1.0),
        instance.G,
        instance.h,
    )
    adapter = registry.method("bpqp").create()
    adapter.build(broken)
    with pytest.raises(InstanceError, match="is infeasible"):
        adapter.forward(*make_data([broken], adapter), clock_for(adapter))


def test_the_method_can_be_built_where_gradients_are_off(registry):
    method = registry.method("bpqp").create()
    with torch.no_grad():
        method.build(registry.family("qp").draw(Size(10, 5), 0))


@pytest.mark.parametrize("name", ["bpqp-paper", "exact-paper"])
def test_published_configurations_are_osqp_as_it_comes(registry, name):
    """The same iterations and the same point as OSQP called with nothing but the problem."""
    instance = registry.family("qp").draw(Size(100, 20), 0)
    rows = sp.csc_matrix(np.vstack([instance.A, instance.G]))
    upper = np.concatenate([instance.b, instance.h])
    lower = np.concatenate([instance.b, np.full(instance.nineq, -np.inf)])
    solver = osqp.OSQP(algebra="builtin")
    P = sp.triu(sp.csc_matrix(instance.P), format="csc")
    solver.setup(P, instance.q, rows, lower, upper, verbose=False)
    expected = solver.solve()
    method = registry.method(name).create()
    method.build(instance)
    call = measure_call(
        method,
        make_data([instance], method),
        make_upstream([instance], method),
        clock_for(method),
    )
    assert call.solution.iterations == expected.info.iter
    np.testing.assert_allclose(np.ravel(call.solution.z), expected.x, rtol=1e-9, atol=1e-12)


def test_loading_leaves_no_kernel_to_the_clock():
    """In a process of its own, as a worker is."""
    code = (
        "from bpqp_bench import Registry\n"
        "from bpqp_bench.layers.primal_dual import compiled, factors, proximal, together\n"
        "Registry().method('bpqp').cls.load()\n"
        "called = [compiled.prepare_and_solve, compiled.solve, compiled.pullback, factors.prepare,"
        " factors.factorize_objective, factors.factorize_rows, factors.firm_objective,"
        " proximal.approach, together.solve]\n"
        "print([kernel.__name__ for kernel in called if not kernel.signatures])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
