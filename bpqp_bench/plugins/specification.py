"""Specifications like ``bpqp[backward=direct,forward=proxqp]``: one text form for a plug-in."""

from __future__ import annotations

import re

from bpqp_bench.errors import SpecError

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(\[(?P<body>[^\[\]]*)\])?")


def parse_spec(text: str) -> tuple[str, dict[str, str]]:
    """Split ``name[key=value,…]``; values stay text until the plug-in's defaults give types.

    Raises
    ------
    SpecError
        If the text has another form.
    """
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{text!r} is not of the form name or name[key=value,…]")
    found: dict[str, str] = {}
    for item in filter(None, (match["body"] or "").split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"{item!r} in {text!r} is not of the form key=value")
        found[key.strip()] = value.strip()
    return match["name"], found
