"""The calls that run in a worker process: look into an image file, decode one plane, take its digest.

`fds` are the file and, where an image is a set of files, the folder with all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import structure, tree
from segmentd.ingest.czi import CziImage
from segmentd.ingest.czi_structure import CziSummary
from segmentd.ingest.descriptor_file import add_content
from segmentd.ingest.file_set import SetSummary
from segmentd.ingest.ole_structure import OleSummary
from segmentd.ingest.ome_zarr import OmeZarrImage
from segmentd.ingest.raster import RasterImage
from segmentd.ingest.set_files import Neighbours
from segmentd.ingest.tiff import TiffImage
from segmentd.ingest.tiff_set import TiffSetImage
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.txm import TxmImage
from segmentd.ingest.verdict import BadStructureError
from segmentd.ingest.zarr_structure import ZarrSummary
from segmentd.records import PlaneIndex

FIRST_PLANE_BYTES = 8 << 20

Answer = tuple[Any, list[npt.NDArray[Any]]]
Image = TiffImage | TiffSetImage | RasterImage | CziImage | TxmImage | OmeZarrImage
Key = tuple[int, int, int, int]
T = TypeVar("T")

# The image read last, without its descriptor: planes of one file mostly come one after the other.
_last: list[tuple[Key, Image]] = []


def inspect(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return what the file holds: the fields of `FrameInfo`, and `row_block`."""
    image = _open(fds, args)
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
    image = _open(fds, args)
    index = PlaneIndex(args["scene"], args["time"], args["z"])
    return None, [_guarded(name, lambda: image.read(index))]


def read_rows(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return rows `start` to `stop` of plane `scene`, `time`, `z`."""
    name = args["name"]
    image = _open(fds, args)
    index = PlaneIndex(args["scene"], args["time"], args["z"])
    return None, [_guarded(name, lambda: image.read_rows(index, args["start"], args["stop"]))]


def digest(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return the SHA-256 of the file's bytes, or of all files of the image, as hex digits."""
    if len(fds) > 1:
        image = _open(fds, args)
        if isinstance(image, TiffSetImage):
            return _guarded(args["name"], image.digest), []
    if stat.S_ISDIR(os.fstat(fds[0]).st_mode):
        return tree.digest(fds[0]), []
    sha256 = hashlib.sha256()
    add_content(sha256, fds[0])
    return sha256.hexdigest(), []


def _open(fds: list[int], args: dict[str, Any]) -> Image:
    """Open the image behind a descriptor, or use the one that is open already."""
    name, status = args["name"], os.fstat(fds[0])
    # Of several files, size and time of one say nothing of the others: the daemon tells those of the content.
    several = len(fds) > 1 or stat.S_ISDIR(status.st_mode)
    size, mtime_ns = args["content"] if several else (status.st_size, status.st_mtime_ns)
    key = (status.st_dev, status.st_ino, size, mtime_ns)
    if _last and _last[0][0] == key:
        image = _last[0][1]
        if isinstance(image, TiffSetImage):
            image.use(fds)
        else:
            image.use(fds[0])
        return image
    while _last:
        _, before = _last.pop()
        if isinstance(before, TiffSetImage):
            before.close()
    neighbours = Neighbours(fds[1], os.fsencode(args["own"])) if len(fds) > 1 else None
    summary = _guarded(name, lambda: structure.examine(fds[0], name, neighbours))
    image = _guarded(name, lambda: _image(fds, summary))
    _last.append((key, image))
    return image


def _image(fds: list[int], summary: structure.Summary) -> Image:
    if isinstance(summary, SetSummary):
        return TiffSetImage(fds, summary)
    if isinstance(summary, TiffSummary):
        return TiffImage(fds[0], summary)
    if isinstance(summary, CziSummary):
        return CziImage(fds[0], summary)
    if isinstance(summary, OleSummary):
        return TxmImage(fds[0])
    if isinstance(summary, ZarrSummary):
        return OmeZarrImage(fds[0], summary)
    return RasterImage(fds[0], summary)


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
