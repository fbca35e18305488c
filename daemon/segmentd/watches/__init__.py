"""Watch resources: one running pipeline for each active watch, made by the configuration or over the API."""

from __future__ import annotations

from segmentd.watches.collection import Watches
from segmentd.watches.parts import Parts
from segmentd.watches.status import WatchLoad, WatchStatus
from segmentd.watches.watch import Watch

__all__ = ["Parts", "Watch", "WatchLoad", "WatchStatus", "Watches"]
