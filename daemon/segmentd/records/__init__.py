"""The records that flow through the daemon: frozen, plain, without behaviour worth a test.

Frame -> Plane(C, Y, X) -> Tile -> FeatureStack(F, h, w) -> ClassScores(K, h, w) -> Segmentation ->
ResultEvent. Tiles, feature stacks and class scores are plain arrays and have no record.
"""

from __future__ import annotations

from segmentd.records.images import (
    FilePart,
    FileStamp,
    FrameInfo,
    PixelSize,
    PixelType,
    Plane,
    PlaneIndex,
    Region,
)
from segmentd.records.models import (
    ClassInfo,
    ModelCard,
    SegmentOptions,
)
from segmentd.records.segmentations import (
    DriftChange,
    DriftMeasure,
    Fault,
    ResultEvent,
    ResultForm,
    Segmentation,
    SegmentationState,
)
from segmentd.records.watches import (
    WatchSpec,
)

__all__ = [
    "ClassInfo",
    "DriftChange",
    "DriftMeasure",
    "Fault",
    "FilePart",
    "FileStamp",
    "FrameInfo",
    "ModelCard",
    "PixelSize",
    "PixelType",
    "Plane",
    "PlaneIndex",
    "Region",
    "ResultEvent",
    "ResultForm",
    "SegmentOptions",
    "Segmentation",
    "SegmentationState",
    "WatchSpec",
]
