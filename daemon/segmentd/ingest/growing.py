"""An image that is still being written: which planes are complete, and their pixels."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import confine
from segmentd.ingest.frame import frame_info, plane_bytes, require_room
from segmentd.ingest.names import printable
from segmentd.ingest.readers import (
    BASE_SECONDS,
    DECODED_BYTES_PER_SECOND,
    INSPECTED_BYTES_PER_SECOND,
)
from segmentd.records import FileStamp, FrameInfo, PlaneIndex
from segmentd.workers import WorkerPool

DECODE = "segmentd.ingest.decode_growing"
PLANES_PER_LOOK = 64

_looks = itertools.count()


@dataclass(frozen=True, slots=True)
class Grown:
    """What a look found: the frame, planes that it will have (0: unknown), and complete ones by position."""

    info: FrameInfo
    total: int
    planes: dict[int, PlaneIndex]


class GrowingImage:
    """An open image that is still being written; to be closed, for instance as a context manager.

    Parameters
    ----------
    pool : WorkerPool
        Where it is read.
    folder : Path
        The watched folder; no link below it is followed.
    relative : bytes
        The image's path in it.

    Raises
    ------
    OSError, SegmentdError
        It cannot be opened; every method may raise what stands in the way of reading it.
    """

    def __init__(self, pool: WorkerPool, folder: Path, relative: bytes) -> None:
        self._pool = pool
        self._folder = folder
        self._relative = relative
        self.name = printable(relative)
        self._fd = confine.open_beneath(folder, relative)
        status = os.fstat(self._fd)
        self.identity = (status.st_dev, status.st_ino)
        self._look = next(_looks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def stamp(self) -> FileStamp:
        """How it is now."""
        return confine.stamp_of(self._fd)

    def look(self, first: int) -> Grown:
        """Find complete planes from position `first` on, a few at a time."""
        seconds = BASE_SECONDS + os.fstat(self._fd).st_size / INSPECTED_BYTES_PER_SECOND
        value = self._call("look", seconds, first=first, count=PLANES_PER_LOOK).value
        try:
            planes = {int(place): PlaneIndex(int(s), int(t), int(z)) for place, s, t, z in value["planes"]}
            info, total = frame_info(value, self.name), int(value["total"])
        except (KeyError, TypeError, ValueError) as error:
            text = f"{self.name}: its decoder returned a description that makes no sense ({error})"
            raise SegmentdError(Reason.WORKER_CRASHED, text) from error
        require_room(info, info.height, self.name)  # such planes are read whole
        return Grown(info, total, planes)

    def read(self, info: FrameInfo, index: PlaneIndex) -> npt.NDArray[np.generic]:
        """Pixels (C, Y, X) of a complete plane; IMAGE_CHANGED if the image was replaced meanwhile."""
        shape = (info.channel_count, info.height, info.width)
        nbytes = plane_bytes(info, info.height)
        place = {"scene": index.scene, "time": index.time, "z": index.z}
        reply = self._call("read_plane", BASE_SECONDS + nbytes / DECODED_BYTES_PER_SECOND, **place)
        if [(one.shape, one.dtype.name) for one in reply.arrays] != [(shape, info.pixel_type.value)]:
            raise SegmentdError(Reason.WORKER_CRASHED, f"{self.name}: its decoder returned another plane")
        fd = confine.open_beneath(self._folder, self._relative)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if (status.st_dev, status.st_ino) != self.identity:
            raise SegmentdError(Reason.IMAGE_CHANGED, f"{self.name} was replaced while it was read")
        height, width = info.scene_size(index.scene)
        return np.ascontiguousarray(reply.arrays[0][:, :height, :width])

    def _call(self, function: str, seconds: float, **place: int) -> Any:
        args = {"name": self.name, "look": self._look, **place}
        return self._pool.call(f"{DECODE}:{function}", args, [self._fd], seconds, subject=self.name)
