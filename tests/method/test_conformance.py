"""`check_method`: a correct adapter passes, and each defect is caught by the check made for it."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from references import reference_of

from bpqp_bench import Instance, Method, MethodError, Solution
from bpqp_bench.method import conformance
from bpqp_bench.method.choice import MethodChoice
from bpqp_bench.method.conformance import check_method
from bpqp_bench.reference import NoReferenceError


@pytest.fixture(autouse=True)
def _references_once(monkeypatch):
    # Every adapter is judged on the same problems.
    monkeypatch.setattr(conformance, "compute_reference", reference_of)


class Ball(Method):
    """The `socp` family in closed form: z* = −c q/‖q‖."""

    name = "ball"
    label = "Ball"
    reference = "closed form"
    problem_classes = frozenset({"socp"})
    why_not = MappingProxyType({"qp": "one ball only", "lp": "one ball only"})

    def unsupported(self, instance):
        if reason := super().unsupported(instance):
            return reason
        if self.wrt != ("q",):
            return "only the gradient of q is known in closed form"
        return None if len(instance.cones) == 1 else "more than one cone"

    def build(self, template):
        pass

    def forward(self, problem, clock):
        with clock("solve"):
            self._q, self._radius = problem.q, problem.cones[0].d
            if self._radius < 0.0:
                raise MethodError("the ball is empty: the problem is infeasible")
            norm = np.linalg.norm(self._q)
            return Solution(z=-self._radius / norm * self._q, mu=np.array([norm]))

    def backward(self, upstream, clock):
        with clock("solve"):
            norm = np.linalg.norm(self._q)
            u = self._q / norm
            return {"q": -self._radius / norm * (upstream - u * (u @ upstream))}


class Quadratic(Method):
    """QP and LP through the suite's own reference: right by definition, all parameters."""

    name = "quadratic"
    label = "Quadratic"
    reference = "this suite"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "no cones"})

    def build(self, template):
        pass

    def forward(self, problem, clock):
        p = problem
        self._problem = Instance(p.P, p.q, p.A, p.b, p.G, p.h, problem_class=p.problem_class)
        with clock("solve"):
            try:
                found = reference_of(self._problem, np.ones(problem.n))
            except NoReferenceError as error:
                raise MethodError(str(error)) from None
        return Solution(z=found.z, nu=found.nu, lam=found.lam)

    def backward(self, upstream, clock):
        with clock("solve"):
            return reference_of(self._problem, upstream, self.wrt).gradients


# --- defects, one each ---------------------------------------------------------------------------


class NoReason(Ball):
    why_not = MappingProxyType({"qp": "one ball only"})


class UnknownClass(Ball):
    problem_classes = frozenset({"socp", "sdp"})


class NeverRuns(Ball):
    def unsupported(self, instance):
        return "not today"


class BuildRaises(Ball):
    def build(self, template):
        raise RuntimeError("no compiler")


class ForwardRaises(Ball):
    def forward(self, problem, clock):
        raise RuntimeError("segmentation of the fault")


class WrongShape(Ball):
    def forward(self, problem, clock):
        return replace(super().forward(problem, clock), z=np.zeros((problem.n, 1)))


class WrongMultipliers(Ball):
    def forward(self, problem, clock):
        return replace(super().forward(problem, clock), lam=np.zeros(3))


class NotFinite(Ball):
    def backward(self, upstream, clock):
        return {"q": super().backward(upstream, clock)["q"] * np.nan}


class NoGradient(Ball):
    def backward(self, upstream, clock):
        super().backward(upstream, clock)
        return {}


class NotAnArray(Ball):
    def backward(self, upstream, clock):
        return {"q": super().backward(upstream, clock)["q"].tolist()}


class WrongSign(Ball):
    def backward(self, upstream, clock):
        return {"q": -super().backward(upstream, clock)["q"]}


class Twice(Ball):
    def backward(self, upstream, clock):
        return {"q": 2.0 * super().backward(upstream, clock)["q"]}


class IgnoresUpstream(Ball):
    def backward(self, upstream, clock):
        return super().backward(np.ones_like(upstream), clock)


class WrongSolution(Ball):
    def forward(self, problem, clock):
        found = super().forward(problem, clock)
        return replace(found, z=0.8 * found.z)


class ChangesProblem(Ball):
    def forward(self, problem, clock):
        found = super().forward(problem, clock)
        problem.q[0] += 1e-9
        return found


class WritesNan(Ball):
    def backward(self, upstream, clock):
        found = super().backward(upstream, clock)
        self._q[:] = np.nan
        return found


class ChangesUpstream(Ball):
    def backward(self, upstream, clock):
        found = super().backward(upstream, clock)
        upstream *= 1.0 + 1e-9
        return found


class Drifts(Ball):
    calls = 0

    def backward(self, upstream, clock):
        self.calls += 1
        return {"q": super().backward(upstream, clock)["q"] * (1.0 + 1e-6 * self.calls)}


class ReusesItsBuffer(Ball):
    """Correct, and the arrays that it returns change with the next call: copies must be judged."""

    def backward(self, upstream, clock):
        if not hasattr(self, "_buffer"):
            self._buffer = np.empty_like(upstream)
        self._buffer[:] = super().backward(upstream, clock)["q"]
        return {"q": self._buffer}


class KeepsFirstAnswer(Ball):
    """Right on the first problem ever seen, which is not the one after it."""

    def forward(self, problem, clock):
        if not hasattr(self, "_first"):
            self._first = super().forward(problem, clock)
        with clock("solve"):
            return self._first


class NestedPhases(Ball):
    def forward(self, problem, clock):
        with clock("setup"):
            return super().forward(problem, clock)


class UnknownPhase(Ball):
    def forward(self, problem, clock):
        with clock("warmup"):
            pass
        return super().forward(problem, clock)


class NoSolvePhase(Ball):
    def backward(self, upstream, clock):
        with clock("extract"):
            u = self._q / np.linalg.norm(self._q)
            scale = self._radius / np.linalg.norm(self._q)
            return {"q": -scale * (upstream - u * (u @ upstream))}


class SolvesTheInfeasible(Ball):
    def forward(self, problem, clock):
        ball = replace(problem.cones[0], d=abs(problem.cones[0].d))
        return super().forward(replace(problem, cones=(ball,)), clock)


class ObscureAboutInfeasible(Ball):
    def forward(self, problem, clock):
        if problem.cones[0].d < 0.0:
            raise MethodError("error 17")
        return super().forward(problem, clock)


class WrongTypeAboutInfeasible(Ball):
    def forward(self, problem, clock):
        if problem.cones[0].d < 0.0:
            raise KeyError("infeasible")
        return super().forward(problem, clock)


class WrongMatrixGradient(Quadratic):
    def backward(self, upstream, clock):
        found = dict(super().backward(upstream, clock))
        if "A" in found:
            found["A"] = -found["A"]
        return found


class FlippedNu(Quadratic):
    def forward(self, problem, clock):
        found = super().forward(problem, clock)
        return replace(found, nu=-found.nu)


class SquaresMultipliers(Quadratic):
    """∂G with λ² for λ, as qpax 0.1.4 has it."""

    def forward(self, problem, clock):
        self._found = super().forward(problem, clock)
        return self._found

    def backward(self, upstream, clock):
        found = dict(super().backward(upstream, clock))
        if "G" in found:
            lam = self._found.lam
            found["G"] = found["G"] + np.outer(lam**2 - lam, found["q"])
        return found


class Stacked(Quadratic):
    """Takes batches, problem by problem."""

    batched = True
    wrong = False

    def forward(self, data, clock):
        self._many = data.batch > 1
        if not self._many:
            return super().forward(data, clock)
        names = ("P", "q", "A", "b", "G", "h")
        parts = [
            replace(data, batch=1, **{name: getattr(data, name)[i] for name in names})
            for i in range(data.batch)
        ]
        self._problems, z = [], []
        for part in parts:
            z.append(super().forward(part, clock).z)
            self._problems.append(self._problem)
        return Solution(z=np.stack(z))

    def backward(self, upstream, clock):
        if not self._many:
            return super().backward(upstream, clock)
        found = []
        for problem, v in zip(self._problems, upstream, strict=True):
            self._problem = problem
            found.append(super().backward(v, clock)["q"])
        return {"q": np.stack(found[::-1] if self.wrong else found)}


class MixesUpTheBatch(Stacked):
    wrong = True


class Learned(Ball):
    """Half the solution and a rough gradient, said to be so."""

    def forward(self, problem, clock):
        found = super().forward(problem, clock)
        return replace(found, z=0.5 * found.z, status="approximate", info={"approximate": True})

    def backward(self, upstream, clock):
        return {"q": super().backward(upstream, clock)["q"] + 1.0}


class LearnedNotFinite(Learned):
    def backward(self, upstream, clock):
        return {"q": super().backward(upstream, clock)["q"] * np.inf}


class FixedOnly(Quadratic):
    """Takes only families whose data are fixed, as a learned method does."""

    def unsupported(self, instance):
        fixed = "fixed=true" in instance.family
        return super().unsupported(instance) or (None if fixed else "needs fixed=true")

    def build(self, template):
        self._h = template.h

    def forward(self, problem, clock):
        if not np.array_equal(problem.h, self._h):
            raise MethodError("these are not the data that it was made for")
        return super().forward(problem, clock)


def run(cls, registry):
    choice = MethodChoice(cls, {}, cls.name, cls.label)
    return {result.name: result for result in check_method(choice, registry.family)}


def failures(results):
    return {name: result.detail for name, result in results.items() if not result.passed}


@pytest.mark.parametrize("cls", [Ball, Quadratic, FixedOnly, Learned, ReusesItsBuffer, Stacked])
def test_a_correct_adapter_passes(cls, registry):
    assert failures(run(cls, registry)) == {}


def test_every_promised_check_is_made(registry):
    ball, quadratic = run(Ball, registry), run(Quadratic, registry)
    checks = (
        "phases",
        "inputs",
        "shapes",
        "same twice",
        "solution",
        "multipliers",
        "gradient",
        "all parameters",
        "infeasible problem",
    )
    for family, results in (("socp", ball), ("qp", quadratic), ("qp-active", quadratic)):
        assert {f"{family}: {check}" for check in checks} <= set(results)
    assert "not run: QP: one ball only" in ball["qp"].detail
    assert "more than one cone" in ball["socp-robust"].detail
    assert "refused" in ball["socp: all parameters"].detail
    for name in ("P", "q", "A", "b", "G", "h"):
        assert f"{name}: 1−cos" in quadratic["qp-active: all parameters"].detail


def test_fixed_families_stand_in(registry):
    results = run(FixedOnly, registry)
    assert "qp[fixed=true]: gradient" in results
    assert "not run" in results["qp-active"].detail
    assert "not the data" in results["lp[fixed=true]: infeasible problem"].detail


class EqualitiesOnly(Quadratic):
    def unsupported(self, instance):
        return "no inequalities" if instance.nineq else super().unsupported(instance)


def test_a_method_for_equalities_alone_has_a_family(registry):
    results = run(EqualitiesOnly, registry)
    name = "osqp-class[kind=equality,n=10]"
    assert {f"{name}: {what}" for what in ("gradient", "all parameters")} <= set(results)
    assert not [result for result in results.values() if not result.passed]
    assert "infeasible" in results[f"{name}: infeasible problem"].detail
    assert not [title for title in run(Quadratic, registry) if title.startswith("osqp-class")]


def test_an_approximation_is_reported_and_not_judged(registry):
    results = run(Learned, registry)
    assert "not judged" in results["socp: gradient"].detail
    assert "5.0e-01" in results["socp: solution"].detail


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (NoReason, {"declarations"}),
        (UnknownClass, {"declarations"}),
        (NeverRuns, {"runs at all"}),
        (BuildRaises, {"socp: build"}),
        (ForwardRaises, {"socp: runs", "socp: infeasible problem"}),
        (WrongShape, {"socp: shapes"}),
        (WrongMultipliers, {"socp: shapes"}),
        (NotFinite, {"socp: shapes"}),
        (LearnedNotFinite, {"socp: shapes"}),
        (NoGradient, {"socp: shapes"}),
        (NotAnArray, {"socp: runs"}),
        (WrongSign, {"socp: gradient"}),
        (Twice, {"socp: gradient"}),
        (IgnoresUpstream, {"socp: gradient"}),
        (WrongSolution, {"socp: solution"}),
        (ChangesProblem, {"socp: inputs"}),
        (WritesNan, {"socp: inputs"}),
        (ChangesUpstream, {"socp: inputs"}),
        (Drifts, {"socp: same twice"}),
        (
            KeepsFirstAnswer,
            {
                "socp: solution",
                "socp: multipliers",
                "socp: gradient",
                "socp: infeasible problem",
            },
        ),
        (NestedPhases, {"socp: phases", "socp: infeasible problem"}),
        (UnknownPhase, {"socp: phases", "socp: infeasible problem"}),
        (NoSolvePhase, {"socp: phases"}),
        (SolvesTheInfeasible, {"socp: infeasible problem"}),
        (ObscureAboutInfeasible, {"socp: infeasible problem"}),
        (WrongTypeAboutInfeasible, {"socp: infeasible problem"}),
        (
            WrongMatrixGradient,
            {"qp: all parameters", "qp-active: all parameters", "lp: all parameters"},
        ),
        (
            SquaresMultipliers,
            {"qp: all parameters", "qp-active: all parameters", "lp: all parameters"},
        ),
        (FlippedNu, {"qp: multipliers", "qp-active: multipliers"}),
        (MixesUpTheBatch, {"qp: batch", "qp-active: batch", "lp: batch"}),
    ],
)
def test_each_defect_is_caught(cls, expected, registry):
    assert set(failures(run(cls, registry))) == expected


def test_a_missing_library_is_the_only_result(registry):
    class NeedsMore(Ball):
        requires = ("no_such_library",)

    (result,) = run(NeedsMore, registry).values()
    assert not result.passed
    assert "no_such_library" in result.detail
