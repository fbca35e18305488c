"""Tables of the configuration checked one by one, and watches beside each other.

The same rules hold for the `[[watch]]` of a file and for a watch made over the API.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.settings import problems
from segmentd.settings.schema import Table, WatchSettings

_ROOTS_RULE = "must lie in a folder of server.roots"

T = TypeVar("T", bound=Table)


def read_table(kind: type[T], raw: object, name: str, base: Path | None, found: list[str]) -> T | None:
    """Check one table; what is wrong with it goes to `found`.

    Parameters
    ----------
    kind : type of Table
        What it should be.
    raw : object
        What was read.
    name : str
        What the table is called in problems; "" leaves the key alone.
    base : Path or None
        Where relative paths are meant from; None allows absolute ones only.
    found : list of str
        Gets the problems.
    """
    try:
        return kind.model_validate(raw, context={"base": base})
    except ValidationError as error:
        found += problems.lines(error, name, kind.model_fields)
        return None


def read_watches(
    raw: object, base: Path, roots: Sequence[Path], found: list[str]
) -> tuple[WatchSettings, ...]:
    """Check every watch by itself, and the sound ones beside each other."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        found.append(problems.line("watch", raw, "must be a list of tables, written [[watch]]"))
        return ()
    sound: dict[str, WatchSettings] = {}
    for i, table in enumerate(raw):
        watch = read_table(WatchSettings, table, f"watch[{i}]", base, found)
        if watch is not None:
            prefix = f"watch[{i}]."
            found += _contradictions(watch, prefix)
            if not _within(watch.folder, roots):
                found.append(problems.line(f"{prefix}folder", watch.folder, _ROOTS_RULE))
            found += _clashes(watch, prefix, sound)
            sound[f"watch[{i}]"] = watch
    return tuple(sound.values())


def check_watch(
    raw: Mapping[str, Any], others: Mapping[str, WatchSettings], roots: Sequence[Path]
) -> WatchSettings:
    """Check a watch that was not read from the configuration file.

    Parameters
    ----------
    raw : mapping
        Its keys as in `[[watch]]`; paths must be absolute.
    others : mapping
        The watches beside it, by what they are called in problems.
    roots : sequence of Path
        Folders that all its folders must lie in; any will do if there are none. The configuration file
        may send results anywhere, whoever calls over the API may not.

    Raises
    ------
    ConfigurationError
        With every problem as `key = value: rule`.
    SegmentdError
        FOLDER_OUTSIDE_ROOTS, in the same form.
    """
    found: list[str] = []
    watch = read_table(WatchSettings, raw, "", None, found)
    if watch is None:
        raise ConfigurationError(found)
    folders = (("folder", watch.folder), ("results", watch.results_folder), ("after", watch.move_to))
    for key, folder in folders:
        if folder is not None and not _within(folder, roots):
            line = problems.line(key, folder, _ROOTS_RULE)
            raise SegmentdError(Reason.FOLDER_OUTSIDE_ROOTS, line)
    found += [*_contradictions(watch, ""), *_clashes(watch, "", others)]
    if found:
        raise ConfigurationError(found)
    return watch


def given_keys(table: Table) -> dict[str, Any]:
    """Return the keys that were given, not those left at their default, with values as TOML has them."""
    return {key: _plain(value) for key, value in dict(table).items() if key in table.model_fields_set}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _within(folder: Path, roots: Sequence[Path]) -> bool:
    real = Path(os.path.realpath(folder))
    return not roots or any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _contradictions(watch: WatchSettings, prefix: str) -> Iterator[str]:
    """Find what keys of one watch break together."""
    if watch.give_up < watch.settle_seconds:
        rule = f"must be >= settle_seconds ({watch.settle_seconds:g})"
        yield problems.line(f"{prefix}give_up_seconds", watch.give_up_seconds, rule)
    if os.path.realpath(watch.results_folder) == os.path.realpath(watch.folder):
        yield problems.line(f"{prefix}results", watch.results_folder, "must not be the watched folder")
    if watch.labels_inside and watch.move_to:
        rule = "must be false where images are moved away: the labels would go with them"
        yield problems.line(f"{prefix}labels_inside", watch.labels_inside, rule)
    taken = [os.path.realpath(path) for path in (watch.folder, watch.results_folder)]
    if watch.move_to and os.path.realpath(watch.move_to) in taken:
        rule = "must not move images to the watched folder or among the results"
        yield problems.line(f"{prefix}after", watch.after, rule)


def _clashes(watch: WatchSettings, prefix: str, others: Mapping[str, WatchSettings]) -> Iterator[str]:
    """Find what a watch has in common with another one that each must have for itself."""
    for name, other in others.items():
        if watch.id == other.id:
            yield problems.line(f"{prefix}id", watch.id, f"must differ from {name}.id")
        if os.path.realpath(watch.folder) == os.path.realpath(other.folder):
            yield problems.line(f"{prefix}folder", watch.folder, f"must differ from {name}.folder")
        elif os.path.realpath(watch.results_folder) == os.path.realpath(other.results_folder):
            rule = f"must differ from the results folder of {name}"
            yield problems.line(f"{prefix}results", watch.results_folder, rule)
