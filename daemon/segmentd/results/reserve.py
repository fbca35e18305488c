"""Room kept free for the journal: given up when its disk is full, so that work in hand is recorded."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from segmentd.errors import NO_ROOM

FILE_NAME = "reserve"
RESERVE_BYTES = 16 << 20


class Reserve:
    """A file that takes up room until the room is needed.

    Parameters
    ----------
    folder : Path
        The journal's.
    size_bytes : int
        How much to keep; 0 keeps nothing, and nothing is ever short.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._path = folder / FILE_NAME
        self._size = size_bytes
        self._held = size_bytes == 0
        self.take()

    @property
    def held(self) -> bool:
        """Whether the room is there."""
        return self._held

    def take(self) -> bool:
        """Take up the room again; False while the disk has none."""
        if self._held:
            return True
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            if error.errno in NO_ROOM:
                return False
            self._size = 0  # this file system cannot set room aside: work without
        self._held = True
        return True

    def give_up(self) -> bool:
        """Give the room to the journal; False if it was given up before."""
        if not self._held or self._size == 0:
            return False
        self._held = False
        self._path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Leave no file behind."""
        if self._size:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
