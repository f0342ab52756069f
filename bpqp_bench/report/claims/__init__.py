"""The paper's claims as code: measured quantity, threshold, verdict, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bpqp_bench.report.claims.model import Finding, Judged, Verdict
from bpqp_bench.report.claims.portfolio import c7, c8, c9
from bpqp_bench.report.claims.quality import c5, c10, c11
from bpqp_bench.report.claims.speed import c1, c2, c3, c4, c6
from bpqp_bench.report.inputs import Inputs
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
    """Render the verdicts: a summary, then each claim with everything behind it."""
    lines = ["# The paper's claims", ""]
    lines += ["| | claim | verdict |", "| :--- | :--- | :--- |"]
    lines += [f"| {one.identifier} | {_cell(one.claim)} | {one.verdict} |" for one in judged]
    for one in judged:
        lines += ["", f"## {one.identifier}: {one.verdict}", "", f"> {one.claim} ({one.where})", ""]
        lines += [f"What would count: {one.threshold}", ""]
        lines += ["| | measured | published | verdict |", "| :--- | :--- | :--- | :--- |"]
        lines += [
            f"| {_cell(f.what)} | {_cell(f.measured)} | {_cell(f.published)} | {f.verdict} |"
            for f in one.findings
        ]
        if one.explanation:
            lines += ["", one.explanation]
        if one.differences:
            lines += ["", "What differs from the paper's setup:", ""]
            lines += [f"- {difference}" for difference in one.differences]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
