"""diffqcp: the derivative of a quadratic cone program, behind Clarabel."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from bpqp_bench import Data, Instance, Method, MethodError, PhaseClock, Solution


class DiffQCP(Method):
    """Clarabel forward, `diffqcp.HostQCP.vjp` backward, as its documentation shows for a CPU.

    diffqcp differentiates and does not solve; the solution is Clarabel's. The vector-Jacobian
    product is compiled once a shape. Its linear solve is LSMR, the default: its dense LU gives
    gradients that are off by a percent, as its documentation says. Version 0.4.4 needs Python 3.12,
    although its metadata says 3.11, and lineax 0.1.0 (docs/known-faults.md).
    """

    name = "diffqcp"
    label = "diffqcp"
    reference = "Healey, Nobel and Boyd, arXiv 2508.17522; diffqcp 0.4.4"
    group = "modern"
    framework = "jax"
    problem_classes = frozenset({"qp", "lp", "socp"})
    requires = ("jax", "diffqcp", "equinox", "clarabel")
    install = "diffqcp 0.4.4 needs Python 3.12 or newer"
    tolerance = "tolerance"
    parameters = MappingProxyType({"tolerance": 1e-10, "solve": "jax-lsmr"})
    _compiled: ClassVar[dict[object, Any]] = {}

    def unsupported(self, instance: Instance) -> str | None:
        """Say no to sparse data: the adapter is written for dense ones."""
        return "dense arrays only" if instance.is_sparse else super().unsupported(instance)

    def build(self, template: Instance) -> None:
        """Compile the vector-Jacobian product, or take what was compiled; JAX keeps it a shape."""
        import equinox

        method = self.options["solve"]
        if method not in self._compiled:
            self._compiled[method] = equinox.filter_jit(
                lambda qcp, v, zero: qcp.vjp(v, zero, zero, solve_method=method)
            )
        self._vjp = self._compiled[method]
        cones = [1 + len(cone.g) for cone in template.cones]
        empty = {"s": [], "ep": 0, "ed": 0, "p": []}
        self._dims: dict[str, Any] = {"z": template.neq, "l": template.nineq, "q": cones} | empty

    def forward(self, data: Data, clock: PhaseClock) -> Solution:
        """Write Ax + s = b with s in a product of cones, and solve."""
        import clarabel
        import jax.numpy as jnp

        with clock("prepare"):
            settings = clarabel.DefaultSettings()
            settings.verbose = False
            for name in ("tol_feas", "tol_gap_abs", "tol_gap_rel"):
                setattr(settings, name, self.options["tolerance"])
            cones = [clarabel.ZeroConeT(data.neq), clarabel.NonnegativeConeT(data.nineq)]
            cones += [clarabel.SecondOrderConeT(size) for size in self._dims["q"]]
            rows, right = [data.A, data.G], [data.b, data.h]
            for cone in data.cones:  # (cᵀz + d, Fz + g) in the cone
                rows += [-cone.c[None], -cone.F]
                right += [jnp.atleast_1d(jnp.asarray(cone.d)), cone.g]
            self._A, self._b = jnp.concatenate(rows), jnp.concatenate(right)
            given = sp.csc_matrix(np.triu(data.P)), np.asarray(data.q), sp.csc_matrix(self._A)
        with clock("solve"):
            found = clarabel.DefaultSolver(*given, np.asarray(self._b), cones, settings).solve()
        if str(found.status) not in ("Solved", "AlmostSolved"):
            raise MethodError(f"Clarabel calls {data.name} {found.status}")
        self._data, self._point = data, tuple(map(jnp.asarray, (found.x, found.z, found.s)))
        nu, lam = self._point[1][: data.neq], self._point[1][data.neq :][: data.nineq]
        return Solution(self._point[0], nu, lam, status=None, iterations=found.iterations)

    def backward(self, upstream: Any, clock: PhaseClock) -> Mapping[str, Any]:
        """Call `HostQCP.vjp`; ∂P comes as the upper triangle of the symmetric one."""
        import jax
        import jax.numpy as jnp
        from diffqcp import HostQCP, QCPStructureCPU
        from jax.experimental.sparse import BCOO

        data, (x, y, s) = self._data, self._point
        with clock("prepare"):
            P, A = BCOO.fromdense(jnp.triu(data.P)), BCOO.fromdense(self._A)
            structure = QCPStructureCPU(P, A, self._dims)
            qcp = HostQCP(P, A, data.q, self._b, x, y, s, structure)
        with clock("solve"):
            dP, dA, dq, db = self._vjp(qcp, upstream, jnp.zeros_like(self._b))
            jax.block_until_ready(dq)
        with clock("extract"):
            rows = slice(data.neq), slice(data.neq, data.neq + data.nineq)
            dP, dA = dP.todense(), dA.todense()
            found = {"P": dP + dP.T - jnp.diag(jnp.diag(dP)), "q": dq}
            found |= {"A": dA[rows[0]], "b": db[rows[0]]}
            found |= {"G": dA[rows[1]], "h": db[rows[1]]}
            return {name: found[name] for name in self.wrt}
