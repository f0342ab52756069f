"""What a judged claim is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["reproduced", "not reproduced", "can't be tested here", "depends on the reading"]
REPRODUCED: Verdict = "reproduced"
NOT: Verdict = "not reproduced"
UNTESTED: Verdict = "can't be tested here"
MIXED: Verdict = "depends on the reading"


@dataclass(frozen=True)
class Finding:
    """One measured quantity against its threshold.

    Attributes
    ----------
    what
        Dataset, size or pair it is about.
    measured, published
        What was found here, and what the paper has (empty where it has nothing to compare).
    verdict
        Of this quantity alone.
    reading
        Key of the reading that it belongs to, where the claim has several.
    """

    what: str
    measured: str
    verdict: Verdict
    published: str = ""
    reading: str = ""


@dataclass(frozen=True)
class Judged:
    """One of the paper's claims with its verdict.

    Attributes
    ----------
    identifier, claim, where
        As in the packaged claims.csv.
    verdict
        Of all readings together: theirs where they agree.
    threshold
        What would count as reproduced, and why that.
    findings
        The quantities behind the verdict, reading by reading.
    differences
        What in the setup differs from the paper's and bears on this claim.
    explanation
        Where it is not reproduced: by how much, and why, from the phase breakdown.
    readings
        Verdict of each reading, where there are several.
    contrast
        Where the readings differ and why, in one sentence.
    """

    identifier: str
    claim: str
    where: str
    verdict: Verdict
    threshold: str
    findings: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    explanation: str = ""
    readings: Mapping[str, Verdict] = field(default_factory=dict)
    contrast: str = ""

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


def by_readings(readings: Mapping[str, Verdict]) -> Verdict:
    """Join the verdicts of several readings: theirs where those that were tested agree.

    A claim is about the published configuration: without a reading of it nothing is decided.
    """
    tested = set(readings.values()) - {UNTESTED}
    if all(verdict == UNTESTED for key, verdict in readings.items() if key != "best"):
        return UNTESTED
    return MIXED if len(tested) > 1 else tested.pop()


def untested(why: str, what: str = "all", reading: str = "") -> Sequence[Finding]:
    """Return the one finding that says why there is none."""
    return [Finding(what, why, UNTESTED, reading=reading)]
