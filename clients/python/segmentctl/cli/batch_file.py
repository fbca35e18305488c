"""The list that `segmentctl batch` works off."""

from __future__ import annotations

import csv
import glob
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmentctl.cli.jobs import Confidence, Job

KEYS = ("image", "model", "out", "min_confidence", "postprocessing", "confidence")


class BatchFileError(Exception):
    """A list that cannot be worked off: which file and entry, what is wrong with it."""


def read_jobs(file: Path) -> list[Job]:
    """Read a list, and find the images of its patterns.

    Raises
    ------
    BatchFileError
        If the file cannot be read, has an unknown key or a value that is not allowed, or no images.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin their CSV files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise BatchFileError(f"{file} cannot be read: {error}") from error
    readers = {".csv": _csv_entries, ".toml": _toml_entries}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise BatchFileError(f"{file}: a list is a .csv or .toml file")
    jobs: list[Job] = []
    for where, entry in reader(text, str(file)):
        jobs += _jobs(entry, where, file.parent)
    if not jobs:
        raise BatchFileError(f"{file} names no images")
    return jobs


def _csv_entries(text: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    first = text.partition("\n")[0]
    rows = csv.DictReader(text.splitlines(), delimiter=";" if ";" in first else ",", strict=True)
    entries = []
    try:
        for row in rows:
            where = f"{file}, line {rows.line_num}"
            if None in row or None in row.values():
                raise BatchFileError(f"{where}: has not as many values as the first line has names")
            entries.append(
                (where, {key.strip(): value.strip() for key, value in row.items() if value.strip()})
            )
    except csv.Error as error:
        raise BatchFileError(f"{file}, line {rows.line_num}: {error}") from error
    return [(where, entry) for where, entry in entries if entry]


def _toml_entries(text: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        common = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BatchFileError(f"{file}: {error}") from error
    listed = common.pop("job", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BatchFileError(f"{file}: write [[job]] before the keys of each image")
    return [(f"{file}, job {number}", common | entry) for number, entry in enumerate(listed, 1)]


def _jobs(entry: Mapping[str, Any], where: str, folder: Path) -> list[Job]:
    unknown = sorted(entry.keys() - set(KEYS))
    if unknown:
        raise BatchFileError(f"{where}: unknown key '{unknown[0]}'; there are {', '.join(KEYS)}")
    for key in ("image", "model"):
        if not isinstance(entry.get(key), str):
            raise BatchFileError(f"{where}: {key} is missing or no text")
    return [
        Job(
            image,
            entry["model"],
            folder / str(entry["out"]) if "out" in entry else None,
            _percent(entry.get("min_confidence", 0), where),
            str(entry.get("postprocessing", "")),
            _confidence(entry.get("confidence", "map"), where),
        )
        for image in _images(folder / entry["image"], where)
    ]


def _images(image: Path, where: str) -> list[Path]:
    """Find the images of a pattern; a file of just that name comes first, as names may have brackets."""
    if image.exists() or not glob.has_magic(image.name):
        return [image]
    found = sorted(path for path in image.parent.glob(image.name) if path.is_file())
    if not found:
        raise BatchFileError(f"{where}: there is no image {image}")
    return found


def _percent(value: object, where: str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and int(text) <= 100):
        raise BatchFileError(f"{where}: min_confidence is '{text}'; it must be a whole number from 0 to 100")
    return int(text)


def _confidence(value: object, where: str) -> Confidence:
    if value not in tuple(Confidence):
        raise BatchFileError(f"{where}: confidence is '{value}'; it must be map or marginal")
    return Confidence(str(value))
