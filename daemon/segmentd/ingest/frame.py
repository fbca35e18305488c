"""What a worker found in an image, made a record and believed no further than it can be checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.verdict import MAX_DECODED_BYTES
from segmentd.records import FrameInfo, PixelSize, PixelType

MAX_CHANNELS = 65_536
# Planes that come in larger pieces are read whole.
MAX_ROW_BLOCK = 1024


def frame_info(value: Any, name: str) -> FrameInfo:
    """Make the record of what a worker found, believing none of it."""
    try:
        sizes = {key: value[key] for key in ("height", "width", "size_t", "size_z", "scenes")}
        if not all(type(size) is int and 0 < size < 2**31 for size in sizes.values()):
            raise ValueError(f"sizes {sizes}")
        channels = [str(channel) for channel in value["channel_names"]]
        colors = [None if color is None else str(color) for color in value["channel_colors"]]
        scenes = [(int(height), int(width)) for height, width in value["scene_sizes"]]
        if len(colors) not in (0, len(channels)) or len(scenes) not in (0, sizes["scenes"]):
            raise ValueError(f"{len(colors)} colours, {len(scenes)} sizes of scenes")
        lengths = {key: value["pixel_size"][key] for key in ("y_um", "x_um", "z_um")}
        info = FrameInfo(
            format=str(value["format"]),
            pixel_type=PixelType(value["pixel_type"]),
            channel_names=tuple(channels),
            rgb=bool(value["rgb"]),
            pixel_size=PixelSize(**{key: None if um is None else float(um) for key, um in lengths.items()}),
            channel_colors=tuple(colors),
            scene_sizes=tuple(scenes),
            **sizes,
        )
    except (KeyError, TypeError, ValueError) as error:
        text = f"{name}: its decoder returned a description that makes no sense ({error})"
        raise SegmentdError(Reason.WORKER_CRASHED, text) from error
    if not 0 < len(channels) <= MAX_CHANNELS:
        text = f"{name} has {len(channels)} channels; {MAX_CHANNELS} are allowed: split it"
        raise SegmentdError(Reason.IMAGE_TOO_LARGE, text, file=name)
    return info


def plane_bytes(info: FrameInfo, rows: int) -> int:
    """Bytes of so many rows of a plane, all channels."""
    return np.dtype(info.pixel_type.value).itemsize * info.channel_count * rows * info.width


def require_room(info: FrameInfo, rows: int, name: str) -> None:
    """Check that so many rows of a plane are no more than may be held at once."""
    nbytes = plane_bytes(info, rows)
    if nbytes > MAX_DECODED_BYTES:
        text = (
            f"{name} needs {nbytes} bytes at once, {MAX_DECODED_BYTES} are allowed: split it, "
            f"or save it in tiles or strips of at most {MAX_ROW_BLOCK} rows"
        )
        raise SegmentdError(Reason.IMAGE_TOO_LARGE, text, file=name)


def row_block(value: Any, info: FrameInfo) -> int:
    """How many rows have to be decoded to get one; all of them where a worker said nothing sensible."""
    found = value["row_block"] if isinstance(value, dict) else None
    return found if isinstance(found, int) and 1 <= found <= info.height else info.height
