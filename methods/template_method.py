"""Start here: one QP solver and a linear solve. Copy this file to ``methods/NAME.py``."""

from types import MappingProxyType

import numpy as np

from bpqp_bench import Method, MethodError, Solution, Variant


class KKTExample(Method):
    """A solver from `qpsolvers` forward; backward the KKT system of the active constraints.

    It assumes that the active constraints are linearly independent and none is weakly active.
    """

    name = "kkt-example"  # its key: bpqp-bench run --method kkt-example
    label = "KKT (example)"  # as printed in the tables
    reference = "Barratt, On the differentiability of the solution to convex programs, 2018"
    problem_classes = frozenset({"qp"})
    why_not = MappingProxyType(
        {
            "lp": "the backward system is solved plainly, which its P of 2e-6 is too small for",
            "socp": "a cone has curvature, which this backward system leaves out",
        }
    )
    requires = ("qpsolvers", "daqp")  # import names; if one is missing, the method is skipped
    framework = "numpy"  # or "torch", "jax": whose arrays `forward` and `backward` are given
    batched = False  # True: `forward` is given a batch as one, with a leading dimension
    parameters = MappingProxyType({"solver": "daqp", "active_tol": 1e-9})
    variants = MappingProxyType({"kkt-piqp": Variant("KKT (PIQP)", {"solver": "piqp"})})

    def unsupported(self, instance):
        """Return why the instance cannot be taken, or None if it can."""
        if instance.is_sparse:
            return "dense data only"
        return super().unsupported(instance)

    def build(self, template):
        """Do here what is done once per family and size: canonicalize, compile, train."""

    def forward(self, data, clock):
        """Solve; every phase that can be told apart is marked on the clock."""
        import qpsolvers  # here and not above: listing the methods must not need the library

        p = data
        with clock("prepare"):  # from the caller's arrays to the solver's own objects
            qp = qpsolvers.Problem(p.P, p.q, p.G, p.h, p.A, p.b)
        with clock("solve"):  # qpsolvers hides the solver's set-up, so it is in here too
            found = qpsolvers.solve_problem(qp, solver=self.options["solver"])
        if not found.found:
            raise MethodError(f"{p.name}: no solution found, it may be infeasible or unbounded")
        with clock("extract"):  # what the backward pass will need
            lam = np.maximum(found.z, 0.0)
            self._data, self._active = p, lam > self.options["active_tol"]
            return Solution(z=found.x, nu=found.y, lam=lam)

    def backward(self, upstream, clock):
        """Return the gradients of all names in `wrt`, for the data last solved."""
        if set(self.wrt) - {"q", "b", "h"}:
            raise MethodError("gradients of q, b and h only")
        p, active = self._data, self._active
        with clock("setup"):
            C = np.concatenate([p.A, p.G[active]])
            K = np.block([[p.P, C.T], [C, np.zeros((len(C), len(C)))]])
            right = np.concatenate([-upstream, np.zeros(len(C))])
        with clock("solve"):
            w = np.linalg.solve(K, right)
        with clock("extract"):
            h = np.zeros(p.nineq)
            h[active] = -w[p.n + p.neq :]
            gradients = {"q": w[: p.n], "b": -w[p.n : p.n + p.neq], "h": h}
            return {name: gradients[name] for name in self.wrt}
