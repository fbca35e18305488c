"""What a result is on the disk, a file or a folder: its digest, its size, its state."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from segmentd.records import FileStamp


def digest_of(path: bytes) -> str:
    """SHA-256 of a file's bytes, or of all that is in a folder.

    For a folder it is the SHA-256 of one line for each file, as `sha256sum` prints it:
    `find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`.

    Raises
    ------
    OSError
        It cannot be read, or something in the folder is neither file nor folder.
    """
    if not os.path.isdir(path):  # noqa: PTH112 (bytes)
        return _digest_of_file(path).hex()
    whole = hashlib.sha256()
    for inner in _files_below(path):
        whole.update(
            _digest_of_file(path + b"/" + inner, os.O_NOFOLLOW).hex().encode() + b"  ./" + inner + b"\n"
        )
    return whole.hexdigest()


def stamp_of(path: bytes) -> FileStamp:
    """Return size and last change, of a folder those of all its files; OSError where it is gone."""
    status = os.stat(path)  # noqa: PTH116 (bytes)
    size, changed = status.st_size, status.st_mtime_ns
    if stat.S_ISDIR(status.st_mode):
        inner = [os.lstat(path + b"/" + name) for name in _files_below(path)]
        size = sum(one.st_size for one in inner)
        changed = max([changed, *(one.st_mtime_ns for one in inner)])
    return FileStamp(size, changed, status.st_ino, status.st_dev)


def made_at(path: Path) -> float:
    """When a result was last written to, in seconds since the epoch."""
    return stamp_of(os.fsencode(path)).mtime_ns / 1e9


def _files_below(folder: bytes) -> list[bytes]:
    """Relative paths of all files below a folder, sorted."""
    return sorted(_walk(folder, b""))


def _walk(folder: bytes, below: bytes) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, below + entry.name + b"/")
            else:
                yield below + entry.name


def _digest_of_file(path: bytes, flags: int = 0) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", path)
        return hashlib.file_digest(file, "sha256").digest()
