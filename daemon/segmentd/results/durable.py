"""Files that survive a power cut: written under a temporary name, synced, renamed, folder synced.

All paths are taken relative to an open folder and no symbolic link below it is followed, so nothing is
written outside that folder, whatever happens to the tree meanwhile. A failed fsync is never tried again
on the same file: the kernel may have dropped the pages and would report success.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from io import BufferedRandom
from pathlib import Path

from segmentd.errors import write_errors
from segmentd.results.names import is_result_folder, is_temporary, temporary_name

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DurableFile:
    """A file that appears under its name complete or not at all.

    Parameters
    ----------
    folder : int
        Descriptor of the folder, owned by the caller.
    name : bytes
        The final name.

    Attributes
    ----------
    file : binary file object
        To write to, before `seal`.
    """

    def __init__(self, folder: int, name: bytes) -> None:
        self._folder = folder
        self._name = name
        self._temporary = temporary_name(name, secrets.token_hex(4).encode())
        name_text = os.fsdecode(self._temporary)
        self.file: BufferedRandom = open(name_text, "wb+", opener=self._create)  # noqa: SIM115
        try_lock(self.file.fileno())

    def _create(self, name: str, flags: int) -> int:
        del flags  # ours are stricter
        return os.open(name, _CREATE_FLAGS, 0o666, dir_fd=self._folder)

    def seal(self) -> str:
        """Sync the contents; returns their SHA-256."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    def publish(self) -> None:
        """Give a sealed file its name; durable once the folder is synced."""
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self.file.close()

    def discard(self) -> None:
        """Remove the temporary file; does nothing after `publish`."""
        if self.file.closed:
            return
        with contextlib.suppress(OSError):  # closing flushes, and may fail again as the write before it did
            self.file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder)


def open_folder(root: Path, parts: Sequence[bytes] = ()) -> int:
    """Open `root/parts...`, making what is missing durably; returns a descriptor.

    `root` may be or contain a symbolic link, `parts` may not.
    """
    make_folder(root)
    folder = os.open(root, FOLDER_FLAGS)
    for part in parts:
        try:
            inner = _open_inner(folder, part)
        finally:
            os.close(folder)
        folder = inner
    return folder


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents as needed; each new entry is synced in its parent."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode)
    parent = os.open(path.parent, FOLDER_FLAGS)
    try:
        sync_folder(parent)
    finally:
        os.close(parent)


def remove(name: bytes, parent: int) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # a folder; the second on some file systems
        shutil.rmtree(name, dir_fd=parent)


def sync_folder(folder: int) -> None:
    """Make renames and new entries of an open folder durable, where the file system has that."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def clean_temporaries(folder: Path) -> int:
    """Remove what a killed process left below a results folder; returns how many files and folders.

    One that a living process has locked stays.
    """
    removed = 0
    with write_errors("results", folder):
        if not folder.is_dir():
            return 0
        for _, folders, names, at in os.fwalk(os.fsencode(folder), onerror=_raise_unless_missing):
            removed += remove_abandoned([*names, *folders], at)
            folders[:] = (name for name in folders if not is_temporary(name) and not is_result_folder(name))
    return removed


def remove_abandoned(names: Iterable[bytes], folder: int) -> int:
    """Remove those of an open folder's files and folders that a killed process left unfinished."""
    abandoned = [name for name in filter(is_temporary, names) if _is_abandoned(name, folder)]
    for name in abandoned:
        remove(name, folder)
    return len(abandoned)


def _open_inner(folder: int, name: bytes) -> int:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        pass
    else:
        sync_folder(folder)
    return os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)


def try_lock(descriptor: int) -> bool:
    """Lock a file for the life of its descriptor; True too where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            raise
    return True


def _is_abandoned(name: bytes, folder: int) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # gone, or a link and none of ours
            return False
        raise
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
