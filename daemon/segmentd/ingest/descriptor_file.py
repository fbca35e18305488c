"""A file object on a descriptor, for libraries that would otherwise want a path."""

from __future__ import annotations

import io
import os
from typing import Any, Protocol

BLOCK_BYTES = 4 << 20


class Hash(Protocol):
    """What takes bytes, as those of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Take the next ones."""


def add_content(digest: Hash, fd: int) -> None:
    """Add all bytes of a file to a digest; where the descriptor stands does not matter."""
    offset = 0
    while block := os.pread(fd, BLOCK_BYTES, offset):
        digest.update(block)
        offset += len(block)


class DescriptorFile(io.RawIOBase):
    """A file that reads at offsets of a descriptor, which may be replaced by another one of the file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._offset = 0
        self._size = os.fstat(fd).st_size

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be positioned."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position for the next read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def tell(self) -> int:
        """Position of the next read."""
        return self._offset

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = os.preadv(self.fd, [view[done:]], self._offset)
            if count == 0:
                break
            done += count
            self._offset += count
        return done

    def read_at(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from `offset` on; returns how many bytes there were."""
        self._offset = offset
        return self.readinto(buffer)

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer only at the end of the file."""
        left = max(0, self._size - self._offset)
        data = bytearray(left if size < 0 else min(size, left))
        return bytes(memoryview(data)[: self.readinto(data)])
