"""Work–precision curves: which cells make a curve, in which order."""

from dataclasses import replace

import pytest
from report_samples import inputs, measurement

from bpqp_bench import Registry
from bpqp_bench.reference.accuracy import Accuracy
from bpqp_bench.report.figures.work_precision import draw
from bpqp_bench.report.inputs import Names
from bpqp_bench.report.tables.work_precision import TABLE, points


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
    (found,) = points(run(POINTS), "qp-active", "10x5").items()
    method, curve = found
    assert method.key == "qplayer"
    assert list(curve) == [1e-3, 1e-6, 1e-9]
    assert [error for error, _ in curve.values()] == pytest.approx([1e-2, 1e-5, 1e-8])
    times = [time for _, time in curve.values()]
    assert times == sorted(times)


def test_a_run_without_curves_has_no_drawing():
    assert draw(run(POINTS[3:])) == ()
    (drawing,) = draw(run(POINTS))
    values = drawing.spec["data"]["values"]
    assert [(value["label"], value["tolerance"]) for value in values] == [
        *(("QPLayer", 1e-3), ("QPLayer", 1e-6), ("QPLayer", 1e-9))
    ]


def test_the_table_has_time_and_error_of_every_tolerance():
    (panel,) = TABLE.render(run(POINTS)).panels
    assert [column.label for column in panel.columns[1:]] == ["1e−3", "1e−6", "1e−9"]
    (row,) = panel.rows
    assert [cell.text for cell in row.cells] == ["QPLayer", "1.50", "3.00", "4.50"]
    assert row.cells[1].below == "1.0e−02"
