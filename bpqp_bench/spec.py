"""Specifications like ``bpqp[backward=direct,forward=proxqp]``: one text form for a plug-in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bpqp_bench.errors import SpecError

__all__ = ["Parameters", "format_spec", "parse_spec", "typed_parameters"]

Parameters = Mapping[str, object]

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(\[(?P<body>[^\[\]]*)\])?")


def format_spec(name: str, parameters: Parameters) -> str:
    """Print a name and its non-default parameters, keys sorted: equal things print alike."""
    if not parameters:
        return name
    body = ",".join(f"{key}={_show(parameters[key])}" for key in sorted(parameters))
    return f"{name}[{body}]"


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


def typed_parameters(
    what: str, given: Mapping[str, object], defaults: Parameters
) -> dict[str, object]:
    """Convert texts to the types of the defaults and drop those that equal their default.

    Raises
    ------
    SpecError
        If a key is unknown or a value does not convert.
    """
    result: dict[str, object] = {}
    for key, value in given.items():
        if key not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            raise SpecError(f"{what} has no parameter {key!r}; it has: {known}")
        converted = _convert(what, key, value, defaults[key]) if isinstance(value, str) else value
        if converted != defaults[key]:
            result[key] = converted
    return result


def _convert(what: str, key: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() in {"true", "yes", "1"}:
            return True
        if text.lower() in {"false", "no", "0"}:
            return False
    elif isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            pass
    elif isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            pass
    else:
        return text
    kind = type(default).__name__
    raise SpecError(f"parameter {key}={text!r} of {what} is not a {kind}")


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # equal texts mean equal values
    return str(value)
