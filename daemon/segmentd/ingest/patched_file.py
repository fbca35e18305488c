"""A file with some bytes replaced and made longer, for a library that shall see it as it will be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from segmentd.ingest.descriptor_file import DescriptorFile


class PatchedFile(DescriptorFile):
    """Reads a descriptor as if the file had `size` bytes, with `patches` (bytes by offset) in it.

    What lies behind the real end is 0. From `moved_from` on, what is read lies `move` bytes further on in the
    file.
    """

    def __init__(self, fd: int, size: int, patches: Mapping[int, bytes], moved_from: int = 0) -> None:
        super().__init__(fd)
        self._size = size
        self._patches = dict(patches)
        self._moved_from = moved_from
        self.move = 0

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        start = self._offset
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - start)]
        place, done = start + (self.move if start >= self._moved_from else 0), 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], place + done)
            if count == 0:
                break
            done += count
        view[done:] = bytes(len(view) - done)
        for offset, data in self._patches.items():
            low, high = max(offset, start), min(offset + len(data), start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - offset : high - offset]
        self._offset = start + len(view)
        return len(view)
