"""What the daemon says about itself: log lines for people and machines, stage timers, counters.

log = get_logger(__name__)
log.warning("folder unreachable", folder=path, retry_seconds=4)

with stage("read"):
    ...
"""

from __future__ import annotations

from segmentd.telemetry.logs import (
    FORMAT_VARIABLE,
    FORMATS,
    LEVEL_VARIABLE,
    LEVELS,
    Logger,
    configure,
    get_logger,
    printable,
)
from segmentd.telemetry.meter import (
    METER,
    Histogram,
    LastMinute,
    Meter,
    StageTotal,
    count,
    observe,
    stage,
)
from segmentd.telemetry.timeline import Timeline, annotate, in_context, note, traced

__all__ = [
    "FORMATS",
    "FORMAT_VARIABLE",
    "LEVELS",
    "LEVEL_VARIABLE",
    "METER",
    "Histogram",
    "LastMinute",
    "Logger",
    "Meter",
    "StageTotal",
    "Timeline",
    "annotate",
    "configure",
    "count",
    "get_logger",
    "in_context",
    "note",
    "observe",
    "printable",
    "stage",
    "traced",
]
