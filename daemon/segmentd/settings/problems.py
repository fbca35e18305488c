"""Faults of a configuration as lines `key = value: rule`, in the words of the TOML file."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MISSING = object()
_LONGEST_VALUE = 200

# What pydantic finds wrong, by its stable error types, as a rule on the value.
_RULES = {
    "missing": "must be given",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "model_type": "must be a table",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than_equal": "must be <= {le:g}",
    "literal_error": "must be one of {expected}",
    "rule": "{rule}",
}


def line(key: str, value: object, rule: str) -> str:
    """Return one problem as `key = value: rule`."""
    return f"{key} = {_short(value)}: {rule}"


def _short(value: object) -> str:
    text = "(missing)" if value is MISSING else toml(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def toml(value: object) -> str:
    """Return a value as TOML has it, on one line."""
    if isinstance(value, bool | int | float):  # TOML writes nan and inf in lower case
        return json.dumps(value) if math.isfinite(value) else str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable())


def unknown(key: str, value: object, name: str, known: Iterable[str]) -> str:
    """Return the problem of a key `name` that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    rule = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
    return line(key, value, f"unknown key; {rule}")


def lines(error: ValidationError, table: str, known: Iterable[str]) -> list[str]:
    """Return the problems of one table.

    Parameters
    ----------
    error : ValidationError
        What pydantic found wrong with it.
    table : str
        The table as TOML names it, `server` or `watch[0]`; "" for the bare key.
    known : iterable of str
        The keys that the table may have.
    """
    return [_problem(detail, table, known) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails, table: str, known: Iterable[str]) -> str:
    kind, location = detail["type"], detail["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    key = f"{table}{path}".removeprefix(".")
    if kind == "extra_forbidden":
        return unknown(key, detail["input"], str(location[-1]), known)
    rule = _RULES.get(kind, "")
    rule = rule.format(**_words(detail.get("ctx", {}))) if rule else detail["msg"]
    return line(key, MISSING if kind == "missing" else detail["input"], rule)


def _words(context: dict[str, Any]) -> dict[str, Any]:
    """Turn pydantic's `'auto', 'cpu' or 'cuda'` into TOML's quotes; the rest stays."""
    expected = context.get("expected")
    return context | {"expected": expected.replace("'", '"')} if isinstance(expected, str) else context
