"""Watches as messages, and messages as keys of `[[watch]]`: one table for both ways."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.convert import duration, model_reference, printable
from segmentd.rpc.faults import bad_field
from segmentd.rpc.host_paths import without_folders
from segmentd.v1 import watch_service_pb2 as pb
from segmentd.watches import Watch, WatchStatus

_STATES = {
    "starting": pb.Watch.STATE_ACTIVE,
    "active": pb.Watch.STATE_ACTIVE,
    "paused": pb.Watch.STATE_PAUSED,
    "failed": pb.Watch.STATE_FAILED,
    "unreachable": pb.Watch.STATE_UNREACHABLE,
}
_MODES = {
    "unknown": pb.Watch.MODE_UNSPECIFIED,
    "events": pb.Watch.MODE_EVENTS,
    "poll": pb.Watch.MODE_POLL,
}


@dataclass(frozen=True)
class _Field:
    """How a field is written as the value of a key, and back."""

    key: str
    to_key: Callable[[Any], Any] = lambda value: value
    to_field: Callable[[Any], Any] = lambda value: value


def _seconds(value: Duration) -> float:
    return value.seconds + value.nanos / 1e9


_FIELDS = {
    "folder": _Field("folder", os.fsdecode, os.fsencode),
    "include_globs": _Field("include", list),
    "recursive": _Field("recursive"),
    "model": _Field("model", lambda name: model_reference(name, "watch.model")),
    "results_folder": _Field("results", os.fsdecode, os.fsencode),
    "outputs": _Field("outputs", list),
    "with_image": _Field("with_image"),
    "results_format": _Field("results_format"),
    "compression": _Field("compression"),
    "labels_inside": _Field("labels_inside"),
    "settle_duration": _Field("settle_seconds", _seconds, duration),
    "min_confidence": _Field("min_confidence"),
    "pixel_size_tolerance": _Field("pixel_size_tolerance"),
    "give_up_duration": _Field("give_up_seconds", _seconds, duration),
    "poll": _Field("poll"),
    "poll_interval": _Field("poll_seconds", _seconds, duration),
    "rescan_interval": _Field("rescan_seconds", _seconds, duration),
    "existing": _Field("existing"),
    "confidence": _Field("confidence"),
    "border_pixels": _Field("border"),
    "tile_pixels": _Field("tile"),
    "postprocessing": _Field("postprocessing"),
    "drift_alarm": _Field("drift_alarm"),
    "as_it_grows": _Field("as_it_grows"),
    "priority": _Field("priority"),
    "marker_file": _Field("marker_file"),
    "after": _Field("after"),
}
_FIELD_OF_KEY = {field.key: name for name, field in _FIELDS.items()} | {"id": "watch_id"}
_TOLD_ELSEWHERE = {"model"}


def watch_message(watch: Watch, status: WatchStatus) -> pb.Watch:
    """A watch with all fields, those left at their default too."""
    settings = watch.settings
    values = dict(settings) | {"results": settings.results_folder, "give_up_seconds": settings.give_up}
    known = (str(settings.folder), str(settings.results_folder))
    message = pb.Watch(
        name=f"watches/{settings.id}",
        folder_display=printable(os.fsencode(settings.folder)),
        model=f"models/{status.model}",
        results_folder_display=printable(os.fsencode(settings.results_folder)),
        state=_STATES[status.state],
        state_reason=without_folders(status.state_reason, *known),
        mode=_MODES[status.mode],
        mode_reason=without_folders(status.mode_reason, *known),
        done_count=status.done,
        failed_count=status.failed,
        waiting_count=status.load.waiting,
        ignored_count=status.ignored,
        part_count=status.parts,
        warnings=[without_folders(warning, *known) for warning in status.warnings],
        configured=watch.configured,
        etag=watch.etag,
        images_per_minute=status.load.images_last_minute,
        megapixels_per_second=status.load.pixels_last_minute / 60e6,
    )
    fields = {
        name: field.to_field(values[field.key])
        for name, field in _FIELDS.items()
        if name not in _TOLD_ELSEWHERE and values[field.key] is not None
    }
    message.MergeFrom(pb.Watch(**fields))
    return message


def given(message: pb.Watch) -> dict[str, Any]:
    """The keys whose fields are set in a message."""
    return keys(message, [name for name in _FIELDS if _is_set(message, name)])


def masked(message: pb.Watch, paths: Collection[str]) -> dict[str, Any]:
    """The keys that an update mask names; None where the field is not set.

    Raises
    ------
    SegmentdError
        BAD_FIELD for a path that is no field, or not one to be set.
    """
    if "*" in paths:
        if len(paths) > 1:
            raise bad_field("update_mask", "'*' must stand alone")
        # A folder that is left out stays: it cannot be changed.
        paths = [name for name in _FIELDS if name != "folder" or message.folder]
    for path in paths:
        if path in _FIELDS:
            continue
        known = path in pb.Watch.DESCRIPTOR.fields_by_name
        why = "cannot be set; to pause or resume, use the calls for it" if known else "is no field of a watch"
        raise bad_field("update_mask", f"'{path}' {why}. Fields are {', '.join(_FIELDS)}")
    return keys(message, paths)


def keys(message: pb.Watch, names: Collection[str]) -> dict[str, Any]:
    """The keys of some fields of a message; None where a field is not set."""
    return {
        _FIELDS[name].key: _FIELDS[name].to_key(getattr(message, name)) if _is_set(message, name) else None
        for name in names
    }


def in_fields(error: SegmentdError) -> SegmentdError:
    """Broken rules, told as `key = value: rule`, in the words of the API: names of fields instead of keys."""
    reason = Reason.BAD_FIELD if error.reason is Reason.BAD_CONFIGURATION else error.reason
    told = [_in_field(problem) for problem in error.message.splitlines()]
    first = told[0][0]
    field = first if first == "watch_id" else f"watch.{first}"
    return SegmentdError(reason, "; ".join(name + rest for name, rest in told), field=field)


def _in_field(problem: str) -> tuple[str, str]:
    """Field, and the rest of the problem."""
    end = _key_end(problem)
    return _FIELD_OF_KEY.get(problem[:end], problem[:end]), problem[end:]


def _key_end(problem: str) -> int:
    """Where the key of `key = value: rule` or `key[0] = value: rule` ends."""
    return next((i for i, char in enumerate(problem) if char in " ["), len(problem))


def _is_set(message: pb.Watch, name: str) -> bool:
    """Whether a field has another value than the one that fields have by themselves."""
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    return message.HasField(name) if descriptor.has_presence else bool(getattr(message, name))
