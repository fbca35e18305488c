"""From the TOML file to `Settings`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from segmentd.errors import ConfigurationError
from segmentd.records import WatchSpec
from segmentd.settings import problems
from segmentd.settings.schema import (
    DeviceSettings,
    JournalSettings,
    ModelSettings,
    ServerSettings,
    Table,
    WatchSettings,
)

CONFIG_VARIABLE = "SEGMENTD_CONFIG"

T = TypeVar("T", bound=Table)


class Settings(Table):
    """The whole configuration; without a file, all of it defaults."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    watch: tuple[WatchSettings, ...] = ()

    def watch_specs(self) -> tuple[WatchSpec, ...]:
        """Return the watches as the daemon runs them, in the order of the file."""
        return tuple(watch.spec() for watch in self.watch)


def load(path: Path | None) -> Settings:
    """Read and check the configuration.

    Parameters
    ----------
    path : Path or None
        The TOML file. None means the file that the environment variable SEGMENTD_CONFIG names, and
        embedded defaults where it names none.

    Raises
    ------
    ConfigurationError
        With every problem of the file, each as `key = value: rule`.
    """
    if path is None:
        named = os.environ.get(CONFIG_VARIABLE, "")
        if not named:
            return Settings()
        path = Path(named)
    return parse(_read(path), path.absolute().parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigurationError([f"{path}: cannot be read ({cause}); name a TOML file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path}: must be UTF-8 text; byte {error.start} is not"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{path}: must be TOML; {error}"]) from None


def parse(data: Mapping[str, Any], base: Path) -> Settings:
    """Check a configuration that has been read; relative paths are meant from the folder `base`.

    Raises
    ------
    ConfigurationError
        With every problem, each as `key = value: rule`.
    """
    found = [
        problems.unknown(key, value, key, Settings.model_fields)
        for key, value in data.items()
        if key not in Settings.model_fields
    ]
    server = _table(ServerSettings, data.get("server", {}), "server", base, found)
    device = _table(DeviceSettings, data.get("device", {}), "device", base, found)
    models = _table(ModelSettings, data.get("models", {}), "models", base, found)
    journal = _table(JournalSettings, data.get("journal", {}), "journal", base, found)
    watches = _watches(data.get("watch", []), base, server.roots if server else (), found)
    if found or server is None or device is None or models is None or journal is None:
        raise ConfigurationError(found)
    return Settings(server=server, device=device, models=models, journal=journal, watch=watches)


def _table(kind: type[T], raw: object, name: str, base: Path, found: list[str]) -> T | None:
    """Check one table; what is wrong with it goes to `found`."""
    try:
        return kind.model_validate(raw, context={"base": base})
    except ValidationError as error:
        found += problems.lines(error, name, kind.model_fields)
        return None


def _watches(raw: object, base: Path, roots: Sequence[Path], found: list[str]) -> tuple[WatchSettings, ...]:
    """Check every watch by itself, and the sound ones beside each other."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        found.append(problems.line("watch", raw, "must be a list of tables, written [[watch]]"))
        return ()
    sound: dict[int, WatchSettings] = {}
    for i, table in enumerate(raw):
        watch = _table(WatchSettings, table, f"watch[{i}]", base, found)
        if watch is not None:
            found += _contradictions(watch, f"watch[{i}]", roots)
            found += _clashes(watch, f"watch[{i}]", sound)
            sound[i] = watch
    return tuple(sound.values())


def _contradictions(watch: WatchSettings, key: str, roots: Sequence[Path]) -> Iterator[str]:
    """Find what keys of one watch break together, or with the server's roots."""
    folder = os.path.realpath(watch.folder)
    if watch.give_up < watch.settle_seconds:
        rule = f"must be >= settle_seconds ({watch.settle_seconds:g})"
        yield problems.line(f"{key}.give_up_seconds", watch.give_up_seconds, rule)
    if os.path.realpath(watch.results_folder) == folder:
        yield problems.line(f"{key}.results", watch.results_folder, "must not be the watched folder")
    if watch.move_to and os.path.realpath(watch.move_to) in (folder, os.path.realpath(watch.results_folder)):
        rule = "must not move images to the watched folder or among the results"
        yield problems.line(f"{key}.after", watch.after, rule)
    if roots and not any(Path(folder).is_relative_to(os.path.realpath(root)) for root in roots):
        yield problems.line(f"{key}.folder", watch.folder, "must lie in a folder of server.roots")


def _clashes(watch: WatchSettings, key: str, earlier: Mapping[int, WatchSettings]) -> Iterator[str]:
    """Find what a watch has in common with an earlier one that each must have for itself."""
    for i, other in earlier.items():
        if watch.id == other.id:
            yield problems.line(f"{key}.id", watch.id, f"must differ from watch[{i}].id")
        if os.path.realpath(watch.folder) == os.path.realpath(other.folder):
            yield problems.line(f"{key}.folder", watch.folder, f"must differ from watch[{i}].folder")
        elif os.path.realpath(watch.results_folder) == os.path.realpath(other.results_folder):
            rule = f"must differ from the results folder of watch[{i}]"
            yield problems.line(f"{key}.results", watch.results_folder, rule)
