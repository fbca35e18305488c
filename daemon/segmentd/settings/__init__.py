"""What the daemon is told to do: the TOML file, checked whole, or embedded defaults."""

from __future__ import annotations

from segmentd.settings.access import is_loopback
from segmentd.settings.load import CONFIG_VARIABLE, Settings, load, parse
from segmentd.settings.observing import MetricsSettings, TracingSettings
from segmentd.settings.schema import (
    DeviceSettings,
    JournalSettings,
    ModelSettings,
    OpenInferenceSettings,
    ServerSettings,
    TrainingSettings,
    WatchSettings,
)
from segmentd.settings.tables import check_watch, given_keys

__all__ = [
    "CONFIG_VARIABLE",
    "DeviceSettings",
    "JournalSettings",
    "MetricsSettings",
    "ModelSettings",
    "OpenInferenceSettings",
    "ServerSettings",
    "Settings",
    "TracingSettings",
    "TrainingSettings",
    "WatchSettings",
    "check_watch",
    "given_keys",
    "is_loopback",
    "load",
    "parse",
]
