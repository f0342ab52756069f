"""Work–precision curves: which cells make a curve, in which order."""

from dataclasses import replace

import pytest
from report_samples import inputs, measurement

from bpqp_bench import Registry
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.report.figures.work_precision import curves, draw
from bpqp_bench.report.inputs import Names


def run(points):
    """A run of (method, error, seconds), three instances each."""
    made = []
    for method, error, seconds in points:
        for seed in range(3):
            right = Accuracy(one_minus_cos=error**2, rel_l2=error, l2=error, norm=1.0)
            of = {"method": method, "family": "qp-active", "seed": seed, "seconds": seconds}
            made.append(measurement(**of, accuracy={"q": right}))
    return replace(inputs(made), names=Names(Registry()))


POINTS = [
    ("qplayer[eps=1e-06]", 1e-5, 2e-3),
    ("qplayer[eps=0.001]", 1e-2, 1e-3),
    ("qplayer", 1e-8, 3e-3),  # its default, 1e-9
    ("dqp[eps=0.001]", 1e-3, 1e-3),
    ("dqp[eps=1e-06]", 1e-3, 2e-3),  # two points only
    ("exact", 1e-9, 1e-3),  # no tolerance
]


def test_a_curve_goes_from_the_loosest_to_the_tightest_tolerance():
    (found,) = curves(run(POINTS), "qp-active", "10x5").items()
    method, curve = found
    assert method.key == "qplayer"
    assert [error for error, _ in curve] == pytest.approx([1e-2, 1e-5, 1e-8])
    times = [time for _, time in curve]
    assert times == sorted(times)


def test_a_run_without_curves_has_no_drawing():
    assert draw(run(POINTS[3:])) == ()
    (drawing,) = draw(run(POINTS))
    (axis,) = [axis for axis in drawing.figure.axes if axis.lines]
    assert [line.get_label() for line in axis.lines] == ["QPLayer"]
