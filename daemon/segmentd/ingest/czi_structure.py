"""Structural check of CZI: every sub-block that the directory names must lie inside the file.

Needs no library; what it learns is all that a reader has to know of sizes, scenes and types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmentd.errors import Reason
from segmentd.ingest.czi_segments import Entry, Segments
from segmentd.ingest.verdict import MAX_DECODED_BYTES, BadStructureError, StillOpenError

CZI_MAGIC = b"ZISRAWFILE\0\0\0\0\0\0"
GRAY8, GRAY16, FLOAT, BGR24, BGR48 = 0, 1, 2, 3, 4
# How a pixel is stored: name in the library, type and number of its samples.
PIXELS: dict[int, tuple[str, np.dtype[Any], int]] = {
    GRAY8: ("Gray8", np.dtype("u1"), 1),
    GRAY16: ("Gray16", np.dtype("u2"), 1),
    FLOAT: ("Gray32Float", np.dtype("f4"), 1),
    BGR24: ("Bgr24", np.dtype("u1"), 3),
    BGR48: ("Bgr48", np.dtype("u2"), 3),
}
OTHER_PIXELS = {
    8: "Bgr96Float",
    9: "Bgra32",
    10: "Gray64ComplexFloat",
    11: "Bgr192ComplexFloat",
    12: "Gray32",
    13: "Gray64Float",
}
UNCOMPRESSED = 0
CODECS = frozenset({UNCOMPRESSED, 4, 5, 6})
CODEC_NAMES = "none, JPEG XR and Zstandard"
OTHER_CODECS = {1: "JPEG", 2: "LZW"}
FIRST_CAMERA_CODEC, FIRST_SYSTEM_CODEC = 100, 1000
PLANE_AXES = "STZC"
# What an index of these dimensions means beside scene, time, Z and channel; mosaic tiles (M) are joined.
EXTRA_AXES = {"R": "rotations", "I": "illuminations", "H": "phases", "V": "views", "B": "blocks"}
MAX_TILE_PIXELS = 64 << 20
MAX_PLANES = 1_000_000
RATIO_FROM_BYTES = 256 << 20
MAX_RATIO = 1000


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Where a scene lies in the coordinates of the document, which may be negative."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CziSummary:
    """What the check learned.

    Attributes
    ----------
    scenes : tuple of (int or None, Rectangle)
        Number in the file (None: the file has no scenes) and place of each scene.
    times, zs, channels : tuple of int
        Indices in the file.
    pixel_types : tuple of int
        A code of `PIXELS` for each channel.
    tile_height : int
        Rows of the tallest tile.
    metadata : bytes
        XML, not parsed.
    pending : bool
        The writer announced changes and did not say that they are done.
    """

    scenes: tuple[tuple[int | None, Rectangle], ...]
    times: tuple[int, ...]
    zs: tuple[int, ...]
    channels: tuple[int, ...]
    pixel_types: tuple[int, ...]
    tile_height: int
    metadata: bytes
    pending: bool

    @property
    def height(self) -> int:
        """Rows of the tallest scene."""
        return max(place.height for _, place in self.scenes)

    @property
    def width(self) -> int:
        """Columns of the widest scene."""
        return max(place.width for _, place in self.scenes)


def examine_czi(fd: int) -> CziSummary:
    """Check a whole CZI, read through its descriptor."""
    segments = Segments(fd)
    header = segments.header()
    tiles = []
    for entry in segments.entries(header):
        _check_tile(entry, segments.subblock(entry))
        if entry.full_resolution:
            tiles.append(entry)
    if not tiles:
        raise StillOpenError("it has no tiles yet")
    for axis, what in EXTRA_AXES.items():
        if len({tile.start.get(axis, 0) for tile in tiles}) > 1:
            text = f"has several {what} (dimension {axis}), which are not supported; split it by them"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    indices = {axis: sorted({tile.start.get(axis, 0) for tile in tiles}) for axis in PLANE_AXES}
    _check_planes(tiles, indices)
    places = _places(tiles)
    numbered = any("S" in tile.start for tile in tiles)
    scenes = tuple((scene if numbered else None, places[scene]) for scene in indices["S"])
    types = tuple(_pixel_type(tiles, channel) for channel in indices["C"])
    summary = CziSummary(
        scenes,
        tuple(indices["T"]),
        tuple(indices["Z"]),
        tuple(indices["C"]),
        types,
        max(tile.size["Y"] for tile in tiles),
        segments.metadata(header),
        header.pending,
    )
    _check_size(summary)
    return summary


def _check_tile(entry: Entry, stored: int) -> None:
    """Check that the pixels of a tile can be decoded, and are not a bomb."""
    if entry.pixel_type not in PIXELS:
        name = OTHER_PIXELS.get(entry.pixel_type, f"kind {entry.pixel_type}")
        text = f"has pixels of type {name}, which is not supported; save it as Gray8, Gray16 or Bgr24"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    if entry.compression not in CODECS:
        codec = _codec(entry.compression)
        text = f"is compressed with {codec}; supported are {CODEC_NAMES}: save it with one of them"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    pixels = entry.stored["X"] * entry.stored["Y"]
    if pixels > MAX_TILE_PIXELS:
        text = f"has tiles of {entry.stored['Y']} x {entry.stored['X']} pixels; save it with smaller ones"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    _, dtype, samples = PIXELS[entry.pixel_type]
    decoded = pixels * dtype.itemsize * samples
    if stored == 0 or (entry.compression == UNCOMPRESSED and stored < decoded):
        text = f"has {stored} bytes in a tile where {decoded} are needed; save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text)
    if decoded > RATIO_FROM_BYTES and decoded > MAX_RATIO * stored:
        text = f"unpacks {stored} bytes to {decoded} in a tile, which no image does; save it again"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)


def _codec(number: int) -> str:
    if number >= FIRST_SYSTEM_CODEC:
        return f"the raw format {number} of a microscope"
    if number >= FIRST_CAMERA_CODEC:
        return f"the raw format {number} of a camera"
    return OTHER_CODECS.get(number, f"method {number}")


def _check_planes(tiles: list[Entry], indices: dict[str, list[int]]) -> None:
    """Check that every scene has every plane: none is filled with zeros."""
    wanted = 1
    for values in indices.values():
        wanted *= len(values)
    if wanted > MAX_PLANES:
        text = f"has {wanted} planes; {MAX_PLANES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    found = {tuple(tile.start.get(axis, 0) for axis in PLANE_AXES) for tile in tiles}
    if len(found) < wanted:
        text = f"it has {len(found)} of {wanted} planes: its acquisition runs, or was stopped"
        raise StillOpenError(text)


def _places(tiles: Iterable[Entry]) -> dict[int, Rectangle]:
    """Return what all tiles of each scene cover."""
    edges: dict[int, tuple[int, int, int, int]] = {}
    for tile in tiles:
        left, top = tile.start["X"], tile.start["Y"]
        right, bottom = left + tile.size["X"], top + tile.size["Y"]
        scene = tile.start.get("S", 0)
        l0, t0, r0, b0 = edges.get(scene, (left, top, right, bottom))
        edges[scene] = (min(l0, left), min(t0, top), max(r0, right), max(b0, bottom))
    return {
        scene: Rectangle(left, top, right - left, bottom - top)
        for scene, (left, top, right, bottom) in edges.items()
    }


def _pixel_type(tiles: Iterable[Entry], channel: int) -> int:
    types = {tile.pixel_type for tile in tiles if tile.start.get("C", 0) == channel}
    if len(types) > 1:
        text = f"mixes pixel types in channel {channel}; save it with one type for each channel"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return types.pop()


def _check_size(summary: CziSummary) -> None:
    pixel_bytes = 0
    for code in summary.pixel_types:
        _, dtype, samples = PIXELS[code]
        pixel_bytes += dtype.itemsize * samples
    nbytes = summary.height * summary.width * pixel_bytes
    if nbytes > MAX_DECODED_BYTES:
        text = f"has planes of {nbytes} bytes; {MAX_DECODED_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
