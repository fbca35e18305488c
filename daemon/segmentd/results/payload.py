"""A `Segmentation` as JSON text and back, for the journal.

Paths are bytes; they are kept readable, as UTF-8 in which JSON escapes what is not UTF-8 (surrogate
escapes), so that any file name comes back as it was.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from segmentd.records import (
    ClassInfo,
    DriftChange,
    DriftMeasure,
    Fault,
    PlaneIndex,
    Segmentation,
    SegmentationState,
)

_PATHS = ("source", "source_path", "renamed_from")


def encode_segmentation(segmentation: Segmentation) -> str:
    """Write a segmentation as one line of ASCII JSON."""
    data = _values(segmentation)
    for name in _PATHS:
        data[name] = data[name].decode("utf-8", "surrogateescape")
    fault = segmentation.fault
    data |= {
        "state": segmentation.state.value,
        "fault": fault
        and {"reason": fault.reason, "message": fault.message, "metadata": dict(fault.metadata)},
        "plane": _values(segmentation.plane),
        "classes": [_values(item) for item in segmentation.classes],
        "files": dict(segmentation.files),
        "digests": dict(segmentation.digests),
        "drift": segmentation.drift
        and _values(segmentation.drift) | {"measures": [*map(_values, segmentation.drift.measures)]},
    }
    return json.dumps(data, separators=(",", ":"))


def _values(record: Segmentation | PlaneIndex | ClassInfo | DriftChange | DriftMeasure) -> dict[str, Any]:
    """Return a record's fields by name; `dataclasses.asdict` copies in depth and takes ten times as long."""
    return {item.name: getattr(record, item.name) for item in fields(record)}


def decode_segmentation(text: str) -> Segmentation:
    """Read what `encode_segmentation` wrote; fields that an older daemon did not have get their default."""
    data = json.loads(text)
    data |= {name: data[name].encode("utf-8", "surrogateescape") for name in _PATHS if name in data}
    data |= {
        "state": SegmentationState(data["state"]),
        "fault": data["fault"] and Fault(**data["fault"]),
        "plane": PlaneIndex(**data["plane"]),
        "classes": tuple(ClassInfo(**item) for item in data["classes"]),
        "label_pixel_counts": tuple(data["label_pixel_counts"]),
    }
    if data.get("drift"):
        measures = tuple(DriftMeasure(**item) for item in data["drift"].pop("measures"))
        data["drift"] = DriftChange(**data["drift"], measures=measures)
    return Segmentation(**data)
