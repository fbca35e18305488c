"""The calls that run in a worker process: look into an image file, decode one plane, take its digest."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import structure
from segmentd.ingest.czi import CziImage
from segmentd.ingest.czi_structure import CziSummary
from segmentd.ingest.ole_structure import OleSummary
from segmentd.ingest.raster import RasterImage
from segmentd.ingest.tiff import TiffImage
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.txm import TxmImage
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import PlaneIndex

BLOCK_BYTES = 4 << 20
FIRST_PLANE_BYTES = 8 << 20

Answer = tuple[Any, list[npt.NDArray[Any]]]
Image = TiffImage | RasterImage | CziImage | TxmImage
Key = tuple[int, int, int, int]
T = TypeVar("T")

# The image read last, without its descriptor: planes of one file mostly come one after the other.
_last: list[tuple[Key, Image]] = []


def inspect(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return what the file holds: the fields of `FrameInfo`, and `row_block`."""
    image = _open(fds[0], args["name"])
    return {**dataclasses.asdict(image.info), "row_block": image.row_block}, []


def take_in(args: dict[str, Any], fds: list[int]) -> Answer:
    """Do as `inspect`, and at once what is asked for next: `digest`, and the first plane unless it is large.

    For small files one call costs less than three.
    """
    value, _ = inspect(args, fds)
    value["digest"], _ = digest(args, fds)
    shape = (len(value["channel_names"]), value["height"], value["width"])
    if math.prod(shape) * np.dtype(value["pixel_type"].value).itemsize > FIRST_PLANE_BYTES:
        return value, []
    return value, read_plane({**args, "scene": 0, "time": 0, "z": 0}, fds)[1]


def read_plane(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return the pixels of plane `scene`, `time`, `z`."""
    name = args["name"]
    image = _open(fds[0], name)
    index = PlaneIndex(args["scene"], args["time"], args["z"])
    return None, [_guarded(name, lambda: image.read(index))]


def read_rows(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return rows `start` to `stop` of plane `scene`, `time`, `z`."""
    name = args["name"]
    image = _open(fds[0], name)
    index = PlaneIndex(args["scene"], args["time"], args["z"])
    return None, [_guarded(name, lambda: image.read_rows(index, args["start"], args["stop"]))]


def digest(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return the SHA-256 of the file's bytes, as hex digits."""
    sha256 = hashlib.sha256()
    offset = 0
    while block := os.pread(fds[0], BLOCK_BYTES, offset):
        sha256.update(block)
        offset += len(block)
    return sha256.hexdigest(), []


def _open(fd: int, name: str) -> Image:
    """Open the image behind a descriptor, or use the one that is open already."""
    stat = os.fstat(fd)
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if _last and _last[0][0] == key:
        _last[0][1].use(fd)
        return _last[0][1]
    _last.clear()
    summary = _guarded(name, lambda: structure.examine(fd, name))
    image = _guarded(name, lambda: _image(fd, summary))
    _last.append((key, image))
    return image


def _image(fd: int, summary: structure.Summary) -> Image:
    if isinstance(summary, TiffSummary):
        return TiffImage(fd, summary)
    if isinstance(summary, CziSummary):
        return CziImage(fd, summary)
    if isinstance(summary, OleSummary):
        return TxmImage(fd)
    return RasterImage(fd, summary)


def _guarded(name: str, work: Callable[[], T]) -> T:
    """Run a decoder; whatever it raises on a damaged file becomes a fault of that file."""
    try:
        return work()
    except BadStructureError as error:
        raise SegmentdError(error.reason, f"{name} {error}", file=name) from error
    except (MemoryError, SegmentdError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # else a library means the content
            message = f"{name} cannot be read ({error.strerror}); check the disk or the share it is on"
            raise SegmentdError(Reason.IMAGE_UNREADABLE, message, file=name) from error
        message = f"{name} cannot be decoded ({type(error).__name__}: {error}); save it again"
        raise SegmentdError(Reason.IMAGE_CORRUPT, message, file=name) from error
