"""Images that are folders (OME-Zarr): their files taken together are one content. No link is followed.

Folders named `labels` in an image are left out: what people or programs draw later does not change the image.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from segmentd.ingest.descriptor_file import add_content
from segmentd.records import FileStamp

MAX_FILES = 1_000_000
MAX_DEPTH = 32
LABELS = b"labels"
LABELS_DEPTH = 2  # `labels` of the image, or of one of several images in it
NOT_A_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file in the folder: its path below it, and what the file system says of it."""

    path: bytes
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


def files_of(fd: int, strict: bool = True) -> Iterator[TreeFile]:
    """Walk through all regular files below an open folder, in no particular order.

    Parameters
    ----------
    fd : int
        The folder.
    strict : bool
        Whether subfolders that cannot be read are an error (OSError) or left out.
    """
    pending = [b""]
    while pending:
        below = pending.pop()
        try:
            here = _open(fd, below, FOLDER_FLAGS)
        except FileNotFoundError:
            continue  # it went away since it was listed
        except PermissionError:
            if strict:
                raise
            continue
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)  # of a descriptor, names are text
                    path = below + b"/" + name if below else name
                    depth = path.count(b"/")
                    if entry.is_dir(follow_symlinks=False):
                        if depth < MAX_DEPTH and not (name == LABELS and depth < LABELS_DEPTH):
                            pending.append(path)
                        continue
                    status = _status(entry)
                    if status is not None and stat.S_ISREG(status.st_mode):
                        yield TreeFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        finally:
            os.close(here)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def stamp_of_tree(fd: int) -> FileStamp:
    """Return the stamp of an open folder: size of its files, times of the youngest, its own identity."""
    own = os.fstat(fd)
    size, count, mtime, ctime = 0, 0, 0, 0
    for file in islice(files_of(fd, strict=False), MAX_FILES + 1):
        size += file.size_bytes
        count += 1
        mtime, ctime = max(mtime, file.mtime_ns), max(ctime, file.ctime_ns)
    if count == 0:
        mtime, ctime = own.st_mtime_ns, own.st_ctime_ns
    return FileStamp(size, mtime, own.st_ino, own.st_dev, ctime)


def read_file(fd: int, path: bytes, start: int = 0, size: int | None = None) -> bytes | None:
    """Read a file below an open folder, or `size` bytes of it; None where there is no regular file.

    A negative `start` counts from the end.
    """
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        return None
    try:
        file = _open(fd, path, FILE_FLAGS)
    except OSError as error:
        if error.errno in NOT_A_FILE:
            return None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        start = max(0, status.st_size + start) if start < 0 else min(start, status.st_size)
        left = status.st_size - start
        return _read(file, start, left if size is None else min(size, left))
    finally:
        os.close(file)


def digest(fd: int) -> str:
    """SHA-256 over all files, in the order of their names: name, size, content."""
    sha256 = hashlib.sha256()
    for file in sorted(files_of(fd), key=lambda file: file.path):
        sha256.update(b"%d %s %d " % (len(file.path), file.path, file.size_bytes))
        opened = _open(fd, file.path, FILE_FLAGS)
        try:
            add_content(sha256, opened)
        finally:
            os.close(opened)
    return sha256.hexdigest()


def _read(file: int, start: int, size: int) -> bytes:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = os.preadv(file, [view[done:]], start + done)
        if count == 0:
            break
        done += count
    return bytes(view[:done])


def _open(fd: int, path: bytes, flags: int) -> int:
    """Open what is at a path below a folder, one component after the other."""
    if not path:
        return os.open(b".", flags, dir_fd=fd)
    *parents, name = path.split(b"/")
    here, opened = fd, -1
    try:
        for part in parents:
            here = os.open(part, FOLDER_FLAGS, dir_fd=here)
            if opened >= 0:
                os.close(opened)
            opened = here
        return os.open(name, flags, dir_fd=here)
    finally:
        if opened >= 0:
            os.close(opened)
