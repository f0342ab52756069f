"""Claims about accuracy and solvers: C5, C11; and about DC3's growth: C10."""

from __future__ import annotations

import itertools
import math

from bpqp_bench.report.claims.model import (
    MIXED,
    NOT,
    REPRODUCED,
    UNTESTED,
    Finding,
    Judged,
    Verdict,
    by_readings,
    overall,
)
from bpqp_bench.report.claims.readings import READINGS, Reading, configuration, table1_sizes
from bpqp_bench.report.claims.setup import machine, phase_story, versions
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.tables._common import fit_cells
from bpqp_bench.report.tables.dc3 import FAMILIES as DC3_FAMILIES
from bpqp_bench.report.tables.dc3 import dc3_methods
from bpqp_bench.report.tables.solvers import BACKWARD, FORWARD, pair
from bpqp_bench.report.text import interval, outcome_text, significant, tiny
from bpqp_bench.results.cells import PROTOCOLS
from bpqp_bench.runner.profiles import PROFILES

_SAME = 1e-9
_ACCURATE = 1e-6
_LINEAR = (0.8, 1.2)
_SOLVERS_NEEDED = 3  # "any solver" is no statement about two of them
_OTHERS = ("exact", "cvxpy", "qpth", "altdiff", "jaxopt")


def c5(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: BPQP's gradients are at least as accurate as the others' on QP."""
    findings: list[Finding] = []
    readings: dict[str, Verdict] = {}
    for reading in (READINGS[1], READINGS[2]):  # a clock says nothing of accuracy
        found = [_compared(inputs, name, reading) for name in _OTHERS]
        readings[reading.key] = overall((finding.verdict for finding in found), every=False)
        findings += found
    verdict = by_readings(readings)
    explanation = ""
    if verdict in (NOT, MIXED):
        explanation = (
            "With the published tolerances BPQP's gradient inherits the error of its first-order "
            "forward and backward solver and the active set read off from it; a method that "
            "factorizes the KKT system at an interior-point solution does not. Table 3 has all "
            "sizes, families and measures; the solver-pair table shows BPQP with other solvers."
        )
    return Judged(
        claim["id"],
        claim["claim"],
        claim["where"],
        verdict,
        "BPQP's median 1 − cos at each size is at most the other's, or at most 1e−9: below that "
        "two gradients differ by less than 0.003 degrees and no training step can tell.",
        tuple(findings),
        (
            "reference: certified in extended precision here; the paper takes Exact as the truth",
            "almost no inequality is active in this family (table 1 has the counts); table 3 has "
            "families in which they are",
            *versions(inputs, "osqp", "qpth", "diffcp", "jaxopt"),
        ),
        explanation,
        readings,
    )


def _compared(inputs: Inputs, method: str, reading: Reading) -> Finding:
    worse: list[str] = []
    parts: list[str] = []
    for size in table1_sizes(inputs):
        names = [configuration(inputs, one, "qp", size, reading) for one in ("bpqp", method)]
        if None in names:
            continue
        one, two, *error = (
            float(
                inputs.cells.regular(
                    "qp", size, inputs.names.method(str(name)).key, f"accuracy.q.{measure}"
                ).median()
            )
            for measure in ("one_minus_cos", "rel_l2")
            for name in names
        )
        if math.isnan(one + two):
            continue
        parts.append(
            f"{size}: {tiny(one)} against {tiny(two)} (relative error {tiny(error[0])} against "
            f"{tiny(error[1])})"
        )
        if one > max(two, _SAME):
            worse.append(size)
    if not parts:
        return Finding(method, "not both measured on QP", UNTESTED, reading=reading.key)
    text = f"1 − cos, BPQP against {method}, medians: {'; '.join(parts)}"
    return Finding(method, text, NOT if worse else REPRODUCED, reading=reading.key)


def c10(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: DC3's runtime grows linearly with the size of the problem."""
    findings: list[Finding] = []
    stories: list[str] = []
    trained = dc3_methods(inputs)[0]
    for protocol, (plain, label) in itertools.product(PROTOCOLS, DC3_FAMILIES.items()):
        family = inputs.names.family(plain)
        what = f"{label}, protocol {protocol}"
        fit = fit_cells(inputs.cells, family, trained.key, "total", protocol)
        if fit is None or not fit.trusted:
            count = 0 if fit is None else fit.sizes
            why = f"{count} sizes measured; fewer than three say nothing about a law"
            findings.append(Finding(what, why, UNTESTED))
            continue
        ends = (fit.exponent if math.isnan(end) else end for end in (fit.low, fit.high))
        low, high = ends  # few instances give no interval; the exponent itself then counts
        linear = low <= _LINEAR[1] and high >= _LINEAR[0]
        local = ", ".join(significant(slope, 2) for slope in fit.local)
        findings.append(
            Finding(
                what,
                f"exponent {significant(fit.exponent)} {interval(fit.low, fit.high)}; between "
                f"neighbouring sizes {local}",
                REPRODUCED if linear else NOT,
            )
        )
        if not linear and protocol == "call":
            story = phase_story(inputs, family, inputs.cells.sizes(family)[-1], trained.name)
            if fit.exponent < _LINEAR[0]:
                cause = (
                    "Below one: at these sizes fixed costs per call (Python, tensor dispatch) "
                    "outweigh the arithmetic"
                )
            else:
                cause = (
                    "Above one: completion and correction multiply by dense matrices, whose cost "
                    "grows with n·m"
                )
            stories.append(f"{label}: {cause}. {story}".strip())
    verdict = overall((f.verdict for f in findings if f.what.endswith("call")), every=False)
    return Judged(
        claim["id"],
        claim["claim"],
        claim["where"],
        verdict,
        "The 95 % interval of the exponent of total time over n meets 0.8 to 1.2, on at least "
        "three sizes: with an exponent further from 1 a linear forecast is wrong by a factor of "
        "two within a factor of 32 in size.",
        tuple(findings),
        (
            machine(inputs),
            "DC3 is the one of this suite, retrained for each family and size; the paper's "
            "settings at each size are not stated",
        ),
        " ".join(stories),
    )


def c11(inputs: Inputs, claim: dict[str, str]) -> Judged:
    """Judge: any solver can be used in either pass."""
    findings: list[Finding] = []
    for family in ("qp", "qp-active"):
        good, bad = 0, []
        seen: set[tuple[str, str]] = set()
        for names in itertools.product(FORWARD, BACKWARD):
            method = inputs.names.method(pair(*names))
            for size in inputs.cells.sizes(family):
                if size in PROFILES[-1].large_sizes:
                    continue  # the pairs are compared at two moderate sizes; table 2 is another
                outcome = inputs.cells.outcome(family, size, method.key)
                if outcome.state == "missing":
                    continue
                seen.add(names)
                distances = inputs.cells.regular(
                    family, size, method.key, "accuracy.q.one_minus_cos"
                )
                worst = float(distances.max())
                if outcome.state == "measured" and worst <= _ACCURATE:
                    good += 1
                else:
                    found = (
                        tiny(worst) if len(distances) else outcome_text(outcome) or "no gradient"
                    )
                    bad.append(f"{names[0]} + {names[1]} at {size}: {found}")
        kinds = [len({names[side] for names in seen}) for side in (0, 1)]
        if min(kinds) < _SOLVERS_NEEDED and not bad:
            text = f"{kinds[0]} solvers forward and {kinds[1]} backward measured; three are needed"
            findings.append(Finding(family, text, UNTESTED))
            continue
        text = f"{good} of {good + len(bad)} pairs and sizes within 1 − cos ≤ {tiny(_ACCURATE)}"
        if bad:
            text += f"; not: {'; '.join(bad[:12])}{' …' if len(bad) > 12 else ''}"
        findings.append(Finding(family, text, NOT if bad else REPRODUCED))
    verdict = overall((finding.verdict for finding in findings), every=False)
    explanation = ""
    if verdict == NOT:
        explanation = (
            "The construction itself does not depend on the solver: the pairs listed as missing "
            "the mark do so by the tolerance or the failure of the named solver on these problems."
        )
    return Judged(
        claim["id"],
        claim["claim"],
        claim["where"],
        verdict,
        "Every pair of the solver-pair table answers, and its worst 1 − cos over non-degenerate "
        "instances is at most 1e−6 (0.08 degrees). Fewer than three solvers in a pass say nothing.",
        tuple(findings),
        (machine(inputs), *versions(inputs, "osqp", "proxsuite", "piqp", "clarabel", "scs")),
        explanation,
    )
