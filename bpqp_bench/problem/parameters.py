"""Parameters of a plug-in: their types come from the defaults, and equal ones print alike."""

from __future__ import annotations

from collections.abc import Mapping

from bpqp_bench.errors import SpecError

Parameters = Mapping[str, object]


def format_spec(name: str, parameters: Parameters) -> str:
    """Print a name and its non-default parameters, keys sorted: equal things print alike."""
    if not parameters:
        return name
    body = ",".join(f"{key}={_show(parameters[key])}" for key in sorted(parameters))
    return f"{name}[{body}]"


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
