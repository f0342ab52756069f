"""Problem instances: data, hash, residuals of a candidate solution.

One frozen dataclass holds QP, LP and SOCP alike (DESIGN notation)::

    minimize    ½ zᵀPz + qᵀz
    subject to  Az = b,  Gz ≤ h,  ‖Fᵢz + gᵢ‖₂ ≤ cᵢᵀz + dᵢ
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bpqp_bench.errors import InstanceError, SpecError

Array = NDArray[np.float64]
# Array | scipy.sparse.csc_matrix; SciPy carries no types, so a checker cannot say more.
Matrix: TypeAlias = Any
ProblemClass = Literal["qp", "lp", "socp"]
# The data of a problem, in the order of every signature; a gradient exists with respect to each.
DATA_NAMES = ("P", "q", "A", "b", "G", "h")
PROBLEM_CLASSES: tuple[ProblemClass, ...] = ("qp", "lp", "socp")


@dataclass(frozen=True, order=True)
class Size:
    """Problem size "n×m": n variables, m equalities and m inequalities, as in the paper."""

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read "100x20".

        Raises
        ------
        SpecError
            If the text is not two positive integers joined by "x".
        """
        try:
            n, m = (int(part) for part in text.lower().split("x"))
        except ValueError:
            raise SpecError(f"size {text!r} is not of the form NxM, for example 100x20") from None
        if n <= 0 or m < 0:
            raise SpecError(f"size {text!r} needs N ≥ 1 and M ≥ 0")
        return cls(n, m)

    @classmethod
    def of(cls, n: int, neq: int, nineq: int) -> Size:
        """Size of a problem with as many equalities and inequalities as it has: m is the larger."""
        return cls(n, max(neq, nineq))

    def __str__(self) -> str:
        return f"{self.n}x{self.m}"


@dataclass(frozen=True, eq=False)
class SecondOrderCone:
    """Constraint ‖F z + g‖₂ ≤ cᵀz + d with F (k, n), g (k,), c (n,) and scalar d."""

    F: Matrix
    g: Array
    c: Array
    d: float

    def value(self, z: Array) -> float:
        """‖Fz + g‖₂ − cᵀz − d: negative inside, zero on the boundary."""
        return float(np.linalg.norm(self.F @ z + self.g) - self.c @ z - self.d)

    def gradient(self, z: Array) -> Array:
        """Gradient of `value`, shape (n,); not finite at the tip, where it does not exist."""
        r = self.F @ z + self.g
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.F.T @ (r / np.linalg.norm(r)) - self.c)

    def hessian(self, z: Array) -> Array:
        """Hessian of `value`, shape (n, n)."""
        r = self.F @ z + self.g
        norm = np.linalg.norm(r)
        F = self.F.toarray() if sp.issparse(self.F) else np.asarray(self.F)
        Ftr = F.T @ (r / norm)
        return np.asarray((F.T @ F - np.outer(Ftr, Ftr)) / norm)


@dataclass(frozen=True, eq=False)
class Planted:
    """What the generator knows: solution, multipliers, active rows of G and cones.

    A field is None where the generator did not plant it.
    """

    z: Array | None = None
    nu: Array | None = None
    lam: Array | None = None
    mu: Array | None = None
    active: NDArray[np.bool_] | None = None
    feasible: Array | None = None


@dataclass(frozen=True)
class Residuals:
    """Optimality of a point, judged from the point itself and never from a solver's status.

    Attributes
    ----------
    primal
        Largest violation of any constraint, ∞-norm.
    dual
        ∞-norm of the gradient of the Lagrangian, with negative multipliers counted in;
        infinite where multipliers are missing.
    complementarity
        Largest |multiplier · slack|; infinite where multipliers are missing.
    """

    primal: float
    dual: float
    complementarity: float


class QuadraticData:
    """What follows from the data P, q, A, b, G, h of a problem."""

    P: Matrix
    q: Array
    A: Matrix
    b: Array
    G: Matrix
    h: Array

    @property
    def n(self) -> int:
        """Number of variables."""
        return int(self.q.shape[0])

    @property
    def neq(self) -> int:
        """Number of equalities."""
        return int(self.b.shape[0])

    @property
    def nineq(self) -> int:
        """Number of linear inequalities."""
        return int(self.h.shape[0])

    @property
    def is_sparse(self) -> bool:
        """Whether any matrix is stored sparse."""
        return any(sp.issparse(M) for M in (self.P, self.A, self.G))


@dataclass(frozen=True, eq=False)
class Instance(QuadraticData):
    """One convex problem with its identity.

    Attributes
    ----------
    P, q, A, b, G, h
        Problem data, float64, dense arrays or SciPy CSC: (n, n), (n,), (neq, n), (neq,),
        (nineq, n), (nineq,). Zero rows where a kind of constraint is absent.
    cones
        Second-order cones, possibly empty.
    problem_class
        "qp", "lp" or "socp": what the family is called, which decides who can solve it. The
        smoothed LP of the paper is "lp" although its P = 2εI is not zero.
    family, size, seed
        Where it came from.
    sha256
        Hash of all data, the upstream gradient included; computed if not given.
    upstream
        Upstream gradient v = ∂L/∂z* that is propagated through this instance, shape (n,). None for
        ones, the paper's loss L = 1ᵀz*; read it as `loss_gradient`.
    planted
        What the generator knows about the solution; removed before a method sees the instance.
    """

    P: Matrix
    q: Array
    A: Matrix
    b: Array
    G: Matrix
    h: Array
    cones: tuple[SecondOrderCone, ...] = ()
    problem_class: ProblemClass = "qp"
    family: str = "custom"
    size: Size = Size(1, 0)
    seed: int = 0
    planted: Planted | None = field(default=None, repr=False)
    sha256: str = ""
    upstream: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = self.q.shape[0]
        expected = {
            "P": (n, n),
            "q": (n,),
            "A": (self.b.shape[0], n),
            "G": (self.h.shape[0], n),
        }
        names = [*DATA_NAMES]
        if self.upstream is not None:
            expected["upstream"] = (n,)
            names.append("upstream")
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InstanceError(
                    f"{name} of instance {self.name} has shape {getattr(self, name).shape}, "
                    f"expected {shape}"
                )
        for name in names:
            value = getattr(self, name)
            stored = value.data if sp.issparse(value) else value
            if stored.dtype != np.float64:
                raise InstanceError(
                    f"{name} of instance {self.name} is {stored.dtype}, not float64"
                )
            if not np.isfinite(stored).all():
                raise InstanceError(
                    f"{name} of instance {self.name} has entries that are not finite"
                )
        if bool(self.cones) != (self.problem_class == "socp"):
            raise InstanceError(f"instance {self.name}: class 'socp' and cones go together")
        if not self.sha256:
            object.__setattr__(self, "sha256", self._hash())

    @property
    def name(self) -> str:
        """Readable identity, for example ``qp-100x20-7``."""
        return f"{self.family}-{self.size}-{self.seed}"

    @property
    def loss_gradient(self) -> Array:
        """Upstream gradient v = ∂L/∂z*, shape (n,): `upstream`, or ones."""
        return np.ones(self.n) if self.upstream is None else self.upstream

    def objective(self, z: Array) -> float:
        """½ zᵀPz + qᵀz."""
        return float(0.5 * z @ (self.P @ z) + self.q @ z)

    def cone_values(self, z: Array) -> Array:
        """Value of every cone constraint at z, shape (number of cones,)."""
        return np.array([cone.value(z) for cone in self.cones], dtype=np.float64)

    def residuals(
        self,
        z: Array,
        nu: Array | None = None,
        lam: Array | None = None,
        mu: Array | None = None,
    ) -> Residuals:
        """KKT residuals of (z, ν, λ, μ); μ has one entry per cone.

        The Lagrangian is ½zᵀPz + qᵀz + νᵀ(Az − b) + λᵀ(Gz − h) + Σ μᵢ(‖Fᵢz + gᵢ‖ − cᵢᵀz − dᵢ).
        """
        eq = self.A @ z - self.b
        ineq = np.concatenate([self.G @ z - self.h, self.cone_values(z)])
        primal = float(max(np.abs(eq).max(initial=0.0), ineq.max(initial=0.0), 0.0))
        missing = (
            (nu is None and self.neq > 0)
            or (lam is None and self.nineq > 0)
            or (mu is None and len(self.cones) > 0)
        )
        if missing:
            return Residuals(primal, float("inf"), float("inf"))
        gradient = self.P @ z + self.q
        multipliers = np.zeros(0)
        if nu is not None and self.neq:
            gradient = gradient + self.A.T @ nu
        if lam is not None and self.nineq:
            gradient = gradient + self.G.T @ lam
            multipliers = np.concatenate([multipliers, lam])
        if mu is not None:
            for cone, weight in zip(self.cones, mu, strict=True):
                if weight != 0.0:
                    gradient = gradient + weight * cone.gradient(z)
            multipliers = np.concatenate([multipliers, mu])
        negative = float((-multipliers).max(initial=0.0))
        return Residuals(
            primal,
            float(max(np.abs(gradient).max(initial=0.0), negative)),
            float(np.abs(multipliers * ineq).max(initial=0.0)),
        )

    def _hash(self) -> str:
        digest = hashlib.sha256()
        parts: list[Matrix] = [self.P, self.q, self.A, self.b, self.G, self.h]
        for cone in self.cones:
            parts += [cone.F, cone.g, cone.c, np.array([cone.d])]
        if self.upstream is not None:
            parts.append(self.upstream)
        digest.update(self.problem_class.encode())
        for part in parts:
            if sp.issparse(part):
                stored = part.tocsc()
                digest.update(f"csc{part.shape}".encode())
                for array in (stored.indptr, stored.indices):
                    digest.update(np.asarray(array, dtype=np.int64).tobytes())
                digest.update(stored.data.tobytes())
            else:
                digest.update(f"dense{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()
