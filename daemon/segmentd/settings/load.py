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
from segmentd.settings import open_inference, problems
from segmentd.settings.access import contradictions
from segmentd.settings.observing import MetricsSettings, TracingSettings
from segmentd.settings.schema import (
    DeviceSettings,
    JournalSettings,
    ModelSettings,
    OpenInferenceSettings,
    ServerSettings,
    Table,
    TrainingSettings,
    WatchSettings,
)
from segmentd.settings.tables import read_table, read_watches

CONFIG_VARIABLE = "SEGMENTD_CONFIG"


class Settings(Table):
    """The whole configuration; without a file, all of it defaults."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    open_inference: OpenInferenceSettings = Field(default_factory=OpenInferenceSettings)
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
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
    face = read_table(OpenInferenceSettings, data.get("open_inference", {}), "open_inference", base, found)
    found += open_inference.contradictions(data)
    device = read_table(DeviceSettings, data.get("device", {}), "device", base, found)
    models = read_table(ModelSettings, data.get("models", {}), "models", base, found)
    training = read_table(TrainingSettings, data.get("training", {}), "training", base, found)
    journal = read_table(JournalSettings, data.get("journal", {}), "journal", base, found)
    metrics = read_table(MetricsSettings, data.get("metrics", {}), "metrics", base, found)
    watches = read_watches(data.get("watch", []), base, server.roots if server else (), found)
    tracing = read_table(TracingSettings, data.get("tracing", {}), "tracing", base, found)
    if found or not (server and face and device and models and training and journal and metrics and tracing):
        raise ConfigurationError(found)
    return Settings(
        server=open_inference.with_room(server, face),
        open_inference=face,
        device=device,
        models=models,
        training=training,
        journal=journal,
        metrics=metrics,
        tracing=tracing,
        watch=watches,
    )
