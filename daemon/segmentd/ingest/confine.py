"""Opens inputs so that nothing outside the watched folder can be reached, and nothing hangs.

A path is opened one component after the other below the folder's descriptor, without following links; only
regular files are accepted, and folders that are images; a FIFO or device is not waited for. Everything raises
OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat

from segmentd.ingest import tree
from segmentd.ingest.names import is_store
from segmentd.records import FileStamp

FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class NotRegularError(OSError):
    """What is there is a link, a folder, a device or the like, and not a file."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "not a regular file")


def open_file(path: str | bytes | os.PathLike[str]) -> int:
    """Open a file that the user named; links are followed, as everywhere on a command line."""
    return _regular(os.open(path, FILE_FLAGS), b"")


def open_image(path: str | bytes | os.PathLike[str]) -> int:
    """Open an image that the user named, which may also be a folder."""
    return _regular(os.open(path, FILE_FLAGS), os.fsencode(path).rstrip(b"/"))


def open_beneath(folder: str | bytes | os.PathLike[str], relative: bytes) -> int:
    """Open the file, or folder that is an image, at a path below a folder; no component may be a link.

    Raises
    ------
    NotRegularError
        The file is something else, or the path leads out of the folder.
    OSError
        As the system reports it: FileNotFoundError, PermissionError, ...
    """
    here = open_parent(folder, relative)
    try:
        return open_in(here, relative.rpartition(b"/")[2])
    finally:
        os.close(here)


def open_parent(folder: str | bytes | os.PathLike[str], relative: bytes) -> int:
    """Open the folder that holds the file at a path below a folder; raises as `open_beneath`."""
    *parents, name = relative.split(b"/")
    if any(part in (b"", b".", b"..") for part in (*parents, name)):
        raise NotRegularError
    here = os.open(folder, FOLDER_FLAGS)
    try:
        for part in parents:
            below = os.open(part, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
    except OSError as error:
        os.close(here)
        if error.errno == errno.ELOOP:
            raise NotRegularError from error
        raise
    return here


def open_in(folder: int, name: bytes) -> int:
    """Open the file, or folder that is an image, of that name in an open folder; raises as `open_beneath`."""
    if name in (b"", b".", b"..") or b"/" in name:
        raise NotRegularError
    try:
        return _regular(os.open(name, FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folder), name)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise NotRegularError from error
        raise


def _regular(fd: int, name: bytes) -> int:
    mode = os.fstat(fd).st_mode
    if not is_image_mode(mode, name):
        os.close(fd)
        raise NotRegularError
    return fd


def is_image_mode(mode: int, name: bytes) -> bool:
    """Whether what has this mode and name can be an image: a file, or a folder with the name of one."""
    return stat.S_ISDIR(mode) if is_store(name) else stat.S_ISREG(mode)


def is_open_for_writing(fd: int) -> bool:
    """Whether somebody has the file open for writing; False where the system does not tell.

    Asked by way of a read lease, which is given back at once. It is to be had for the daemon's own files, for
    all if it has CAP_LEASE, and on local file systems only: others say "open" of every file.
    """
    try:
        # A writer who comes just then is told by a signal that does nothing, instead of SIGIO, which kills.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def stamp_of(fd: int) -> FileStamp:
    """Return the stamp of an open file, or of all files of an open folder."""
    status = os.fstat(fd)
    return tree.stamp_of_tree(fd) if stat.S_ISDIR(status.st_mode) else make_stamp(status)


def make_stamp(result: os.stat_result) -> FileStamp:
    """Return the stamp that a stat result holds."""
    return FileStamp(result.st_size, result.st_mtime_ns, result.st_ino, result.st_dev, result.st_ctime_ns)
