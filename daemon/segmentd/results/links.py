"""Gives published results another name as well, when their image was renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from segmentd import crashpoints
from segmentd.errors import write_errors
from segmentd.results.durable import DurableFile, open_folder, sync_folder
from segmentd.results.durable_folder import DurableFolder
from segmentd.results.names import ZARR, container_of, result_name, source_parts, temporary_name
from segmentd.results.published import PublishedFile

_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


def link_results(folder: Path, source: bytes, files: Iterable[PublishedFile]) -> list[PublishedFile]:
    """Make the results of an image available under the name that it has now, durably.

    They are hard links where the file system has these, else copies. The old names stay until something
    else is segmented under the old name. What is not as it was published is left out.

    Parameters
    ----------
    folder : Path
        The results folder.
    source : bytes
        The image's path below the watched folder, as it is now.
    files : iterable of PublishedFile
        Its results, under the old name.

    Raises
    ------
    SegmentdError
        DISK_FULL or RESULTS_NOT_WRITABLE.
    """
    *subfolders, name = source_parts(source)
    linked = []
    with write_errors("results", folder):
        directory = open_folder(folder, subfolders)
        try:
            for file in files:
                new = result_name(name, file.kind, container_of(file.path))
                if _link(file, directory, new):
                    path = os.path.join(os.fsencode(folder.absolute()), *subfolders, new)  # noqa: PTH118 (bytes)
                    linked.append(replace(file, path=path))
            sync_folder(directory)
        finally:
            os.close(directory)
    crashpoints.reach("result-linked")
    return linked


def _link(file: PublishedFile, directory: int, name: bytes) -> bool:
    """Link one file or folder; False if it is not there any more as it was published."""
    if container_of(name) == ZARR:
        return _link_folder(file, directory, name)
    with contextlib.ExitStack() as stack:
        try:
            old = stack.enter_context(open(file.path, "rb"))  # noqa: PTH123 (bytes)
        except OSError:
            return False
        if hashlib.file_digest(old, "sha256").hexdigest() != file.digest:
            return False
        temporary = temporary_name(name, secrets.token_hex(4).encode())
        try:
            os.link(file.path, temporary, dst_dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _copy(old, directory, name)
        same = os.path.samestat(
            os.stat(temporary, dir_fd=directory, follow_symlinks=False), os.fstat(old.fileno())
        )
        if same:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        with contextlib.suppress(FileNotFoundError):  # renaming onto a link of the same file does nothing
            os.unlink(temporary, dir_fd=directory)
    return same


def _link_folder(file: PublishedFile, directory: int, name: bytes) -> bool:
    """Make a folder of links to the files of another one."""
    if not os.path.isdir(file.path):  # noqa: PTH112 (bytes)
        return False
    folder = DurableFolder(directory, name)
    try:
        shutil.copytree(
            os.fsdecode(file.path),
            folder.path,
            symlinks=True,
            copy_function=_link_or_copy,
            dirs_exist_ok=True,
        )
        if folder.seal() != file.digest:
            return False
        folder.publish()
    finally:
        folder.discard()
    return True


def _link_or_copy(old: str, new: str) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(old, new)


def _copy(old: IO[bytes], directory: int, name: bytes) -> bool:
    copy = DurableFile(directory, name)
    try:
        old.seek(0)
        shutil.copyfileobj(old, copy.file)
        copy.seal()
        copy.publish()
    finally:
        copy.discard()
    return True
