"""Results in CZI read back: what `segmentd.results.czi_writer` wrote. Needs no library for CZI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile.czi_layout import CziTiles, read_at, read_metadata, read_tiles, tile_parts
from segmentd.imagefile.description import Description
from segmentd.imagefile.reading import check_inside
from segmentd.imagefile.zarr_metadata import read_back
from segmentd.records import Region

ATTRIBUTE = "segmentd"
"""The custom attribute of the file that says what `read_back` wants to know."""

_ZSTD = 5  # a code of the format


def read_czi_description(path: Path) -> Description:
    """As `read_description`, of a CZI."""
    try:
        with path.open("rb") as file:
            return _described(file, read_tiles(file))[0]
    except (OSError, ET.ParseError, LookupError, ValueError, TypeError) as error:
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE, f"{path} is not a result of segmentd: {error}"
        ) from error


def read_czi_region(path: Path, page: int, region: Region) -> npt.NDArray[np.generic]:
    """As `read_region`, of a CZI; pages count channels first, then Z, time and scenes."""
    try:
        with path.open("rb") as file:
            tiles = read_tiles(file)
            about, channels, dtype = _described(file, tiles)
            pages = about.scenes * about.size_t * about.size_z * channels
            if not 0 <= page < pages:
                raise ValueError(f"it has {pages} pages, not {page + 1}")
            check_inside(region, about.height, about.width)
            plane, channel = divmod(page, channels)
            rest, z = divmod(plane, about.size_z)
            scene, time = divmod(rest, about.size_t)
            index = {"S": scene, "T": time, "Z": z, "C": channel}
            return _pixels(file, tiles, index, region, scene * about.width, dtype)
    except SegmentdError:
        raise
    except Exception as error:  # the decoder raises whatever its library reports
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE,
            f"the result file {path} cannot be read: {error}. Restore it, or have the image segmented again.",
        ) from error


def _pixels(
    file: IO[bytes],
    tiles: CziTiles,
    index: dict[str, int],
    region: Region,
    scene_x: int,
    dtype: np.dtype[np.generic],
) -> npt.NDArray[np.generic]:
    """Put a region together from its tiles; where a scene ends before the plane does, it is 0."""
    top, left = tiles.start["Y"], tiles.start["X"] - scene_x
    bottom, right = top + tiles.size["Y"], left + tiles.size["X"]
    wanted = (top < region.y + region.height) & (bottom > region.y)
    wanted &= (left < region.x + region.width) & (right > region.x)
    for axis, number in index.items():
        wanted &= tiles.start[axis] == number
    result = np.zeros((region.height, region.width), dtype)
    for number in np.flatnonzero(wanted).tolist():
        shape = int(tiles.size["Y"][number]), int(tiles.size["X"][number])
        tile = _tile(file, tiles, number, shape, dtype)
        y, x = int(top[number]) - region.y, int(left[number]) - region.x
        part = tile[max(-y, 0) : region.height - y, max(-x, 0) : region.width - x]
        y, x = max(y, 0), max(x, 0)
        result[y : y + part.shape[0], x : x + part.shape[1]] = part
    return result


def _tile(
    file: IO[bytes], tiles: CziTiles, number: int, shape: tuple[int, int], dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    import zstandard

    if tiles.compressions[number] != _ZSTD:
        raise ValueError(f"tile {number} is not compressed with Zstandard")
    start, metadata, length = tile_parts(file, tiles, number)
    packed = read_at(file, start + metadata, length)
    nbytes = shape[0] * shape[1] * dtype.itemsize
    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=nbytes)
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)


def _described(file: IO[bytes], tiles: CziTiles) -> tuple[Description, int, np.dtype[np.generic]]:
    xml = read_metadata(file, tiles)
    if b"<!" in xml:
        raise ValueError("its metadata are none of ours")
    root = ET.fromstring(xml.strip(b"\0"))
    text = root.findtext(f"Metadata/Information/CustomAttributes/KeyValue/{ATTRIBUTE}")
    attributes = json.loads(text or "{}")
    description, channels = read_back({"segmentd": attributes})
    return description, channels, np.dtype(str(attributes["pixel_type"]))
