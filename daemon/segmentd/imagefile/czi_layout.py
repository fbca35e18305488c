"""Where the tiles and the metadata of a CZI result lie in its file; for files that segmentd wrote.

All tiles of such a file have the same dimensions in the same order, so its directory is one table. Readers
of CZI from elsewhere are in `segmentd.ingest`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_SEGMENT = struct.Struct("<16sqq")
_FILE = struct.Struct("<iiii16s16siqq")
_SUBBLOCK = struct.Struct("<iiq")
_DIMENSIONS_AT = 28  # in an entry: how many there are
_DIRECTORY_HEAD, _SUBBLOCK_HEAD, _METADATA_HEAD = 128, 256, 256
_MAX_METADATA = 64 << 20
GUIDS_AT = _SEGMENT.size + 16
"""Where in the file its two GUIDs are, 16 bytes each."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CziTiles:
    """The directory, a number for each tile.

    Attributes
    ----------
    positions : array
        Offsets of the tiles' segments.
    compressions : array
        Codes of the format.
    start, size : mapping of str to array
        First index and extent by dimension: X, Y, C, Z, T, S.
    entry_bytes : int
        Length of an entry.
    metadata_at : int
        Offset of the metadata's segment.
    """

    positions: Numbers
    compressions: Numbers
    start: Mapping[str, Numbers]
    size: Mapping[str, Numbers]
    entry_bytes: int
    metadata_at: int


def read_tiles(file: IO[bytes]) -> CziTiles:
    """Read the directory of a CZI; a ValueError where the file is none of ours."""
    start, _ = _segment(file, 0, b"ZISRAWFILE")
    *_, directory, metadata = _FILE.unpack(read_at(file, start, _FILE.size))
    start, length = _segment(file, directory, b"ZISRAWDIRECTORY")
    count = int.from_bytes(read_at(file, start, 4), "little")
    data = read_at(file, start + _DIRECTORY_HEAD, length - _DIRECTORY_HEAD)
    dimensions = int.from_bytes(data[_DIMENSIONS_AT : _DIMENSIONS_AT + 4], "little")
    table = np.frombuffer(data, _entry(dimensions), count)
    names = table["dimensions"]["name"]
    if (names != names[0]).any() or (table["schema"] != b"DV").any():
        raise ValueError("its tiles are not all of one kind")
    axes = [name.decode() for name in names[0]]
    return CziTiles(
        positions=table["position"].astype(np.int64),
        compressions=table["compression"].astype(np.int64),
        start={axis: _column(table, number, "start") for number, axis in enumerate(axes)},
        size={axis: _column(table, number, "size") for number, axis in enumerate(axes)},
        entry_bytes=table.dtype.itemsize,
        metadata_at=metadata,
    )


def tile_parts(file: IO[bytes], tiles: CziTiles, number: int) -> tuple[int, int, int]:
    """Return where a tile's own metadata are, their length, and the length of the pixels behind them."""
    start, _ = _segment(file, int(tiles.positions[number]), b"ZISRAWSUBBLOCK")
    metadata, _, pixels = _SUBBLOCK.unpack(read_at(file, start, _SUBBLOCK.size))
    return start + max(_SUBBLOCK_HEAD, _SUBBLOCK.size + tiles.entry_bytes), metadata, pixels


def read_metadata(file: IO[bytes], tiles: CziTiles) -> bytes:
    """Read the XML of the whole file."""
    start, _ = _segment(file, tiles.metadata_at, b"ZISRAWMETADATA")
    length = int.from_bytes(read_at(file, start, 4), "little")
    if length > _MAX_METADATA:
        raise ValueError("its metadata are too long")
    return read_at(file, start + _METADATA_HEAD, length)


def _entry(dimensions: int) -> np.dtype[Any]:
    if not 1 <= dimensions <= 40:
        raise ValueError("its directory is damaged")
    dimension = [("name", "S4"), ("start", "<i4"), ("size", "<i4"), ("coordinate", "<f4"), ("stored", "<i4")]
    head = [("schema", "S2"), ("pixels", "<i4"), ("position", "<i8"), ("part", "<i4"), ("compression", "<i4")]
    rest = [("pyramid", "u1"), ("spare", "V5"), ("count", "<i4"), ("dimensions", dimension, (dimensions,))]
    return np.dtype([*head, *rest])


def _column(table: npt.NDArray[Any], number: int, field: str) -> Numbers:
    return np.asarray(table["dimensions"][field][:, number], np.int64)


def _segment(file: IO[bytes], position: int, name: bytes) -> tuple[int, int]:
    """Return start and length of a segment's data."""
    found, allocated, used = _SEGMENT.unpack(read_at(file, position, _SEGMENT.size))
    if found.rstrip(b"\0") != name:
        raise ValueError(f"there is no {name.decode()} at byte {position}")
    return position + _SEGMENT.size, used or allocated


def read_at(file: IO[bytes], position: int, length: int) -> bytes:
    """Read so many bytes; a ValueError where the file does not have them."""
    if not 0 <= length <= file.seek(0, os.SEEK_END) - position or position < 0:
        raise ValueError(f"it ends before byte {position + length}")
    file.seek(position)
    return file.read(length)
