"""From the TOML file to `Settings`, or to the list of everything that is wrong with it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from segmentd.errors import ConfigurationError
from segmentd.records import WatchSpec
from segmentd.settings import problems
from segmentd.settings.access import contradictions
from segmentd.settings.schema import (
    DeviceSettings,
    JournalSettings,
    ModelSettings,
    ServerSettings,
    Table,
    WatchSettings,
)
from segmentd.settings.tables import read_table, read_watches

CONFIG_VARIABLE = "SEGMENTD_CONFIG"


class Settings(Table):
    """The whole configuration; without a file, all of it defaults."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    watch: tuple[WatchSettings, ...] = ()

    @property
    def training_folder(self) -> Path:
        """Where trainings are kept."""
        return self.models.training_folder or self.journal.folder.parent / "training"

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
    server = read_table(ServerSettings, data.get("server", {}), "server", base, found)
    found += contradictions(data.get("server"))
    device = read_table(DeviceSettings, data.get("device", {}), "device", base, found)
    models = read_table(ModelSettings, data.get("models", {}), "models", base, found)
    journal = read_table(JournalSettings, data.get("journal", {}), "journal", base, found)
    watches = read_watches(data.get("watch", []), base, server.roots if server else (), found)
    if found or server is None or device is None or models is None or journal is None:
        raise ConfigurationError(found)
    return Settings(server=server, device=device, models=models, journal=journal, watch=watches)
