"""A folder of files that appears under its name complete or not at all; the sibling of `DurableFile`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from segmentd import crashpoints
from segmentd.results.contents import digest_of
from segmentd.results.durable import FOLDER_FLAGS, remove, sync_folder, try_lock
from segmentd.results.names import temporary_name


class DurableFolder:
    """A folder that is filled under a temporary name, synced, and then renamed.

    Where a folder has the name already, it is put aside first, since a rename replaces only empty folders:
    for a moment there is none. A crash then leaves none, and the image is segmented again.

    Parameters
    ----------
    parent : int
        Descriptor of the folder above, owned by the caller.
    name : bytes
        The final name.

    Attributes
    ----------
    path : Path
        To fill, before `seal`; good in this process only.
    """

    def __init__(self, parent: int, name: bytes) -> None:
        self._parent = parent
        self._name = name
        self._temporary = temporary_name(name, secrets.token_hex(4).encode())
        self._open = True
        os.mkdir(self._temporary, dir_fd=parent)
        self._descriptor = os.open(self._temporary, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
        try_lock(self._descriptor)
        self.path = Path(f"/proc/self/fd/{self._descriptor}")

    def seal(self) -> str:
        """Sync all that is in the folder; returns its digest."""
        for _, _, names, at in os.fwalk(b".", topdown=False, dir_fd=self._descriptor):
            for name in names:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_folder(at)
        return digest_of(os.fsencode(self.path))

    def publish(self) -> None:
        """Give a sealed folder its name; durable once the folder above is synced."""
        old = temporary_name(self._name, secrets.token_hex(4).encode())
        try:
            os.rename(self._name, old, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        except FileNotFoundError:
            pass
        else:
            crashpoints.reach("result-put-aside")
        os.rename(self._temporary, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._close()
        remove(old, self._parent)

    def discard(self) -> None:
        """Remove the temporary folder; does nothing after `publish`."""
        if self._open:
            self._close()
            remove(self._temporary, self._parent)

    def _close(self) -> None:
        self._open = False
        os.close(self._descriptor)
