"""What is told of an image that ended: its segmentations with the names that they have in the journal."""

from __future__ import annotations

import time
from dataclasses import replace

from segmentd.ingest.folder import FoundFile
from segmentd.models.bundle import reference_id
from segmentd.records import Fault, Segmentation, SegmentationState, WatchSpec


def about(spec: WatchSpec, found: FoundFile, record: Segmentation, version: int) -> Segmentation:
    """The segmentation of a plane, with the names and times of its image; durable from now on."""
    return replace(
        record,
        watch=spec.id,
        source=found.relative,
        source_path=found.path,
        version=version,
        source_time=found.stamp.mtime_ns / 1e9,
        create_time=time.time(),
        latency_seconds=max(0.0, time.monotonic() - found.complete_time_monotonic),
    )


def failure(spec: WatchSpec, found: FoundFile, fault: Fault, version: int) -> Segmentation:
    """The one segmentation of an image that failed."""
    failed = Segmentation(
        watch="",
        source=b"",
        source_path=b"",
        state=SegmentationState.FAILED,
        fault=fault,
        model=reference_id(spec.model),
    )
    return about(spec, found, failed, version)
