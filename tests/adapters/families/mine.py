"""A user's family: n = 7 is refused, and n = 8 takes the process with it."""

import os

import numpy as np

from bpqp_bench import Family, Instance
from bpqp_bench.errors import SpecError


def generate(size, rng, fails):
    n, m = size.n, size.m
    if fails and n == 7:
        raise SpecError(f"mine cannot be drawn at size {size}")
    if fails and n == 8:
        os._exit(3)
    G = rng.random((m, n))
    return Instance(
        P=np.eye(n),
        q=rng.random(n),
        A=np.zeros((0, n)),
        b=np.zeros(0),
        G=G,
        h=G @ np.ones(n),
        problem_class="qp",
    )


FAMILY = Family(
    name="mine",
    label="Mine",
    problem_class="qp",
    source="this test",
    generate=generate,
    parameters={"fails": True},
)
