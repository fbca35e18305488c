"""The contract of all readers: open an image, know what it holds, read its planes one by one.

The daemon itself only opens the file; looking into it and decoding happen in a worker process, which gets the
descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import confine
from segmentd.ingest.frame import MAX_ROW_BLOCK, frame_info, plane_bytes, require_room, row_block
from segmentd.ingest.members import Members, find_members
from segmentd.ingest.names import printable
from segmentd.records import FilePart, FileStamp, Plane, PlaneIndex
from segmentd.workers import Reply, WorkerPool

DECODE = "segmentd.ingest.decode"
BASE_SECONDS = 10.0
# Slower than any disk or decoder that works: a call that is slower hangs.
INSPECTED_BYTES_PER_SECOND = 100e6
DECODED_BYTES_PER_SECOND = 25e6
DIGESTED_BYTES_PER_SECOND = 10e6
# Smaller files are looked into, digested and decoded with one call.
SMALL_FILE_BYTES = 2 << 20
# Each member of a set is opened and checked.
SECONDS_PER_MEMBER = 0.05
SMALL_SET_MEMBERS = 100

T = TypeVar("T")


class OpenImage:
    """An open image file; made by `open_image`, to be closed, for instance as a context manager.

    Attributes
    ----------
    info : FrameInfo
        What the file holds.
    stamp : FileStamp
        The file's identity when it was opened.
    parts : tuple of FilePart
        The other files of the image, by their names in the folder.
    size_bytes : int
        Size of all of them.
    name : str
        What messages call it.
    row_block : int
        How many rows have to be decoded to get one; all of them where it cannot be read by rows.
    """

    def __init__(
        self, pool: WorkerPool, fd: int, name: str, reopen: Callable[[], int], members: Members | None = None
    ) -> None:
        self._pool = pool
        self._fd = fd
        self._reopen = reopen
        self._members = members
        self.name = name
        self.stamp = confine.stamp_of(fd)
        self.parts = members.parts if members is not None else ()
        # Of several files the worker cannot tell quickly whether they are still what it read last.
        self._content = [self.stamp.size_bytes, self.stamp.mtime_ns]
        if members is not None:
            self._content = members.content(self.stamp)
        self.size_bytes = self.stamp.size_bytes + sum(part.stamp.size_bytes for part in self.parts)
        seconds = BASE_SECONDS + self.size_bytes / INSPECTED_BYTES_PER_SECOND
        seconds += SECONDS_PER_MEMBER * len(self.parts)
        small = self.size_bytes <= SMALL_FILE_BYTES and len(self.parts) <= SMALL_SET_MEMBERS
        reply = self._call("take_in" if small else "inspect", seconds)
        self.info = frame_info(reply.value, name)
        self.row_block = row_block(reply.value, self.info)
        by_rows = self.row_block <= MAX_ROW_BLOCK
        rows = min(self.info.height, MAX_ROW_BLOCK) if by_rows else self.info.height
        require_room(self.info, rows, name)
        self._digest = str(reply.value.get("digest", ""))
        # Of a small file the first plane came along; it is handed out once.
        self._first = [self._checked(reply, self.info.height)] if reply.arrays else []

    @property
    def folder(self) -> int | None:
        """Descriptor of the image where it is a folder."""
        return self._fd if stat.S_ISDIR(os.fstat(self._fd).st_mode) else None

    @property
    def workers(self) -> WorkerPool:
        """Where the file is decoded."""
        return self._pool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._members is not None:
            self._members.close()

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 of the bytes of all files, as hex digits; read once, in a worker."""
        if self._digest:
            return self._digest
        seconds = BASE_SECONDS + self.size_bytes / DIGESTED_BYTES_PER_SECOND
        return str(self._call("digest", seconds).value)

    def read_plane(self, index: PlaneIndex) -> Plane:
        """Decode one plane in a worker.

        Returns
        -------
        Plane
            Pixels are an array (C, Y, X) of the frame's pixel type, the caller's own.

        Raises
        ------
        SegmentdError
            `IMAGE_CORRUPT` and the like, or a fault of the worker.
        """
        if self._first and index == PlaneIndex():
            return Plane(self.info, index, self._first.pop())
        require_room(self.info, self.info.height, self.name)
        return Plane(self.info, index, self._decoded("read_plane", index, 0, self.info.height))

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Decode rows start..stop-1 of one plane in a worker: array (C, stop - start, X).

        Worth it where `row_block` is small against the plane; raises as `read_plane`.
        """
        if not 0 <= start < stop <= self.info.height:
            raise IndexError(f"{self.name} has no rows {start} to {stop}")
        return self._decoded("read_rows", index, start, stop)

    def _decoded(self, function: str, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[np.generic]:
        info = self.info
        sizes = ((index.scene, info.scenes), (index.time, info.size_t), (index.z, info.size_z))
        if not all(0 <= number < size for number, size in sizes):
            raise IndexError(f"{self.name} has no plane {index}")
        place = {"scene": index.scene, "time": index.time, "z": index.z, "start": start, "stop": stop}
        seconds = BASE_SECONDS + plane_bytes(info, stop - start) / DECODED_BYTES_PER_SECOND
        reply = self._call(function, seconds, place)
        return self._checked(reply, stop - start)

    def _checked(self, reply: Reply, rows: int) -> npt.NDArray[np.generic]:
        """Return the one array of a reply, which must be `rows` rows of a plane."""
        expected = ((self.info.channel_count, rows, self.info.width), self.info.pixel_type.value)
        if [(values.shape, values.dtype.name) for values in reply.arrays] != [expected]:
            raise SegmentdError(Reason.WORKER_CRASHED, f"{self.name}: its decoder returned another plane")
        return reply.arrays[0]

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened, under its name and in its content.

        Raises
        ------
        SegmentdError
            `IMAGE_CHANGED`, or `IMAGE_VANISHED` where there is no file of that name any more.
        """
        fd = _opened(self._reopen, self.name)
        try:
            same = confine.stamp_of(fd) == self.stamp == confine.stamp_of(self._fd)
        finally:
            os.close(fd)
        if not same or (self._members is not None and not _opened(self._members.unchanged, self.name)):
            raise _changed(self.name)

    def _call(self, function: str, seconds: float, place: dict[str, int] | None = None) -> Reply:
        args = {"name": self.name, "content": self._content, **(place or {})}
        fds = [self._fd]
        if self._members is not None:
            args["own"] = os.fsdecode(self._members.own)
            fds.append(self._members.folder)
        try:
            return self._pool.call(f"{DECODE}:{function}", args, fds, seconds, subject=self.name)
        except SegmentdError:
            self.check_unchanged()  # a file that changes while it is read is not a damaged one
            raise


def open_image(
    pool: WorkerPool,
    path: Path | bytes,
    *,
    folder: Path | None = None,
    stamp: FileStamp | None = None,
    parts: Sequence[FilePart] | None = None,
) -> OpenImage:
    """Open an image file and look into it.

    Parameters
    ----------
    pool : WorkerPool
        Where it is decoded.
    path : Path or bytes
        The file; relative to `folder` if that is given.
    folder : Path, optional
        The watched folder: no link below it is followed, and nothing outside it is opened.
    stamp : FileStamp, optional
        What the file must still be like; if not, `IMAGE_CHANGED`.
    parts : sequence of FilePart, optional
        What the other files of the image must still be like, where it is known that there are some or none.

    Raises
    ------
    SegmentdError
        `IMAGE_VANISHED`, `IMAGE_UNREADABLE`, `IMAGE_CHANGED`, `IMAGE_INCOMPLETE`, `IMAGE_CORRUPT`,
        `IMAGE_UNSUPPORTED`, `IMAGE_TOO_LARGE`, or a fault of the worker.
    """
    raw = os.fsencode(path).rstrip(b"/")
    name = printable(raw if folder is not None else os.path.basename(raw))  # noqa: PTH119 (bytes)

    def reopen() -> int:
        return confine.open_image(raw) if folder is None else confine.open_beneath(folder, raw)

    fd = _opened(reopen, name)
    members: Members | None = None
    try:
        if stamp is not None and confine.stamp_of(fd) != stamp:
            raise _changed(name)
        members = _members_of(fd, raw, folder, name, parts)
        return OpenImage(pool, fd, name, reopen, members)
    except BaseException:
        os.close(fd)
        if members is not None:
            members.close()
        raise


def _members_of(
    fd: int, raw: bytes, folder: Path | None, name: str, parts: Sequence[FilePart] | None
) -> Members | None:
    """Find the other files of an image, which must be what they are said to be."""
    members = _opened(lambda: find_members(fd, raw, folder, parts), name)
    if parts and members is not None:
        stamps = [part.stamp for part in parts]
        if [part.stamp for part in members.parts] != stamps:
            members.close()
            raise _changed(name)
    return members


def _opened(opener: Callable[[], T], name: str) -> T:
    """Open a file; what the system says becomes a fault of that file."""
    try:
        return opener()
    except confine.NotRegularError as error:
        text = f"{name} is a link, a folder or a device and not a file; put the file itself there"
        raise SegmentdError(Reason.IMAGE_UNSUPPORTED, text, file=name) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SegmentdError(Reason.IMAGE_VANISHED, f"{name} is not there", file=name) from error
    except OSError as error:
        text = f"{name} cannot be opened ({error.strerror}); make it readable for the account of the daemon"
        raise SegmentdError(Reason.IMAGE_UNREADABLE, text, file=name) from error


def _changed(name: str) -> SegmentdError:
    text = f"{name} was changed while it was read; it is read again when it is complete"
    return SegmentdError(Reason.IMAGE_CHANGED, text, file=name)
