"""Structural check of CZI: every sub-block that the directory names must lie inside the file.

Needs no library; what it learns is all that a reader has to know of sizes, scenes and types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segmentd.errors import Reason
from segmentd.ingest.czi_segments import Entry, Segments
from segmentd.ingest.verdict import MAX_PLANE_BYTES, BadStructureError, StillOpenError

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


class _Tiles:
    """What the tiles of full resolution have in common, gathered one by one: there may be many."""

    def __init__(self) -> None:
        self.numbered_scenes = False
        self.height = 0
        self.planes: set[tuple[int, ...]] = set()
        self._types: dict[int, int] = {}
        self._others: dict[str, int] = {}
        self._edges: dict[int, tuple[int, int, int, int]] = {}

    def add(self, tile: Entry) -> None:
        """Take the next tile."""
        start, size = tile.start, tile.size
        scene, channel = start.get("S", 0), start.get("C", 0)
        self.numbered_scenes = self.numbered_scenes or "S" in start
        self.height = max(self.height, size["Y"])
        self.planes.add((scene, start.get("T", 0), start.get("Z", 0), channel))
        if self._types.setdefault(channel, tile.pixel_type) != tile.pixel_type:
            text = f"mixes pixel types in channel {channel}; save it with one type for each channel"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        for axis, what in EXTRA_AXES.items():
            if self._others.setdefault(axis, start.get(axis, 0)) != start.get(axis, 0):
                text = f"has several {what} (dimension {axis}), which are not supported; split it by them"
                raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        left, top = start["X"], start["Y"]
        right, bottom = left + size["X"], top + size["Y"]
        l0, t0, r0, b0 = self._edges.get(scene, (left, top, right, bottom))
        self._edges[scene] = (min(l0, left), min(t0, top), max(r0, right), max(b0, bottom))

    def indices(self, position: int) -> tuple[int, ...]:
        """All indices at a position of a plane: scene, T, Z, channel."""
        return tuple(sorted({plane[position] for plane in self.planes}))

    def place(self, scene: int) -> Rectangle:
        """Return what all tiles of a scene cover."""
        left, top, right, bottom = self._edges[scene]
        return Rectangle(left, top, right - left, bottom - top)

    def pixel_type(self, channel: int) -> int:
        """Code of the pixel type of a channel."""
        return self._types[channel]


def examine_czi(fd: int) -> CziSummary:
    """Check a whole CZI, read through its descriptor."""
    segments = Segments(fd)
    header = segments.header()
    tiles = _Tiles()
    for entry in segments.entries(header):
        _check_tile(entry, segments.subblock(entry))
        if entry.full_resolution:
            tiles.add(entry)
    if not tiles.planes:
        raise StillOpenError("it has no tiles yet")
    scenes, times, zs, channels = (tiles.indices(position) for position in range(4))
    _check_planes(len(tiles.planes), len(scenes) * len(times) * len(zs) * len(channels))
    summary = CziSummary(
        tuple((scene if tiles.numbered_scenes else None, tiles.place(scene)) for scene in scenes),
        times,
        zs,
        channels,
        tuple(tiles.pixel_type(channel) for channel in channels),
        tiles.height,
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


def _check_planes(found: int, wanted: int) -> None:
    """Check that every scene has every plane: none is filled with zeros."""
    if wanted > MAX_PLANES:
        text = f"has {wanted} planes; {MAX_PLANES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    if found < wanted:
        raise StillOpenError(f"it has {found} of {wanted} planes: its acquisition runs, or was stopped")


def _check_size(summary: CziSummary) -> None:
    pixel_bytes = 0
    for code in summary.pixel_types:
        _, dtype, samples = PIXELS[code]
        pixel_bytes += dtype.itemsize * samples
    nbytes = summary.height * summary.width * pixel_bytes
    if nbytes > MAX_PLANE_BYTES:
        text = f"has planes of {nbytes} bytes; {MAX_PLANE_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
