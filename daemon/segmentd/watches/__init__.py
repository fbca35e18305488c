"""Watch resources: one running pipeline for each active watch, made by the configuration or over the API."""

from __future__ import annotations

from segmentd.watches.collection import Watches
from segmentd.watches.watch import Parts, Watch, WatchLoad, WatchStatus

__all__ = ["Parts", "Watch", "WatchLoad", "WatchStatus", "Watches"]
