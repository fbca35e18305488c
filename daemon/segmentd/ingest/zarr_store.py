"""What the zarr library sees of an image: checked metadata, and chunks read through the folder's descriptor.

Imported only where an image is read: the library is in the extra `zarr`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from segmentd.ingest import tree


class FolderStore(Store):
    """A read-only store. Metadata come from `documents` only, so that what was checked is what is used."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, fd: int, documents: dict[str, bytes]) -> None:
        super().__init__(read_only=True)
        self.fd = fd
        self._documents = documents

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a document or a chunk, or a part of it; None where it is not there."""
        if key.rpartition("/")[2] in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"):
            data = self._documents.get(key)
        else:
            data = self._chunk(key.encode("utf-8", "surrogateescape"), byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _chunk(self, path: bytes, wanted: ByteRequest | None) -> bytes | None:
        match wanted:
            case RangeByteRequest(start, end):
                return tree.read_file(self.fd, path, start, end - start)
            case OffsetByteRequest(offset):
                return tree.read_file(self.fd, path, offset)
            case SuffixByteRequest(suffix):
                return tree.read_file(self.fd, path, -suffix)
        return tree.read_file(self.fd, path)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of several chunks."""
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is a document of that name; chunks are just asked for."""
        return key in self._documents

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: images are never changed."""
        raise PermissionError("the store is read-only")

    async def delete(self, key: str) -> None:
        """Refuse: images are never changed."""
        raise PermissionError("the store is read-only")

    async def list(self) -> AsyncIterator[str]:
        """List the documents."""
        for key in self._documents:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """List the documents below a path."""
        for key in self._documents:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List documents at the top, of which there are none: groups are not opened."""
        async for key in self.list_prefix(f"{prefix}/"):
            yield key
