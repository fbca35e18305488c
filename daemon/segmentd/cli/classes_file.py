"""Reads the `--classes` file: TOML `[[class]]` with value, name and colour."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import default_color
from segmentd.records import ClassInfo

RESERVED_NAMES = ("Root",)


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """Classes in the order of their values.

    Raises
    ------
    SegmentdError
        BAD_TRAINING_DATA with everything that is wrong with the file, a line each.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("class", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SegmentdError(Reason.BAD_TRAINING_DATA, f"{path}: cannot be read: {error}") from error
    problems: list[str] = []
    classes = [_class(entry, f"{path}: class[{i}]", problems) for i, entry in enumerate(entries)]
    values = [entry.value for entry in classes]
    names = [entry.name for entry in classes]
    if sorted(values) != list(range(1, len(values) + 1)) or not 2 <= len(values) <= 255:
        problems.append(f"{path}: values are {values}: must be 1, 2, ... without gaps, two classes at least")
    if len(set(names)) != len(names):
        problems.append(f"{path}: names are {names}: must differ")
    if problems:
        raise SegmentdError(Reason.BAD_TRAINING_DATA, "\n".join(problems))
    return tuple(sorted(classes, key=lambda entry: entry.value))


def _class(entry: object, where: str, problems: list[str]) -> ClassInfo:
    table = entry if isinstance(entry, dict) else {}
    unknown = sorted(table.keys() - {"value", "name", "color"})
    problems.extend(f"{where}.{key}: unknown key; the keys are value, name, color" for key in unknown)
    value, name, color = table.get("value"), table.get("name"), table.get("color")
    if type(value) is not int:
        problems.append(f"{where}.value = {value!r}: must be a whole number")
        value = 0
    if not isinstance(name, str) or not name.strip() or name in RESERVED_NAMES:
        problems.append(f"{where}.name = {name!r}: must be a text, not empty and not {RESERVED_NAMES[0]}")
        name = ""
    if color is None:
        color = default_color(max(value, 1))
    if not isinstance(color, str) or not re.fullmatch("#[0-9A-Fa-f]{6}", color):
        problems.append(f"{where}.color = {color!r}: must be #RRGGBB")
        color = "#000000"
    return ClassInfo(value, name, color.upper())
