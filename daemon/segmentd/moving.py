"""Moves images that are done out of the watched folder (`after = "move:DIR"`).

What has to be moved is what is done and still there: nothing is noted down, so a crash or a full disk only
delays it. Nothing is ever overwritten, and an image is taken away only once it is safely at its new place.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from segmentd import crashpoints, telemetry
from segmentd.errors import SegmentdError
from segmentd.ingest import confine
from segmentd.ingest.names import printable
from segmentd.records import FileStamp, WatchSpec
from segmentd.results.durable import clean_temporaries, open_folder, sync_folder
from segmentd.results.names import temporary_name

RETRY_SECONDS = 30.0
MAX_WANTED = 1000
_CHUNK = 1 << 20
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

_log = telemetry.get_logger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


class _StoppedError(Exception):
    """The daemon stops; the copy under way is given up."""


class Mover:
    """Moves the images of one watch, one after the other.

    Parameters
    ----------
    spec : WatchSpec
        The watch; without `move_to` nothing is ever moved.
    clock : callable
        Returns seconds; another one for tests.

    Attributes
    ----------
    trouble : str
        Why images stay where they are, for the watch's status; "" if nothing is wrong.
    """

    def __init__(self, spec: WatchSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._clock = clock
        self._wanted: dict[bytes, tuple[FileStamp, bool]] = {}
        self._more = asyncio.Event()
        self._stopped = threading.Event()
        self._not_before = 0.0
        self.trouble = ""

    def want(self, path: bytes, stamp: FileStamp, keep_name: bool = False) -> None:
        """Have an image moved if it still has this stamp; what is dropped here, the next scan tells again.

        One that has to `keep_name`, since other files refer to it by that, stays where it is while another
        file has the name.
        """
        wanted = self._spec.move_to is not None and self._clock() >= self._not_before
        if wanted and len(self._wanted) < MAX_WANTED:
            self._wanted[path] = stamp, keep_name
            self._more.set()

    async def run(self) -> None:
        """Move what is wanted until cancelled."""
        if self._spec.move_to is None:
            return
        try:
            await asyncio.to_thread(self._clean)
            while True:
                await self._more.wait()
                self._more.clear()
                while self._wanted:
                    path, (stamp, keep_name) = next(iter(self._wanted.items()))
                    await asyncio.to_thread(self._move, path, stamp, self._spec.move_to, keep_name)
                    self._wanted.pop(path, None)
        finally:
            self._stopped.set()

    def _clean(self) -> None:
        """Remove what a killed process left; the images themselves are at their new place then."""
        for folder in (self._spec.folder, self._spec.move_to):
            with contextlib.suppress(SegmentdError):  # out of reach: moving will tell
                clean_temporaries(folder or self._spec.folder)

    def _move(self, path: bytes, stamp: FileStamp, target: Path, keep_name: bool) -> None:
        try:
            moved = move_file(self._spec.folder, path, stamp, target, self._stopped, keep_name)
        except _StoppedError:
            return
        except OSError as error:
            trouble = f"images that are done cannot be moved to {target}: {error.strerror or error}"
            if trouble != self.trouble:
                _log.warning("image not moved", watch=self._spec.id, file=path, why=trouble)
            self.trouble = trouble
            if isinstance(error, IsADirectoryError | FileExistsError):
                return  # this one only: others can be moved
            self._not_before = self._clock() + RETRY_SECONDS
            self._wanted.clear()
            return
        self.trouble = ""
        if moved is not None:
            _log.info("image moved", watch=self._spec.id, file=path, to=moved)


def move_file(
    folder: Path,
    path: bytes,
    stamp: FileStamp,
    target: Path,
    stopped: threading.Event,
    keep_name: bool = False,
) -> bytes | None:
    """Move a file to the same place below another folder, durably and without overwriting anything.

    Parameters
    ----------
    folder, path : Path, bytes
        The watched folder, and the file's path below it.
    stamp : FileStamp
        What the file must still be like.
    target : Path
        Where it goes, with its subfolders; made if missing. A name that is taken gets a number, unless
        the file has to `keep_name`.
    stopped : Event
        Ends a copy to another file system.

    Returns
    -------
    bytes or None
        Where the file is now; None if it is gone or has changed, which is not this function's business.

    Raises
    ------
    OSError
        The file is where it was.
    """
    try:
        source = confine.open_beneath(folder, path)
    except (FileNotFoundError, NotADirectoryError, confine.NotRegularError):
        return None
    *parts, name = path.split(b"/")
    try:
        if confine.stamp_of(source) != stamp:
            return None
        directory = open_folder(target, parts)
        try:
            crashpoints.reach("before-move")
            full = os.fsencode(folder) + b"/" + path
            try:
                new = _take_name(full, _AT_FDCWD, directory, name, keep_name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                new = _copy(source, directory, name, stopped, keep_name)
                crashpoints.reach("moved")
                _take_away(full, stamp)
            else:
                if not _is_file(os.stat(new, dir_fd=directory, follow_symlinks=False), stamp):
                    _rename(new, full, directory, _AT_FDCWD)  # another file had just taken its place
                    return None
                sync_folder(directory)
                crashpoints.reach("moved")
            _sync_parent(full)
        finally:
            os.close(directory)
    finally:
        os.close(source)
    return b"/".join((os.fsencode(target), *parts, new))


def _copy(source: int, directory: int, name: bytes, stopped: threading.Event, keep_name: bool) -> bytes:
    """Copy an open file to a folder on another file system; it appears complete and synced."""
    temporary = temporary_name(name, secrets.token_hex(4).encode())
    status = os.fstat(source)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "an OME-Zarr is moved within one file system only")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(temporary, flags, status.st_mode & 0o777, dir_fd=directory)
    try:
        with os.fdopen(copy, "wb") as file:
            os.lseek(source, 0, os.SEEK_SET)
            while chunk := os.read(source, _CHUNK):
                if stopped.is_set():
                    raise _StoppedError
                file.write(chunk)
            file.flush()
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(copy)
            if confine.stamp_of(source) != confine.make_stamp(status):
                raise OSError(errno.EAGAIN, "it changed while it was copied")
        new = _take_name(temporary, directory, directory, name, keep_name)
        sync_folder(directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    return new


def _take_away(path: bytes, stamp: FileStamp) -> None:
    """Remove a file that was copied, but never one that has just taken its name."""
    folder, _, name = path.rpartition(b"/")
    aside = folder + b"/" + temporary_name(name, secrets.token_hex(4).encode())
    try:
        os.rename(path, aside)  # noqa: PTH104 (bytes)
    except FileNotFoundError:
        return
    if _is_file(os.lstat(aside), stamp):
        os.unlink(aside)  # noqa: PTH108 (bytes)
    else:
        _rename(aside, path, _AT_FDCWD, _AT_FDCWD)


def _take_name(old: bytes, old_folder: int, folder: int, name: bytes, keep_name: bool) -> bytes:
    """Rename to the first of `name.tif`, `name-2.tif`, ... that is free; returns it."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122 (bytes)
    for number in count(1):
        new = name if number == 1 else b"%s-%d%s" % (stem, number, ending)
        try:
            _rename(old, new, old_folder, folder)
        except FileExistsError as error:
            if keep_name:
                text = f"a file of a set keeps its name, and there is another {printable(name)}"
                raise FileExistsError(errno.EEXIST, text) from error
            continue
        return new
    raise AssertionError("count does not end")


def _rename(old: bytes, new: bytes, old_folder: int, new_folder: int) -> None:
    """Rename unless the new name is taken, in one step where the file system can."""
    if _libc.renameat2(old_folder, old, new_folder, new, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), old)
    at = {"src_dir_fd": old_folder, "dst_dir_fd": new_folder}
    at = {key: value for key, value in at.items() if value != _AT_FDCWD}
    with contextlib.suppress(FileNotFoundError):
        os.stat(new, dir_fd=at.get("dst_dir_fd"), follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, **at)  # noqa: PTH104 (bytes)


def _is_file(status: os.stat_result, stamp: FileStamp) -> bool:
    if stat.S_ISDIR(status.st_mode):
        return (status.st_ino, status.st_dev) == (stamp.inode, stamp.device)
    return confine.make_stamp(status) == stamp


def _sync_parent(path: bytes) -> None:
    folder = os.open(path.rpartition(b"/")[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_folder(folder)
    finally:
        os.close(folder)
