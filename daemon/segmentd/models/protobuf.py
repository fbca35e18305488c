"""Reads protobuf messages by a table of allowed fields; whatever is not in the table is refused.

A generated parser skips fields that it does not know and merges fields that come twice, so what it shows
need not be what another parser sees. Here a message that holds more than the table, or a single field
twice, is an error. Numbers of tensors are counted where they lie and never copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

MAX_FIELDS = 2_000_000
MAX_TEXT_BYTES = 1 << 20
MAX_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Kind(Enum):
    """What a field that is no message holds."""

    INT = "a whole number"
    FLOAT = "a float, read over"
    TEXT = "UTF-8 text"
    BYTES = "bytes, as a view"
    INTS = "whole numbers"
    COUNT_VARINTS = "how many whole numbers there are"
    COUNT_FIXED32 = "how many 32-bit numbers there are"
    COUNT_FIXED64 = "how many 64-bit numbers there are"


@dataclass(frozen=True)
class FieldRule:
    """A field that may occur: its name, what it holds (a message by name), and whether more than once."""

    name: str
    kind: Kind | str
    repeated: bool = False


Schema = Mapping[str, Mapping[int, FieldRule]]
Message = dict[str, Any]
_ONE_NUMBER = {Kind.COUNT_FIXED32: (_FIXED32, 4), Kind.COUNT_FIXED64: (_FIXED64, 8)}


class Reader:
    """Reads one message and those within; `schema` tells the fields of each message."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._fields_left = MAX_FIELDS

    def read(self, data: memoryview, name: str, depth: int = 0) -> Message:
        """The fields of message `name`: a list for repeated ones, a number for those that are counted.

        Raises
        ------
        ValueError
            Saying what is not allowed, or that the data ends within a field.
        """
        if depth > MAX_DEPTH:
            raise ValueError(f"messages are nested more than {MAX_DEPTH} deep")
        rules = self._schema[name]
        out: Message = {}
        for number, wire, value in _fields(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS:,} fields")
            rule = rules.get(number)
            if rule is None:
                raise ValueError(f"{name} has the field {number}, which is not allowed")
            where = f"{name}.{rule.name}"
            if isinstance(rule.kind, str):
                item: Any = self.read(_bytes(where, wire, value), rule.kind, depth + 1)
            else:
                item = self._plain(where, rule.kind, wire, value)
            self._put(out, rule, item, where)
        return out

    def _put(self, out: Message, rule: FieldRule, item: Any, where: str) -> None:
        if rule.kind is Kind.INTS:
            out.setdefault(rule.name, []).extend(item)
        elif rule.kind in (Kind.COUNT_VARINTS, *_ONE_NUMBER):
            out[rule.name] = out.get(rule.name, 0) + item
        elif rule.repeated:
            out.setdefault(rule.name, []).append(item)
        elif rule.name in out:
            raise ValueError(f"{where} is given twice")
        else:
            out[rule.name] = item

    def _plain(self, where: str, kind: Kind, wire: int, value: int | memoryview) -> Any:
        match kind:
            case Kind.INT if wire == _VARINT and isinstance(value, int):
                return value - (1 << 64) if value >> 63 else value
            case Kind.FLOAT if wire == _FIXED32:
                return None
            case Kind.BYTES:
                return _bytes(where, wire, value)
            case Kind.TEXT:
                return _text(where, _bytes(where, wire, value))
            case Kind.INTS:
                return self._ints(where, wire, value)
            case Kind.COUNT_VARINTS if isinstance(value, int) and wire == _VARINT:
                return 1
            case Kind.COUNT_VARINTS:
                packed = np.frombuffer(_bytes(where, wire, value), np.uint8)
                return int(np.count_nonzero(packed < 0x80))
            case Kind.COUNT_FIXED32 | Kind.COUNT_FIXED64:
                single, size = _ONE_NUMBER[kind]
                if wire == single:
                    return 1
                count, rest = divmod(len(_bytes(where, wire, value)), size)
                if not rest:
                    return count
        raise ValueError(f"{where} is not {kind.value}")

    def _ints(self, where: str, wire: int, value: int | memoryview) -> list[int]:
        if wire == _VARINT and isinstance(value, int):
            numbers = [value]
        else:
            packed, numbers, at = _bytes(where, wire, value), [], 0
            while at < len(packed):
                number, at = varint(packed, at)
                numbers.append(number)
        self._fields_left -= len(numbers)
        return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError("it is no network, or damaged")
        if size > len(data) - at:
            raise ValueError("it ends in the middle: the file was cut off, or is no network")
        yield number, wire, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where the next field begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends in the middle: the file was cut off, or is no network")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, at
    raise ValueError("it has a number of more than 64 bits")


def _bytes(where: str, wire: int, value: int | memoryview) -> memoryview:
    if wire != _BYTES or not isinstance(value, memoryview):
        raise ValueError(f"{where} is not what it should be")
    return value


def _text(where: str, data: memoryview) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"{where} is longer than {MAX_TEXT_BYTES:,} bytes")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8 text") from None
