"""Tables, figures, verdicts on the claims and the page: everything a run has to say."""

from __future__ import annotations

from bpqp_bench.report.render import render_report

__all__ = ["render_report"]
