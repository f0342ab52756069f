"""Alt-Diff: ADMM whose derivative recursion alternates with it (Sun et al., ICLR 2023).

For minimize ½zᵀPz + qᵀz subject to Az = b, Gz + s = h, s ≥ 0, with M = [A; G], r = [b; h],
scaled multipliers e = (ν, λ)/ρ and t = e + (0, s), one iteration is (the paper's eq. 5)::

    z ← −K⁻¹(q + ρMᵀ(t − r)),   K = P + ρMᵀM factorized once
    u ← e + Mz − r
    e ← (u_A, max(u_G, 0)),     t ← (u_A, |u_G|)        (s = max(−u_G, 0))

Differentiating it gives the paper's recursion (its eq. 7): the derivative of u with respect to a
parameter obeys a linear recursion whose matrix depends on the iterates through the signs of u_G
alone. Every product of the loop that touches an n-vector is taken out of it with W = K⁻¹Mᵀ and
S = ρMW, so that with p rows in M an iteration costs p² for z, and p²·min(p, d) for a Jacobian with
respect to d parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, cho_factor, cho_solve, eigvalsh, solve, solve_triangular

from bpqp_bench.problem.instance import Array

RULES = ("residual", "objective", "iterate")
_CHECK_EVERY = 5
# The published rules do not look at the constraints: beyond this many thresholds a relative
# violation is not called solved.
_VIOLATION = 10.0


@dataclass(frozen=True)
class Settings:
    """Parameters of Alt-Diff.

    Attributes
    ----------
    rho
        Penalty ρ of the inequalities; 0 chooses it by `balanced_rho`.
    equality_weight
        Penalty of the equalities over that of the inequalities; 1 is the published method. Another
        weight is the published method on the same problem with the equalities' rows scaled.
    tolerance
        Truncation threshold.
    rule
        "residual" (relative primal and dual residual), "objective" (the authors' code: relative
        change of the objective) or "iterate" (the paper's algorithm 1: relative change of z).
    max_iterations
        Limit on the iterations.
    """

    rho: float = 0.0
    equality_weight: float = 1000.0
    tolerance: float = 1e-8
    rule: str = "residual"
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} is not one of {', '.join(RULES)}")
        if not (self.rho >= 0 and self.equality_weight > 0 and self.tolerance > 0):
            raise ValueError("rho must be ≥ 0, equality_weight and tolerance > 0")


@dataclass(frozen=True, eq=False)
class Splitting:
    """What is computed once per (P, A, G): factorization and condensed matrices.

    Attributes
    ----------
    P, M
        P (n, n) and the stacked rows [A; G], scaled by ``scale``, (p, n).
    neq
        Number of equalities.
    scale
        Weight of every row, shape (p,).
    rho
        Penalty ρ.
    factor
        Cholesky factor of K = P + ρMᵀM as SciPy's ``cho_factor`` returns it.
    W, S
        K⁻¹Mᵀ (n, p) and ρMW (p, p).
    """

    P: Array
    M: Array
    neq: int
    scale: Array
    rho: float
    factor: tuple[Array, bool] = field(repr=False)
    W: Array = field(repr=False)
    S: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One run of the iteration.

    Attributes
    ----------
    z, nu, lam
        Last iterate and multipliers.
    masks
        Row k holds u_G < 0 (inactive: s > 0) after iteration k + 1, shape (iterations, nineq).
    status
        "solved" where the rule stopped the iteration (which says little under the published rules,
        see docs/altdiff.md); "stopped infeasible" where it did so at a relative violation of the
        constraints above ten times the threshold; else "iteration limit".
    iterations
        Number of z-updates.
    primal_residual, dual_residual
        Relative residuals at the end, by which the "residual" rule stops.
    states
        (t before, e before, u after) of every iteration, each (iterations, p), if recorded.
    z_base
        −K⁻¹(q − ρMᵀr), so that z = z_base − ρWt.
    """

    z: Array
    nu: Array
    lam: Array
    masks: NDArray[np.bool_]
    status: str
    iterations: int
    primal_residual: float
    dual_residual: float
    states: tuple[Array, Array, Array] | None = field(default=None, repr=False)
    z_base: Array | None = field(default=None, repr=False)


def balanced_rho(P: Array, A: Array, G: Array) -> float:
    """Choose ρ = 1/geometric mean of the spectrum of the dual Hessian of the inequalities.

    That Hessian is G P⁻¹Gᵀ with the equalities eliminated. The eigenvalues of one ADMM iteration
    depend on ρ through (1 − ρη)/(1 + ρη), η in that spectrum, whose worst case is least at
    ρ = 1/√(η_min η_max) (Ghadimi et al., "Optimal parameter selection for the alternating direction
    method of multipliers: quadratic problems", IEEE TAC 2015). The geometric mean of all η replaces
    that of the extremes so that one outlying row does not decide.

    Where P is singular its inverse is taken of P + γ(AᵀA + GᵀG), and the shift undone in the
    spectrum: η = θ/(1 − γθ).

    Parameters
    ----------
    P, A, G
        Shapes (n, n), (neq, n), (nineq, n).

    Returns
    -------
    float
        ρ; γ below where no eigenvalue is finite and positive (an LP without curvature).
    """
    M = np.vstack([A, G])
    norm = float(np.sum(M * M))
    if norm == 0.0:
        return 1.0
    gamma = float(np.trace(P)) / norm or 1.0
    shift = 0.0
    try:
        L = np.linalg.cholesky(P)
    except np.linalg.LinAlgError:
        shift = gamma
        try:
            L = np.linalg.cholesky(P + shift * (M.T @ M))
        except np.linalg.LinAlgError:
            return gamma  # `factorize` says what is wrong with K
    V = solve_triangular(L, M.T, lower=True, check_finite=False)
    C = V.T @ V
    neq = A.shape[0]
    if neq and G.shape[0]:
        CA = C[:neq, :neq] + 1e-12 * np.trace(C[:neq, :neq]) * np.eye(neq)
        cross = C[:neq, neq:]
        C = C[neq:, neq:] - cross.T @ solve(CA, cross, assume_a="pos", check_finite=False)
    theta = eigvalsh(C, check_finite=False)
    theta = theta[(theta > 1e-10 * theta[-1]) & (shift * theta < 1 - 1e-10)]
    if not theta.size:
        return gamma
    return float(np.exp(-np.mean(np.log(theta / (1 - shift * theta)))))


def factorize(P: Array, A: Array, G: Array, settings: Settings) -> Splitting:
    """Factorize K = P + ρMᵀM and form W = K⁻¹Mᵀ and S = ρMW.

    Raises
    ------
    ValueError
        If K is not positive definite: P is not, on the null space of A and G.
    """
    rho = settings.rho or balanced_rho(P, A, G)
    neq = A.shape[0]
    scale = np.ones(neq + G.shape[0])
    scale[:neq] = np.sqrt(settings.equality_weight)
    M = np.vstack([A, G]) * scale[:, None]
    try:
        factor = cho_factor(P + rho * (M.T @ M), lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        raise ValueError(
            "P + ρAᵀA + ρGᵀG is not positive definite: the problem is not convex, or has a "
            "direction without curvature and constraints; add a multiple of I to P"
        ) from None
    W = cho_solve(factor, M.T, check_finite=False)
    S = rho * (M @ W)
    # Symmetric in exact arithmetic; the recursions below use S and Sᵀ as the same matrix.
    S = np.asfortranarray(0.5 * (S + S.T))
    return Splitting(P, M, neq, scale, rho, factor, W, S)


def iterate(
    split: Splitting,
    q: Array,
    b: Array,
    h: Array,
    settings: Settings,
    *,
    record: bool = False,
) -> Trajectory:
    """Run ADMM from zero and keep the sign patterns that the derivative needs.

    Parameters
    ----------
    split
        From `factorize`.
    q, b, h
        Shapes (n,), (neq,), (nineq,).
    settings
        Threshold, rule and limit.
    record
        Keep all states too, which gradients with respect to P, A and G need.

    Returns
    -------
    Trajectory
        Last iterate, multipliers, sign patterns and residuals.

    Raises
    ------
    FloatingPointError
        If an iterate is not finite.
    """
    neq, rho, S, p = split.neq, split.rho, split.S, split.scale.size
    r = np.concatenate([b, h]) * split.scale
    Kq = cho_solve(split.factor, q, check_finite=False)
    base = rho * (split.W @ r) - Kq
    Wq = split.W.T @ q
    constant = S @ r - r - Wq
    e, t = np.zeros(p), np.zeros(p)
    limit = settings.max_iterations
    masks = np.empty((min(limit, 256), p - neq), dtype=bool)
    states: list[tuple[Array, Array, Array]] = []
    stop = _Rule(split, q, r, base, settings)
    done, k = False, 0
    while not done and k < limit:
        u = e + constant
        u -= S @ t
        if k == len(masks):
            masks = np.concatenate([masks, np.empty_like(masks)])[:limit]
        np.less(u[neq:], 0, out=masks[k])
        e_new, t_new = u.copy(), u
        np.maximum(u[neq:], 0, out=e_new[neq:])
        if record:
            states.append((t, e, u.copy()))
        t_new[neq:] = np.abs(u[neq:])
        done = stop(k, e, t, e_new, t_new)
        last, e, t, k = t, e_new, t_new, k + 1
    z = base - rho * (split.W @ last) if k else base
    if not np.isfinite(z).all():
        raise FloatingPointError(f"Alt-Diff diverged within {k} iterations")
    primal, dual = stop.residuals
    status = "solved" if done else "iteration limit"
    if done and primal > _VIOLATION * settings.tolerance:
        status = "stopped infeasible"
    y = rho * split.scale * e
    kept = None
    if record:
        before_t, before_e, after_u = (np.array(x) for x in zip(*states, strict=True))
        kept = (before_t, before_e, after_u)
    return Trajectory(
        z=z,
        nu=y[:neq],
        lam=y[neq:],
        masks=masks[:k],
        status=status,
        iterations=k,
        primal_residual=primal,
        dual_residual=dual,
        states=kept,
        z_base=base,
    )


class _Rule:
    """The stopping rule; called once per iteration, and at the end leaves the residuals."""

    def __init__(self, split: Splitting, q: Array, r: Array, base: Array, settings: Settings):
        self._split, self._q, self._r, self._settings = split, q, r, settings
        self._base, self._qbase, self._Wq = base, float(q @ base), split.W.T @ q
        self._objective_before = np.nan
        self._t_before: Array | None = None
        self.residuals = (np.inf, np.inf)

    def __call__(self, k: int, e: Array, t: Array, e_new: Array, t_new: Array) -> bool:
        """Decide from (e, t) before and after iteration k (from 0)."""
        last = k + 1 == self._settings.max_iterations
        if self._settings.rule == "residual":
            if (k + 1) % _CHECK_EVERY and not last:
                return False
            return self._small_residuals(e, t, e_new, t_new, fully=last)
        stop = (
            self._objective(e, t, e_new, t_new)
            if self._settings.rule == "objective"
            else self._z(t)
        )
        if stop or last:
            self._small_residuals(e, t, e_new, t_new, fully=True)
        return stop and k > 0

    def _small_residuals(self, e: Array, t: Array, e_new: Array, t_new: Array, fully: bool) -> bool:
        split, tolerance = self._split, self._settings.tolerance
        # Mz + (0, s) − r = e_new − e, and the dual residual is ρGᵀ(s_new − s), s = t − e.
        violation = np.abs((e_new - e) / split.scale).max(initial=0.0)
        size = np.abs(self._r / split.scale).max(initial=0.0)
        slack = np.abs((t_new - e_new) / split.scale).max(initial=0.0)
        primal = _ratio(violation, max(size, slack))
        if primal > tolerance and not fully:
            return False
        G = split.M[split.neq :]
        change = split.rho * ((t_new - e_new - t + e)[split.neq :] @ G)
        force = split.rho * (e_new @ split.M)
        scale = max(np.abs(self._q).max(initial=0.0), np.abs(force).max(initial=0.0))
        dual = _ratio(np.abs(change).max(initial=0.0), scale)
        self.residuals = (primal, dual)
        return primal <= tolerance and dual <= tolerance

    def _objective(self, e: Array, t: Array, e_new: Array, t_new: Array) -> bool:
        # ½zᵀPz + qᵀz without forming z: Pz = −q − ρMᵀ(t + Mz − r), and Mz − r = u − e with
        # u = 2e_new − t_new.
        rho, slack = self._split.rho, 2 * e_new - t_new - e
        qz = self._qbase - rho * float(self._Wq @ t)
        value = 0.5 * qz - 0.5 * rho * float((self._r + slack) @ (t + slack))
        change = abs(value - self._objective_before)
        small = change <= self._settings.tolerance * abs(self._objective_before)
        self._objective_before = value
        return bool(small)

    def _z(self, t: Array) -> bool:
        split, previous = self._split, self._t_before
        self._t_before = t.copy()
        if previous is None:
            return False
        change = split.rho * float(np.linalg.norm(split.W @ (t - previous)))
        size = float(np.linalg.norm(self._base - split.rho * (split.W @ previous)))
        return change <= self._settings.tolerance * size


def _ratio(value: float, scale: float) -> float:
    return float(value) / float(scale) if scale > 0 else float(value)


def jacobian(
    split: Splitting, masks: NDArray[np.bool_], wrt: Sequence[str] = ("q",)
) -> dict[str, Array]:
    """Carry the Jacobian of the truncated iteration forward, as published, and return it.

    Parameters
    ----------
    split
        From `factorize`.
    masks
        Sign patterns of the trajectory; nothing else of it enters.
    wrt
        Subset of "q", "b", "h".

    Returns
    -------
    dict
        ∂z/∂parameter, shapes (n, n), (n, neq), (n, nineq).
    """
    n, p, neq = split.M.shape[1], split.scale.size, split.neq
    rho, S = split.rho, split.S
    blocks = {"q": slice(0, 0), "b": slice(0, neq), "h": slice(neq, p)}
    parts, widths = [], []
    for name in wrt:
        rows = blocks[name]
        part = -split.W.T if name == "q" else ((S - np.eye(p)) * split.scale)[:, rows]
        parts.append(part)
        widths.append(part.shape[1])
    inputs = np.hstack(parts)
    # q, b and h enter the iteration through one vector of p numbers, ∂/∂parameter of which is
    # ``inputs``; where p is the smaller number the Jacobian with respect to it is carried, and the
    # chain rule is left for the end.
    condensed = p < inputs.shape[1]
    constant = np.asfortranarray(np.eye(p) if condensed else inputs)
    U, spare = constant.copy(order="F"), np.empty_like(constant)
    # One iteration is U ← (D_e − S D_t) U + constant with diagonal D_e, D_t given by the signs.
    step = np.empty((p, p), order="F")
    shown: NDArray[np.bool_] | None = None
    for mask in masks[:-2]:
        if shown is None or not np.array_equal(mask, shown):
            reflect = _reflection(mask, neq)
            np.multiply(S, -reflect, out=step)
            step[np.diag_indices(p)] += 0.5 * (1.0 + reflect)
            shown = mask
        np.copyto(spare, constant)
        if p:
            blas.dgemm(1.0, step, U, beta=1.0, c=spare, overwrite_c=True)
        U, spare = spare, U
    # z comes from the state before the last update of u, and z after one iteration from zero.
    T = U * _reflection(masks[-2], neq)[:, None] if len(masks) > 1 else np.zeros_like(U)
    if condensed:
        T = T @ inputs
    found = {}
    at = 0
    for name, width in zip(wrt, widths, strict=True):
        mine = T[:, at : at + width]
        at += width
        if name == "q":
            right = np.eye(n, order="F") + rho * (split.M.T @ mine)
            found[name] = -cho_solve(split.factor, right, overwrite_b=True, check_finite=False)
        else:
            rows = blocks[name]
            found[name] = rho * (split.W[:, rows] * split.scale[rows] - split.W @ mine)
    return found


def _reflection(mask: NDArray[np.bool_], neq: int) -> Array:
    # ∂t/∂u: −1 where the inequality is inactive (t = |u|), +1 elsewhere.
    reflect = np.ones(neq + mask.size)
    reflect[neq:][mask] = -1.0
    return reflect


def vjp(
    split: Splitting, trajectory: Trajectory, upstream: Array, wrt: Sequence[str] = ("q",)
) -> dict[str, Array]:
    """Run the same recursion backward on one vector: vᵀ∂z/∂parameter without the Jacobian.

    It is the exact adjoint of the truncated iteration (ρ held fixed), so it equals `jacobian`
    transposed times v up to rounding, at p² instead of p²n per iteration.

    Parameters
    ----------
    split, trajectory
        From `factorize` and `iterate`; P, A and G need a trajectory with states.
    upstream
        v = ∂L/∂z, shape (n,).
    wrt
        Subset of all six parameters.

    Returns
    -------
    dict
        Gradient of L by name, in the shape of the parameter.
    """
    p, neq, rho, S = split.scale.size, split.neq, split.rho, split.S
    steps = trajectory.iterations - 1
    Wv = split.W.T @ upstream
    matrices = bool({"P", "A", "G"} & set(wrt))
    adjoints = np.empty((max(steps, 0), p)) if matrices else None
    e_bar, t_bar, total = np.zeros(p), -rho * Wv, np.zeros(p)
    for k in range(steps - 1, -1, -1):
        u_bar = t_bar + e_bar
        mask = trajectory.masks[k]
        np.copyto(u_bar[neq:], -t_bar[neq:], where=mask)
        if adjoints is not None:
            adjoints[k] = u_bar
        total += u_bar
        e_bar, t_bar = u_bar, -(S @ u_bar)
    Kv = cho_solve(split.factor, upstream, check_finite=False)
    r_bar = (rho * Wv + S @ total - total) * split.scale
    found = {"q": -Kv - split.W @ total, "b": r_bar[:neq], "h": r_bar[neq:]}
    if adjoints is not None:
        found |= _matrix_gradients(split, trajectory, adjoints, Kv, Wv)
    return {name: found[name] for name in wrt}


def _matrix_gradients(
    split: Splitting, trajectory: Trajectory, adjoints: Array, Kv: Array, Wv: Array
) -> dict[str, Array]:
    # With a_k = K⁻¹ ∂L/∂z_k (a_k = W u_bar_k, and K⁻¹v at the end) and τ_k = t + Mz_k − r, the
    # z-update Pz + q + ρMᵀτ = 0 contributes −a zᵀ to P and −ρ(τaᵀ + (Ma)zᵀ) to M; the update of u
    # contributes u_bar zᵀ to M.
    if trajectory.states is None or trajectory.z_base is None:
        raise ValueError("gradients with respect to P, A, G need iterate(..., record=True)")
    rho, neq, z = split.rho, split.neq, trajectory.z
    t, e, u = trajectory.states
    tau = t + u - e
    total = adjoints.sum(axis=0)
    Z_bar = np.outer(total, trajectory.z_base) - rho * ((adjoints.T @ t[:-1]) @ split.W.T)
    half = split.W @ Z_bar + np.outer(Kv, z)
    M_bar = (
        -rho * ((tau[:-1].T @ adjoints) @ split.W.T + np.outer(tau[-1], Kv) + np.outer(Wv, z))
        + Z_bar
        - split.S @ Z_bar
    ) * split.scale[:, None]
    return {"P": -0.5 * (half + half.T), "A": M_bar[:neq], "G": M_bar[neq:]}
