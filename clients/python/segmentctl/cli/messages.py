"""Messages of the API as JSON and as words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2  # noqa: F401  # JSON of an error needs the types of its details

from segmentctl.cli.connection import printable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from segmentctl.subscription import Result
    from segmentd.v1.segmentation_service_pb2 import Segmentation


def as_dict(message: Message) -> dict[str, Any]:
    """Give a message as proto3 JSON with the names of the proto file, fields at their default too."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def event_line(result: Result) -> str:
    """Give one line of JSON for a result: its segmentation, and `number` and `cursor`, or `preview`."""
    place = {"preview": True} if result.preview else {"number": result.number, "cursor": result.cursor}
    return json.dumps({**place, **as_dict(result.segmentation)})


def source_text(segmentation: Segmentation) -> str:
    """Give the name of an image, and of the plane where it has several."""
    plane = segmentation.plane
    text = printable(segmentation.source_display)
    if segmentation.plane_count == 1:
        return text
    return f"{text} scene {plane.scene} time {plane.time} z {plane.z}"


def shares_text(segmentation: Segmentation) -> str:
    """Give the share of each class in percent, and of unlabelled pixels if there are any."""
    counts = list(segmentation.label_pixel_counts)
    total = sum(counts)
    if total == 0:
        return ""
    names = {0: "unlabelled"} | {entry.value: entry.display_name for entry in segmentation.classes}
    return ", ".join(
        f"{printable(names.get(label, f'label {label}'))} {100 * count / total:.1f} %"
        for label, count in enumerate(counts)
        if label > 0 or count > 0
    )


def seconds_text(seconds: float) -> str:
    """Give a duration with a sensible unit."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    hours, days = minutes // 60, minutes // 1440
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def enum_text(message: Message, field: str) -> str:
    """Give the value of an enum field in lower case, without the enum's name."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None
    value = enum.values_by_number.get(getattr(message, field))
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return "unknown" if value is None else value.name.removeprefix(prefix).lower()


def with_reason(text: str, reason: str) -> str:
    """Give a state with its reason, if there is one."""
    return f"{text}: {reason}" if reason else text


def bytes_text(count: int) -> str:
    """Give a size with a sensible unit."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def field_text(value: Any) -> str:
    """Give the value of a field as words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
