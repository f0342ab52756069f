"""Model predictive control of a quadcopter, a cart-pole and a chain of masses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from bpqp_bench import Family, Instance, Planted, Size, one_sided
from bpqp_bench.errors import SpecError
from bpqp_bench.problem.instance import Array

_GRAVITY = 9.81
_MASSES = 6


@dataclass(frozen=True)
class _System:
    """ẋ = Fx + Gu with step, limits |x| ≤ x_most, |u| ≤ u_most and weights of x² and u²."""

    F: Array
    G: Array
    step: float
    x_most: Array
    u_most: Array
    x_weight: Array
    u_weight: Array


def generate(
    size: Size, rng: np.random.Generator, system: str, form: str, horizon: int
) -> Instance:
    """Steer a random initial state to zero within limits on states and inputs.

    minimize ½ Σ (x_tᵀQx_t + u_tᵀRu_t) + ½ x_TᵀQ_Tx_T subject to x_{t+1} = Ax_t + Bu_t,
    |x_t| ≤ x_most for t = 1 … T, |u_t| ≤ u_most for t = 0 … T − 1.

    Parameters
    ----------
    size
        As `size_of` says; not used.
    rng
        Source of all randomness: the initial state.
    system
        quadcopter, cart-pole or masses.
    form
        sparse: z = (x_1 … x_T, u_0 … u_{T−1}) in CSC, the dynamics as equalities. dense: z is the
        inputs alone, the states are eliminated ("condensed").
    horizon
        T.

    Notes
    -----
    Models are linearized at rest and discretized with a zero-order hold; Q_T solves the discrete
    Riccati equation. P is positive definite on the dynamics' null space since R is.

    Feasible: the saturated linear-quadratic regulator u = clip(−Kx) is simulated from the initial
    state, which is shrunk until its states keep their limits; its trajectory is planted.
    """
    plant = _plant(system, horizon, form)
    A, B = _discrete(plant)
    Q, R = np.diag(plant.x_weight), np.diag(plant.u_weight)
    # Rounded: the last bits of LAPACK's results depend on the machine and its threads.
    QT = np.round(scipy.linalg.solve_discrete_are(A, B, Q, R), 8)
    QT = 0.5 * (QT + QT.T)
    K: Array = np.round(np.linalg.solve(R + B.T @ QT @ B, B.T @ QT @ A), 8).astype(float)
    start = rng.uniform(-1.0, 1.0, plant.x_most.size) * plant.x_most
    states, inputs = _regulated(plant, A, B, K, start, horizon)
    while (np.abs(states) > plant.x_most).any():
        start = 0.8 * start
        states, inputs = _regulated(plant, A, B, K, start, horizon)
    weights = [Q] * (horizon - 1) + [QT]
    build = _sparse if form == "sparse" else _condensed
    return build(plant, A, B, start, states, inputs, weights)


def size_of(system: str, form: str, horizon: int) -> Size:
    """Size of the problem in all its variables."""
    plant = _plant(system, horizon, form)
    states, inputs = plant.x_most.size * horizon, plant.u_most.size * horizon
    if form == "sparse":
        return Size.of(states + inputs, states, 2 * (states + inputs))
    return Size.of(inputs, 0, 2 * (states + inputs))


def members() -> Iterable[dict[str, object]]:
    """All systems in both forms."""
    return [{"system": system, "form": form} for system in _SYSTEMS for form in ("dense", "sparse")]


def _sparse(
    plant: _System,
    A: Array,
    B: Array,
    start: Array,
    states: Array,
    inputs: Array,
    weights: list[Array],
) -> Instance:
    T, nx = states.shape
    rows = sp.hstack(
        [
            sp.eye(T * nx) - sp.kron(sp.eye(T, k=-1), A),
            sp.kron(sp.eye(T), -B),
        ]
    )
    right = np.concatenate([np.einsum("ij,j->i", A, start), np.zeros((T - 1) * nx)])
    most = np.concatenate([np.tile(plant.x_most, T), np.tile(plant.u_most, T)])
    P = sp.block_diag([*weights, *[np.diag(plant.u_weight)] * T], format="csc")
    return Instance(
        P=sp.csc_matrix(P),
        q=np.zeros(P.shape[0]),
        **one_sided(rows, right, right, -most, most, dense=False),
        problem_class="qp",
        planted=Planted(feasible=np.concatenate([states.ravel(), inputs.ravel()])),
    )


def _condensed(
    plant: _System,
    A: Array,
    B: Array,
    start: Array,
    states: Array,
    inputs: Array,
    weights: list[Array],
) -> Instance:
    T, nx = states.shape
    nu = inputs.shape[1]
    # Row t of blocks: x_{t+1} = A^{t+1} x_0 + Σ_{s ≤ t} A^{t−s} B u_s.
    response = np.zeros((T, nx, T, nu))
    impulse, free, state = B, np.zeros((T, nx)), start
    for lag in range(T):
        for s in range(T - lag):
            response[s + lag, :, s, :] = impulse
        impulse = np.einsum("ij,jk->ik", A, impulse)
        state = np.einsum("ij,j->i", A, state)
        free[lag] = state
    flat = response.reshape(T * nx, T * nu)
    weighted = np.concatenate(
        [np.einsum("ij,jk->ik", W, response[t].reshape(nx, T * nu)) for t, W in enumerate(weights)]
    )
    P = np.einsum("ki,kj->ij", flat, weighted)
    P = 0.5 * (P + P.T) + np.diag(np.tile(plant.u_weight, T))
    x_most, u_most = np.tile(plant.x_most, T), np.tile(plant.u_most, T)
    return Instance(
        P=P,
        q=np.einsum("ki,k->i", weighted, free.ravel()),
        **one_sided(
            flat, -x_most - free.ravel(), x_most - free.ravel(), -u_most, u_most, dense=True
        ),
        problem_class="qp",
        planted=Planted(feasible=inputs.ravel()),
    )


def _regulated(
    plant: _System, A: Array, B: Array, K: Array, start: Array, horizon: int
) -> tuple[Array, Array]:
    states, inputs, x = [], [], start
    for _ in range(horizon):
        u = np.clip(-np.einsum("ij,j->i", K, x), -plant.u_most, plant.u_most)
        x = np.einsum("ij,j->i", A, x) + np.einsum("ij,j->i", B, u)
        states.append(x)
        inputs.append(u)
    return np.array(states), np.array(inputs)


def _discrete(plant: _System) -> tuple[Array, Array]:
    """Zero-order hold: exp of [F G; 0 0] times the step."""
    nx, nu = plant.G.shape
    both = np.zeros((nx + nu, nx + nu))
    both[:nx, :nx], both[:nx, nx:] = plant.F, plant.G
    held = np.round(scipy.linalg.expm(plant.step * both), 12)
    return held[:nx, :nx], held[:nx, nx:]


def _quadcopter() -> _System:
    """Rigid body with four rotors in ×, linearized at hover; mass 0.5 kg, arms of 0.17 m.

    State: position, roll-pitch-yaw, velocity, body rates. Inputs: thrusts beside hover, N.
    Linear model: Mahony, Kumar, Corke, "Multirotor aerial vehicles", IEEE RAM 19 (2012).
    """
    mass, arm, drag = 0.5, 0.17 / np.sqrt(2.0), 0.016
    inertia = np.array([2.3e-3, 2.3e-3, 4.0e-3])
    F, G = np.zeros((12, 12)), np.zeros((12, 4))
    F[0:6, 6:12] = np.eye(6)
    F[6, 4], F[7, 3] = _GRAVITY, -_GRAVITY
    G[8] = 1.0 / mass
    G[9] = arm * np.array([1.0, -1.0, -1.0, 1.0]) / inertia[0]
    G[10] = arm * np.array([-1.0, -1.0, 1.0, 1.0]) / inertia[1]
    G[11] = drag * np.array([1.0, -1.0, 1.0, -1.0]) / inertia[2]
    return _System(
        F=F,
        G=G,
        step=0.1,
        x_most=np.array([2.0, 2.0, 2.0, 0.5, 0.5, 1.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0]),
        u_most=np.full(4, 0.06 * mass * _GRAVITY),
        x_weight=np.array([10.0, 10.0, 10.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1]),
        u_weight=np.full(4, 0.1),
    )


def _cart_pole() -> _System:
    """Pole upright on a cart: 1 kg, pole 0.1 kg with its centre at 0.5 m, uniform rod.

    State: position, angle, their rates. Input: force. Linear model: Barto, Sutton, Anderson, IEEE
    Trans. SMC 13 (1983), at the upright position.
    """
    cart, pole, half = 1.0, 0.1, 0.5
    total = cart + pole
    effective = half * (4.0 / 3.0 - pole / total)
    F, G = np.zeros((4, 4)), np.zeros((4, 1))
    F[0, 2] = F[1, 3] = 1.0
    F[3, 1], G[3, 0] = _GRAVITY / effective, -1.0 / (total * effective)
    F[2, 1] = -pole * half * F[3, 1] / total
    G[2, 0] = 1.0 / total - pole * half * G[3, 0] / total
    return _System(
        F=F,
        G=G,
        step=0.05,
        x_most=np.array([1.0, 0.3, 2.0, 1.5]),
        u_most=np.array([3.0]),
        x_weight=np.array([1.0, 10.0, 0.5, 0.5]),
        u_weight=np.array([1.0]),
    )


def _chain() -> _System:
    """Six unit masses in a row, unit springs between them and to the walls, three actuators.

    Each actuator pushes two neighbours apart. Wang and Boyd, "Fast model predictive control using
    online optimization", IEEE Trans. CST 18 (2010), section V.
    """
    n = _MASSES
    F, G = np.zeros((2 * n, 2 * n)), np.zeros((2 * n, n // 2))
    F[:n, n:] = np.eye(n)
    F[n:, :n] = np.eye(n, k=1) + np.eye(n, k=-1) - 2.0 * np.eye(n)
    for actuator in range(n // 2):
        G[n + 2 * actuator, actuator], G[n + 2 * actuator + 1, actuator] = 1.0, -1.0
    return _System(
        F=F,
        G=G,
        step=0.5,
        x_most=np.full(2 * n, 4.0),
        u_most=np.full(n // 2, 0.5),
        x_weight=np.ones(2 * n),
        u_weight=np.ones(n // 2),
    )


_SYSTEMS: dict[str, Callable[[], _System]] = {
    "quadcopter": _quadcopter,
    "cart-pole": _cart_pole,
    "masses": _chain,
}


def _plant(system: str, horizon: int, form: str) -> _System:
    chosen: Any = _SYSTEMS.get(system)
    if chosen is None:
        raise SpecError(f"mpc has no system {system!r}; choose from {', '.join(_SYSTEMS)}")
    if form not in {"dense", "sparse"}:
        raise SpecError(f"mpc has no form {form!r}; choose dense or sparse")
    if horizon < 1:
        raise SpecError(f"mpc needs horizon ≥ 1, got {horizon}")
    plant: _System = chosen()
    return plant


FAMILY = Family(
    name="mpc",
    label="MPC",
    problem_class="qp",
    source="this suite; systems as cited in the file",
    generate=generate,
    parameters={"system": "quadcopter", "form": "sparse", "horizon": 20},
    size_of=size_of,
    members=members,
    upstream=lambda instance, rng: rng.standard_normal(instance.n),
)
