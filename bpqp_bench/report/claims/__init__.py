"""The paper's claims as code: measured quantity, threshold, verdict, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bpqp_bench.report.claims.model import Finding, Judged, Verdict
from bpqp_bench.report.claims.portfolio import c7, c8, c9
from bpqp_bench.report.claims.quality import c5, c10, c11
from bpqp_bench.report.claims.readings import READINGS
from bpqp_bench.report.claims.speed import c1, c2, c3, c4, c6
from bpqp_bench.report.inputs import Inputs
from bpqp_bench.report.markdown import plain
from bpqp_bench.report.published import claims

__all__ = ["Finding", "Judged", "Verdict", "claims_markdown", "judge_claims"]

_JUDGES: Mapping[str, Callable[[Inputs, dict[str, str]], Judged]] = {
    **{"C1": c1, "C2": c2, "C3": c3, "C4": c4, "C5": c5, "C6": c6},
    **{"C7": c7, "C8": c8, "C9": c9, "C10": c10, "C11": c11},
}


def judge_claims(inputs: Inputs) -> tuple[Judged, ...]:
    """Judge every claim of the packaged claims.csv on one run, in its order."""
    return tuple(
        _JUDGES[str(row["id"])](inputs, {str(key): str(value) for key, value in row.items()})
        for row in claims().to_dict("records")
    )


def claims_markdown(judged: tuple[Judged, ...]) -> str:
    """Render the verdicts: a scoreboard, then each claim with everything behind it."""
    titles = {reading.key: reading.title for reading in READINGS}
    lines = ["# The paper's claims", "", _line("", "claim", "verdict", *titles.values())]
    lines.append(_line(*[":---"] * (3 + len(titles))))
    for one in judged:
        several = [one.readings.get(key, "") for key in titles]
        lines.append(_line(one.identifier, plain(one.claim), one.verdict, *several))
    for one in judged:
        lines += ["", f"## {one.identifier}: {one.verdict}", ""]
        lines += [f"> {plain(one.claim)} ({plain(one.where)})", ""]
        lines += [f"What would count: {plain(one.threshold)}", ""]
        lines += [_line("", "measured", "published", "verdict"), _line(*[":---"] * 4)]
        reading = ""
        for found in one.findings:
            if found.reading != reading:
                reading = found.reading
                verdict = one.readings.get(reading, "")
                lines.append(_line(f"**{titles.get(reading, reading)}**", "", "", f"**{verdict}**"))
            words = (plain(text) for text in (found.what, found.measured, found.published))
            lines.append(_line(*words, found.verdict))
        for text in filter(None, (one.contrast, one.explanation)):
            lines += ["", plain(text)]
        if one.differences:
            lines += ["", "What differs from the paper's setup:", ""]
            lines += [f"- {plain(difference)}" for difference in one.differences]
    return "\n".join(lines) + "\n"


def _line(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"
