"""The fields of a watch as plain Python values, by the names that the daemon's configuration has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from google.protobuf.duration_pb2 import Duration

from segmentctl.names import within
from segmentd.v1.watch_service_pb2 import Watch


class WatchFields(TypedDict, total=False):
    """The fields of a watch that can be set beside its folder and model.

    What is left out stays as it is, or gets the daemon's default in a new watch; None takes a field back
    to its default. Times are in seconds, `border` and `tile` in pixels. Paths are absolute, on the
    daemon's machine. What they mean: README, "Configuration".
    """

    include: list[str] | None
    recursive: bool | None
    results: str | bytes | os.PathLike[str] | None
    outputs: list[str] | None
    with_image: bool | None
    results_format: str | None
    labels_inside: bool | None
    compression: str | None
    settle_seconds: float | None
    give_up_seconds: float | None
    poll: str | None
    poll_seconds: float | None
    rescan_seconds: float | None
    existing: str | None
    min_confidence: int | None
    confidence: str | None
    pixel_size_tolerance: float | None
    border: int | None
    tile: int | None
    postprocessing: str | None
    drift_alarm: bool | None
    as_it_grows: bool | None
    priority: int | None
    marker_file: str | None
    after: str | None


class WatchChanges(WatchFields, total=False):
    """The fields of a watch that can be changed."""

    model: str


def as_message(values: Mapping[str, Any]) -> tuple[Watch, list[str]]:
    """Return a watch with these fields set, and all their paths for an update mask.

    Raises
    ------
    TypeError
        For a name that is no field of a watch.
    """
    unknown = values.keys() - _FIELDS.keys()
    if unknown:
        raise TypeError(f"a watch has no {', '.join(sorted(unknown))}; it has {', '.join(_FIELDS)}")
    names = {_FIELDS[name][0]: (_FIELDS[name][1], value) for name, value in values.items()}
    given = {path: write(value) for path, (write, value) in names.items() if value is not None}
    return Watch(**given), list(names)


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def _same(value: Any) -> Any:
    return value


# Name here: field of the message, and how its value is written.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "folder": ("folder", os.fsencode),
    "model": ("model", lambda name: within("models", name)),
    "include": ("include_globs", _same),
    "recursive": ("recursive", _same),
    "results": ("results_folder", os.fsencode),
    "outputs": ("outputs", _same),
    "with_image": ("with_image", _same),
    "results_format": ("results_format", _same),
    "labels_inside": ("labels_inside", _same),
    "compression": ("compression", _same),
    "settle_seconds": ("settle_duration", _duration),
    "give_up_seconds": ("give_up_duration", _duration),
    "poll": ("poll", _same),
    "poll_seconds": ("poll_interval", _duration),
    "rescan_seconds": ("rescan_interval", _duration),
    "existing": ("existing", _same),
    "min_confidence": ("min_confidence", _same),
    "confidence": ("confidence", _same),
    "pixel_size_tolerance": ("pixel_size_tolerance", _same),
    "border": ("border_pixels", _same),
    "tile": ("tile_pixels", _same),
    "postprocessing": ("postprocessing", _same),
    "drift_alarm": ("drift_alarm", _same),
    "as_it_grows": ("as_it_grows", _same),
    "priority": ("priority", _same),
    "marker_file": ("marker_file", _same),
    "after": ("after", _same),
}
