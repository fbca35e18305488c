"""Records to messages and back. Names, units and enums are translated here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import default_color
from segmentd.models.border import original_border
from segmentd.models.registry import ModelEntry
from segmentd.records import (
    ClassInfo,
    DriftChange,
    PixelSize,
    PixelType,
    PlaneIndex,
    Region,
    ResultEvent,
    Segmentation,
)
from segmentd.rpc.faults import bad_field, status_of
from segmentd.rpc.host_paths import without_folders
from segmentd.settings.values import MODEL_SUFFIXES
from segmentd.v1 import model_service_pb2, pixels_pb2, segmentation_service_pb2

MAX_PAGE = 1000
DEFAULT_PAGE = 100


def printable(path: bytes) -> str:
    r"""A path for people: whatever is not printable text is escaped as `\xNN`."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8"))
        for char in text
    )


def timestamp(seconds: float) -> Timestamp | None:
    """Seconds since the epoch; 0 is "not known"."""
    if not seconds:
        return None
    out = Timestamp()
    out.FromNanoseconds(round(seconds * 1e9))
    return out


def duration(seconds: float) -> Duration:
    """Seconds as a Duration."""
    out = Duration()
    out.FromNanoseconds(round(seconds * 1e9))
    return out


def resource_id(name: str, collection: str, field: str = "name") -> str:
    """The id in `collection/id`."""
    head, _, identity = name.partition("/")
    if head != collection or not identity:
        raise bad_field(field, f"'{name}' must have the form {collection}/ID")
    return identity


def model_reference(name: str, field: str = "name") -> str:
    """The id or display name in `models/{model}`; a path is not a name, callers may not open files."""
    reference = resource_id(name, "models", field)
    if "/" in reference or reference.endswith(MODEL_SUFFIXES):
        raise bad_field(field, f"'{name}' must name a model by its id or display name, not by a path")
    return reference


def page_size(requested: int) -> int:
    """The number of items of a page; AIP-158."""
    if requested < 0:
        raise bad_field("page_size", f"{requested} must not be negative")
    return min(requested or DEFAULT_PAGE, MAX_PAGE)


def page_start(token: str) -> int:
    """Where a page starts; tokens are decimal positions, opaque to clients."""
    if token and not (token.isascii() and token.isdecimal() and len(token) < 19):
        raise bad_field("page_token", "must be the next_page_token of the answer before")
    return int(token or 0)


def pixel_type_message(pixel_type: PixelType) -> pixels_pb2.PixelType:
    """A pixel type as its enum value."""
    value: pixels_pb2.PixelType = getattr(pixels_pb2, f"PIXEL_TYPE_{pixel_type.name}")
    return value


def pixel_type_record(value: int, field: str) -> PixelType:
    """An enum value as a pixel type."""
    name = pixels_pb2.PixelType.Name(value) if value in pixels_pb2.PixelType.values() else ""
    short = name.removeprefix("PIXEL_TYPE_")
    if short not in PixelType.__members__:
        raise bad_field(field, f"must be one of {', '.join(PixelType.__members__)}")
    return PixelType[short]


def classes_message(classes: tuple[ClassInfo, ...]) -> list[pixels_pb2.PixelClass]:
    """Classes in the order of their labels."""
    return [
        pixels_pb2.PixelClass(value=entry.value, display_name=entry.name, color=entry.color)
        for entry in classes
    ]


def pixel_size_message(size: PixelSize) -> pixels_pb2.PixelSize:
    """A pixel size in micrometres."""
    return pixels_pb2.PixelSize(y_um=size.y_um, x_um=size.x_um, z_um=size.z_um)


def classes_record(classes: Iterable[pixels_pb2.PixelClass]) -> tuple[ClassInfo, ...]:
    """Classes as records, colours in capitals; one without a colour gets one."""
    return tuple(
        ClassInfo(entry.value, entry.display_name, entry.color.upper() or default_color(entry.value))
        for entry in classes
    )


def plane_message(plane: PlaneIndex) -> pixels_pb2.PlaneIndex:
    """Which plane of an image."""
    return pixels_pb2.PlaneIndex(scene=plane.scene, time=plane.time, z=plane.z)


def region_message(region: Region) -> pixels_pb2.Region:
    """A region of a plane."""
    return pixels_pb2.Region(y=region.y, x=region.x, height=region.height, width=region.width)


def model_message(entry: ModelEntry, device: str) -> model_service_pb2.Model:
    """A model; `device` is where active models are."""
    state = getattr(model_service_pb2.Model, f"STATE_{entry.state}")
    message = model_service_pb2.Model(
        name=f"models/{entry.id}",
        display_name=entry.path.stem,
        state=state,
        state_reason=without_folders(entry.fault.message) if entry.fault else "",
        device=device if entry.state == "ACTIVE" else "",
    )
    card = entry.card
    if card is None:
        return message
    message.display_name = card.display_name
    message.description = card.description
    message.kind = card.kind
    message.feature_set = card.feature_set
    message.normalization = card.normalization
    message.classes.extend(classes_message(card.classes))
    message.pixel_type = pixel_type_message(card.pixel_type)
    message.channel_count = card.channel_count
    message.channels.extend(card.channels)
    message.channel = card.channel or ""
    message.pixel_size.CopyFrom(pixel_size_message(card.pixel_size))
    message.pixel_types.extend(pixel_type_message(one) for one in card.pixel_types)
    message.border_pixels = card.border_px
    message.original_border_pixels = original_border(card)
    message.digest = card.digest
    message.weights_sha256 = card.weights_sha256
    message.postprocessing = card.postprocessing
    if card.scores:
        message.scores.CopyFrom(scores_message(card.scores))
    if card.verification.get("digest") == card.digest:  # else it was about another content
        message.verification.CopyFrom(verification_message(card.verification))
    if card.created:
        message.create_time.FromJsonString(card.created)
    return message


def verification_message(verdict: Mapping[str, Any]) -> model_service_pb2.Verification:
    """What `segmentd verify` keeps in a card; empty where the file says something else."""
    message = model_service_pb2.Verification()
    try:
        message.verify_time.FromJsonString(verdict["time"])
        message.agrees = verdict["agree"]
        message.compared_with = verdict["compared_with"]
        for device in verdict["devices"]:
            message.devices.add(
                name=device["name"],
                equal_share=device["equal_labels"],
                confidence_difference=device["largest_confidence_difference"],
                fault=device["fault"],
            )
    except (AttributeError, KeyError, TypeError, ValueError):
        return model_service_pb2.Verification()
    return message


def scores_message(scores: Mapping[str, Any]) -> model_service_pb2.TrainingScores:
    """Training scores; what a model file says that is no score is left out."""
    message = model_service_pb2.TrainingScores()
    accuracy = scores.get("out_of_bag_accuracy")
    try:
        if accuracy is not None:
            message.accuracy = float(accuracy)
        for row in scores.get("out_of_bag_confusion", ()):
            message.confusion.add(counts=[int(count) for count in row])
        message.labelled_pixel_counts.extend(int(count) for count in scores.get("labelled_pixels", ()))
        shares = {str(name): float(share) for name, share in scores.get("feature_importance", {}).items()}
    except (TypeError, ValueError, AttributeError):
        return model_service_pb2.TrainingScores()
    for name, share in sorted(shares.items(), key=lambda item: (-item[1], item[0])):
        message.features.add(feature=name, share=share)
    return message


def event_message(event: ResultEvent) -> segmentation_service_pb2.Segmentation:
    """A segmentation of the journal, with its name."""
    message = segmentation_message(event.segmentation)
    message.name = event.name
    return message


def segmentation_message(record: Segmentation) -> segmentation_service_pb2.Segmentation:
    """A segmentation without its pixels and without a name."""
    output = segmentation_service_pb2.Segmentation.OutputFile
    return segmentation_service_pb2.Segmentation(
        state=getattr(segmentation_service_pb2.Segmentation, f"STATE_{record.state}"),
        error=status_of(record.fault) if record.fault else None,
        source=record.source,
        source_display=printable(record.source),
        source_path=record.source_path,
        version=record.version,
        content_digest=record.content_digest,
        plane=plane_message(record.plane),
        plane_count=record.plane_count,
        height=record.height,
        width=record.width,
        model=f"models/{record.model}" if record.model else "",
        model_digest=record.model_digest,
        classes=classes_message(record.classes),
        label_pixel_counts=record.label_pixel_counts,
        mean_confidence=record.mean_confidence,
        masked_pixel_count=record.masked_pixels,
        files={
            kind: output(local_path=printable(path), digest=record.digests.get(kind, ""), path=path)
            for kind, path in ((kind, os.fsencode(name)) for kind, name in record.files.items())
        },
        device=record.device,
        device_reason=without_folders(record.device_reason),
        source_time=timestamp(record.source_time),
        create_time=timestamp(record.create_time),
        compute_duration=duration(record.compute_seconds),
        latency=duration(record.latency_seconds),
        renamed_from=record.renamed_from,
        renamed_from_display=printable(record.renamed_from),
        drift=drift_message(record.drift) if record.drift else None,
    )


def drift_message(change: DriftChange) -> segmentation_service_pb2.Segmentation.Drift:
    """What changes in the alarm of a watch."""
    kind = segmentation_service_pb2.Segmentation.Drift
    measures = [
        kind.Measure(name=one.name, value=one.value, usual_value=one.usual, score=one.score)
        for one in change.measures
    ]
    return kind(alarm=change.alarm, adopted=change.adopted, measures=measures)


def event_number(name: str) -> tuple[str, int]:
    """Watch id and event number of `watches/{watch}/segmentations/s{number}`."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "watches" or parts[2] != "segmentations":
        raise bad_field("name", f"'{name}' must have the form watches/WATCH/segmentations/ID")
    digits = parts[3].removeprefix("s")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise SegmentdError(
            Reason.SEGMENTATION_NOT_FOUND, f"there is no segmentation '{name}'", resource=name
        )
    return parts[1], int(digits)
