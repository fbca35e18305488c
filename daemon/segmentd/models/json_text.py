"""Reads JSON of a file from outside: bounded, no key twice, no NaN. Unknown keys are left to the caller."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_BYTES = 1 << 20
MAX_DEPTH = 64


def parse(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `data`; `name` is what to call it in an error.

    Raises
    ------
    ValueError
        With the rule that is broken.
    """
    if not data or len(data) > MAX_BYTES:
        raise ValueError(f"{name} is missing or larger than {MAX_BYTES} bytes")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError(f"{name} names a key twice")
        return dict(pairs)

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"{name} holds {text}, which is no number")

    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no JSON object")
    _check_depth(value, name)
    return value


def _check_depth(value: object, name: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"{name} is nested too deeply")
