"""Methods that misbehave in every way that a method can, each on instances other than 0."""

import ctypes
import os
import subprocess
import sys
import time
from types import MappingProxyType

import numpy as np

from bpqp_bench import Data, Method, MethodError, PhaseClock, Registry, Size, Solution


def checksum(problem: Data) -> float:
    return float(sum(np.abs(getattr(problem, name)).sum() for name in ("P", "q", "A", "b", "G")))


def eat():
    eaten = []
    while True:
        eaten.append(np.ones(2**22))


def fail():
    raise ValueError("first line\nsecond line")


def fail_for_memory():
    raise MemoryError("no more")


def print_garbage():
    os.write(1, b"\x80\x05garbage\n" * 1000)
    print("garbage " * 1000, flush=True)
    sys.stderr.write("more garbage\n")


def eat_in_a_child():
    # In a session of its own, where a signal to the worker's group does not reach it.
    code = "import time; eaten = bytearray(2**29); time.sleep(3600)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True).wait()


DEEDS = {
    "child-eats": eat_in_a_child,
    "sleep": lambda: time.sleep(3600),
    "busy": lambda: sum(range(10**13)),  # in C, and never lets go of the interpreter
    "segfault": lambda: ctypes.string_at(0),
    "eat": eat,
    "memory-error": fail_for_memory,
    "raise": fail,
    "system-exit": lambda: sys.exit("leaving"),
    "exit": lambda: os._exit(7),
    "print": print_garbage,
}


class Hostile(Method):
    """Answers with zeros, unless its mode says otherwise."""

    name = "hostile"
    label = "Hostile"
    reference = "none"
    problem_classes = frozenset({"qp"})
    why_not = MappingProxyType({"lp": "too linear", "socp": "too round"})
    parameters = MappingProxyType({"mode": "none"})

    def build(self, template):
        mode = self.options["mode"]
        # It behaves on the first instance, and on those that nobody measures.
        find = self.find_family or Registry().family
        family = find(template.family)
        seeds = (0, 2**31, 2**31 + 1)
        self._spared = {family.draw(template.size, seed).q.tobytes() for seed in seeds}
        if mode == "build-sleep":
            time.sleep(3600)
        if mode == "build-raise":
            raise MethodError("cannot be built\nsecond line")

    def poses(self, instance):
        if self._now == "poses-another-size":
            return (self.find_family or Registry().family)("qp").draw(Size(12, 5), 1)
        return instance

    def forward(self, problem, clock: PhaseClock):
        mode = self.options["mode"]
        self._problem = problem
        self._now = "none" if problem.q.tobytes() in self._spared else mode
        z = np.zeros(problem.n)
        with clock("solve"):
            if self._now in DEEDS:
                DEEDS[self._now]()
        if self._now == "none-returned":
            return None
        if self._now == "nan":
            z[3] = np.nan
        if self._now == "shape":
            z = np.zeros(problem.n + 1)
        info = {"checksum": checksum(problem), "numpy": np.float64(0.5), "odd": object}
        status = "iteration limit" if self._now == "gives-up" else "solved"
        if self._now == "mutate":
            problem.P[:] = np.inf
            problem.q[:] = np.inf
        return Solution(z, np.zeros(problem.neq), np.zeros(problem.nineq), status=status, info=info)

    def backward(self, upstream, clock: PhaseClock):
        if self._now == "backward-sleep":
            time.sleep(3600)
        if self._now == "gradient-inf":
            return {"q": np.full(self._problem.n, np.inf)}
        if self._now == "gradient-missing":
            return {}
        if self._now == "gradient-text":
            return {"q": np.full(self._problem.n, "a")}
        return {"q": -upstream}


class Homeless(Method):
    """Needs a library that nobody has."""

    name = "homeless"
    label = "Homeless"
    reference = "none"
    problem_classes = frozenset({"qp"})
    why_not = MappingProxyType({"lp": "no", "socp": "no"})
    requires = ("a_library_that_is_not_installed",)

    def build(self, template):
        raise AssertionError("never called")

    def forward(self, problem, clock):
        raise AssertionError("never called")

    def backward(self, upstream, clock):
        raise AssertionError("never called")


class Steady(Method):
    """Takes a little while and answers with zeros; a process of its own."""

    name = "steady"
    label = "Steady"
    reference = "none"
    problem_classes = frozenset({"qp", "lp"})
    why_not = MappingProxyType({"socp": "too round"})
    parameters = MappingProxyType({"seconds": 0.01})

    def build(self, template):
        assert template.planted is None

    def forward(self, problem, clock):
        assert not hasattr(problem, "planted")
        with clock("solve"):
            time.sleep(self.options["seconds"])
        return Solution(np.zeros(problem.n), info={"checksum": checksum(problem)})

    def backward(self, upstream, clock):
        with clock("solve"):
            time.sleep(self.options["seconds"])
        return {"q": -upstream}


class Loading(Steady):
    """Loads for longer than it may build, as the first use of compiled kernels does."""

    name = "loading"
    label = "Loading"
    _loaded = False

    @classmethod
    def load(cls):
        time.sleep(2.0)
        cls._loaded = True

    def build(self, template):
        assert self._loaded
