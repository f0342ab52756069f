"""What a judged claim is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["NOT", "REPRODUCED", "UNTESTED", "Finding", "Judged", "Verdict", "overall", "untested"]

Verdict = Literal["reproduced", "not reproduced", "can't be tested here"]
REPRODUCED: Verdict = "reproduced"
NOT: Verdict = "not reproduced"
UNTESTED: Verdict = "can't be tested here"


@dataclass(frozen=True)
class Finding:
    """One measured quantity against its threshold.

    Attributes
    ----------
    what
        Dataset, protocol or pair it is about.
    measured, published
        What was found here, and what the paper has (empty where it has nothing to compare).
    verdict
        Of this quantity alone.
    """

    what: str
    measured: str
    verdict: Verdict
    published: str = ""


@dataclass(frozen=True)
class Judged:
    """One of the paper's claims with its verdict.

    Attributes
    ----------
    identifier, claim, where
        As in the packaged claims.csv.
    verdict
        By the call protocol where the claim is about time: it is what a training step pays.
    threshold
        What would count as reproduced, and why that.
    findings
        The quantities behind the verdict, protocol by protocol.
    differences
        What in the setup differs from the paper's and bears on this claim.
    explanation
        Where it is not reproduced: by how much, and why, from the phase breakdown.
    """

    identifier: str
    claim: str
    where: str
    verdict: Verdict
    threshold: str
    findings: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    explanation: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the claim as JSON values."""
        return asdict(self)


def overall(verdicts: Iterable[Verdict], *, every: bool) -> Verdict:
    """Join the verdicts on the parts of a claim.

    One part that is not reproduced decides. With ``every`` the claim is a conjunction, and a part
    that was not tested leaves it open; without, it is a statement about whatever was tested.
    """
    parts = list(verdicts)
    tested = [verdict for verdict in parts if verdict != UNTESTED]
    if NOT in tested:
        return NOT
    return UNTESTED if not tested or (every and len(tested) < len(parts)) else REPRODUCED


def untested(why: str, what: str = "all") -> Sequence[Finding]:
    """Return the one finding that says why there is none."""
    return [Finding(what, why, UNTESTED)]
