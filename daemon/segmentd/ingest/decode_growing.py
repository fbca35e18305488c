"""The calls that run in a worker process for images that are still being written."""

from __future__ import annotations

import dataclasses
import os
import stat
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.growing_tiff import GrowingTiff
from segmentd.ingest.growing_zarr import GrowingZarr
from segmentd.ingest.set_files import TIFF_MAGICS
from segmentd.ingest.structure import HEAD_BYTES
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import PlaneIndex

Answer = tuple[Any, list[npt.NDArray[Any]]]
Growing = GrowingTiff | GrowingZarr
Key = tuple[int, int, int]

# The image looked at last, without its descriptor, and in which look.
_last: list[tuple[Key, Growing]] = []


def look(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return the fields of `FrameInfo`, `total`, and `planes`: position and index of complete planes.

    These begin at position `first`, and are `count` at most. `look` is the number of this look.
    """
    image = _open(fds[0], args)
    found = ([position, *dataclasses.astuple(index)] for position, index in image.complete())
    planes = list(islice((plane for plane in found if plane[0] >= args["first"]), args["count"]))
    return {**dataclasses.asdict(image.info), "total": image.total, "planes": planes}, []


def read_plane(args: dict[str, Any], fds: list[int]) -> Answer:
    """Return the pixels of plane `scene`, `time`, `z`, which look number `look` found."""
    image = _open(fds[0], args)
    try:
        pixels = image.read(PlaneIndex(args["scene"], args["time"], args["z"]))
    except SegmentdError:
        raise
    except Exception as error:
        raise _not_yet(args, error) from error
    return None, [np.ascontiguousarray(pixels)]


def _open(fd: int, args: dict[str, Any]) -> Growing:
    status = os.fstat(fd)
    key = (status.st_dev, status.st_ino, args["look"])
    if _last and _last[0][0] == key:
        _last[0][1].use(fd)
        return _last[0][1]
    _last.clear()
    try:
        image = _grown(fd, stat.S_ISDIR(status.st_mode))
    except (StillOpenError, BadStructureError) as error:
        reason = error.reason if isinstance(error, BadStructureError) else Reason.IMAGE_INCOMPLETE
        raise SegmentdError(reason, f"{args['name']} {error}") from error
    except SegmentdError:
        raise
    except Exception as error:
        raise _not_yet(args, error) from error
    _last.append((key, image))
    return image


def _grown(fd: int, folder: bool) -> Growing:
    if folder:
        return GrowingZarr(fd)
    if os.pread(fd, HEAD_BYTES, 0).startswith(TIFF_MAGICS):
        return GrowingTiff(fd)
    raise BadStructureError(Reason.IMAGE_UNSUPPORTED, "is of a format that is read when it is complete")


def _not_yet(args: dict[str, Any], error: Exception) -> SegmentdError:
    """A library stumbled over what is only half there; if it is no better in the end, that is told then."""
    text = f"{args['name']} cannot be read yet ({type(error).__name__}: {error})"
    return SegmentdError(Reason.IMAGE_INCOMPLETE, text)
