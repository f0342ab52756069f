"""References against central differences of the solution, for every parameter of every family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpqp_bench import Instance, Registry, SecondOrderCone, Size
from bpqp_bench.reference import compute_reference

ALL = ("P", "q", "A", "b", "G", "h")


def loss(instance, name, data, v):
    changed = replace(instance, sha256="", planted=None, **{name: data})
    return v @ compute_reference(changed, v, ()).z


def central(instance, name, direction, step, v):
    data = getattr(instance, name)
    up, down = data + step * direction, data - step * direction
    # What the step has become in float64 matters where it is small beside the data.
    taken = np.vdot(up - down, direction) / np.vdot(direction, direction)
    return (loss(instance, name, up, v) - loss(instance, name, down, v)) / taken


def one_sided(instance, name, direction, step, v):
    data = getattr(instance, name)
    f0, f1, f2 = (loss(instance, name, data + k * step * direction, v) for k in range(3))
    return (4.0 * f1 - 3.0 * f0 - f2) / (2.0 * step)


def check(instance, step, tolerance, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(instance.n)
    reference = compute_reference(instance, v, ALL)
    assert not reference.certificate.degenerate
    for name in ALL:
        gradient = reference.gradients[name]
        assert gradient.shape == getattr(instance, name).shape
        if gradient.size == 0:
            continue
        difference = central
        direction = rng.standard_normal(gradient.shape)
        if name == "P":
            direction = direction @ direction.T / instance.n
            if not instance.P.any():  # P − step·direction would not be convex
                difference = one_sided
        measured = difference(instance, name, direction, step, v)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        rounding = 1e-15 * np.linalg.norm(v) * np.linalg.norm(reference.z) / step
        error = abs(measured - np.vdot(gradient, direction))
        assert error <= tolerance * scale + rounding, name


@pytest.mark.parametrize(
    ("family", "size", "step", "tolerance"),
    [
        ("qp", "10x5", 1e-5, 1e-6),
        ("qp-active", "12x5", 1e-5, 1e-8),
        ("qp-active[active_share=1,margin=0.01]", "12x5", 1e-5, 1e-8),
        # z moves by 1/(2ε) times the step, and multipliers are as small as ε
        ("lp", "10x5", 1e-10, 1e-5),
        ("socp", "8x1", 1e-5, 1e-8),
        ("socp-robust", "8x4", 1e-5, 1e-7),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_all_parameters(family, size, step, tolerance, seed):
    check(Registry().family(family).draw(Size.parse(size), seed), step, tolerance, seed)


def mixed_instance():
    """Equalities, inequalities and two different cones, some of each active."""
    rng = np.random.default_rng(4)
    n = 6
    root = rng.standard_normal((n, n))
    z = 0.3 * rng.standard_normal(n)
    cones = []
    for k, slack in ((3, 0.0), (4, 0.0), (2, 0.5)):
        F, g, c = rng.standard_normal((k, n)), rng.standard_normal(k), rng.standard_normal(n)
        cones.append(SecondOrderCone(F, g, c, float(np.linalg.norm(F @ z + g) - c @ z + slack)))
    A, G = rng.standard_normal((1, n)), rng.standard_normal((3, n))
    P = root @ root.T
    q = -P @ z - A.T @ [0.7] - G.T @ [0.9, 0.0, 0.0]
    q -= 0.8 * cones[0].gradient(z) + 0.4 * cones[1].gradient(z)
    return Instance(
        P=P,
        q=q,
        A=A,
        b=A @ z,
        G=G,
        h=G @ z + [0.0, 0.4, 0.3],
        cones=tuple(cones),
        problem_class="socp",
    )


def test_cones_with_linear_constraints():
    instance = mixed_instance()
    reference = compute_reference(instance, np.ones(6))
    assert (reference.certificate.n_active, reference.certificate.n_active_cones) == (1, 2)
    assert np.allclose(reference.mu, [0.8, 0.4, 0.0], atol=1e-12)
    check(instance, 1e-5, 1e-7)


def test_unique_vertex_of_an_lp():
    # min −z₁ − 2z₂ over z ≤ (1, 2), z ≥ 0: the vertex (1, 2)
    G = np.vstack([np.eye(2), -np.eye(2)])
    instance = Instance(
        P=np.zeros((2, 2)),
        q=np.array([-1.0, -2.0]),
        A=np.zeros((0, 2)),
        b=np.zeros(0),
        G=G,
        h=np.array([1.0, 2.0, 0.0, 0.0]),
        problem_class="lp",
    )
    reference = compute_reference(instance, np.array([3.0, 5.0]), ALL)
    assert not reference.certificate.degenerate
    assert (reference.z == [1.0, 2.0]).all()
    assert (reference.gradients["q"] == 0.0).all()
    assert np.allclose(reference.gradients["h"], [3.0, 5.0, 0.0, 0.0], atol=1e-15)
    check(instance, 1e-6, 1e-8)
