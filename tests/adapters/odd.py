"""Methods whose answers and errors are odd objects; the right answer otherwise costs nothing."""

import os
import socket
import stat
from types import MappingProxyType

import numpy as np

from bpqp_bench import Method, Solution


class Sticky:
    """No other process can make one, and it has no text."""

    def __reduce__(self):
        raise RuntimeError("stays here")

    def __repr__(self):
        raise RuntimeError("says nothing")


class ForeignError(Exception):
    """Known to this file alone."""

    def __reduce__(self):
        raise RuntimeError("stays here")


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("says nothing")


def write_to_sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    connection.send(b"good morning " * 10)
        except OSError:
            pass


def odd_info(kind):
    info = {"plain": 1}
    if kind == "loop":
        info["self"] = info
    found = {
        "tuple-key": {("active", 1): 2},
        "numpy-key": {np.int64(3): np.float32(0.5)},
        "sticky": {"object": Sticky(), "list": [Sticky()]},
        "large": {"text": ["x" * 1000] * 1000, "number": 10**400},
        "loop": info,
        "no-mapping": [1, 2],
    }
    return found.get(kind, info)


class Odd(Method):
    """Answers −q to everything."""

    name = "odd"
    label = "Odd"
    reference = "none"
    problem_classes = frozenset({"qp"})
    why_not = MappingProxyType({"lp": "no", "socp": "no"})
    parameters = MappingProxyType({"kind": "none"})

    def build(self, template):
        if self.options["kind"] == "build-surrogate":
            raise OSError("no file " + b"/data/caf\xe9".decode("utf-8", "surrogateescape"))

    def forward(self, data, clock):
        kind = self.options["kind"]
        if kind == "foreign":
            raise ForeignError("only here")
        if kind == "silent":
            raise SilentError
        if kind == "surrogate":
            raise OSError("no file " + b"/data/caf\xe9".decode("utf-8", "surrogateescape"))
        if kind == "socket":
            write_to_sockets()
        if kind == "fork":
            os.fork()
        status = b"solved \xe9".decode("utf-8", "surrogateescape") if kind == "status" else "solved"
        return Solution(-data.q, info=odd_info(kind), status=status)

    def backward(self, upstream, clock):
        return {"q": -upstream}


class Pairs(Method):
    """−q for batches, and counts its calls."""

    name = "pairs"
    label = "Pairs"
    reference = "none"
    problem_classes = frozenset({"qp"})
    why_not = MappingProxyType({"lp": "no", "socp": "no"})
    parameters = MappingProxyType({"wrong": False})
    batched = True
    dtypes = frozenset({"float64", "float32"})

    def build(self, template):
        assert self.batch == 3

    def forward(self, data, clock):
        assert data.q.shape == (3, data.n)
        assert data.P.shape == (3, data.n, data.n)
        assert data.q.dtype == self.dtype
        status = ("solved", "iteration limit", "solved")
        z = -data.q[:2] if self.options["wrong"] else -data.q
        return Solution(z, status=status, info={"sum": float(data.q.sum())})

    def backward(self, upstream, clock):
        assert upstream.shape[0] == 3
        return {"q": -upstream}
